"""The jobs of a fleet, for ``taskiq worker jobs:broker`` on as many machines as you like.

A job names some tenants. It may run more than once, since a worker can die at any moment, and its job then goes to
another: what is on record is left alone, and what is not gets a user, or a new password if the user exists already. The
lock keeps a job that is handed out again from running beside itself, when its first worker is slow and not dead. Put
each tenant into one job only.

Set in the environment: DIGITALOCEAN_TOKEN, CLUSTER_ID, VALKEY_URL and CREDENTIALS (a path); and for trying it out
DIGITALOCEAN_API_URL, RATE_LIMIT (requests/seconds) and LEASE (seconds after which a dead worker's job goes to another).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from store import CredentialStore
from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker
from valkey.asyncio import Valkey

from aiodbclient import DatabaseClient, RateBudget, Window
from aiodbclient.shared_budget import SharedRateBudget, token_key

VALKEY_URL = os.environ["VALKEY_URL"]
LEASE = float(os.environ.get("LEASE", "60"))

broker = RedisStreamBroker(
    VALKEY_URL.replace("valkey", "redis", 1),
    consumer_id="0",  # also what was queued before the first worker came
    xread_count=1,  # take no more than can be worked on: others may be idle
    xread_block=500,
    idle_timeout=round(LEASE * 1000),
    unacknowledged_lock_timeout=LEASE,
).with_middlewares(SimpleRetryMiddleware(default_retry_count=3))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    token = os.environ["DIGITALOCEAN_TOKEN"]
    windows = RateBudget().windows
    if "RATE_LIMIT" in os.environ:
        limit, seconds = os.environ["RATE_LIMIT"].split("/")
        windows = (Window(int(limit), float(seconds)),)
    state.budget = SharedRateBudget(VALKEY_URL, windows, key=token_key(token))
    state.client = DatabaseClient(
        token, base_url=os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com"), budget=state.budget
    )
    state.valkey = Valkey.from_url(VALKEY_URL)
    state.store = CredentialStore(Path(os.environ["CREDENTIALS"]))


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    await state.client.aclose()
    await state.budget.aclose()
    await state.valkey.aclose()


@asynccontextmanager
async def only_here(valkey: Valkey, job: str) -> AsyncGenerator[None, None]:
    """Wait until no other worker runs the job. Renewed for as long as this takes; gone soon after this process."""
    lock = valkey.lock(f"job:{job}", timeout=LEASE)

    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            await lock.reacquire()  # raises LockError if it was lost, which ends the job

    async with lock, asyncio.TaskGroup() as group:
        renewal = group.create_task(renew())
        yield
        renewal.cancel()


@broker.task(retry_on_error=True)
async def provision_tenants(tenants: list[str], context: Context = TaskiqDepends()) -> None:
    """Each of ``tenants`` has a user, and its credential is on record. Fails, to be tried again, if one has not."""
    state = context.state
    store: CredentialStore = state.store
    client: DatabaseClient = state.client
    users = client.cluster(os.environ["CLUSTER_ID"]).users
    errors: list[Exception] = []
    async with only_here(state.valkey, context.message.task_id):
        async for outcome in users.provision(await asyncio.to_thread(store.missing, tenants), if_exists="reset"):
            if outcome.error is not None:
                errors.append(outcome.error)
            elif outcome.user is not None and outcome.user.password:
                await asyncio.to_thread(store.put, outcome.name, outcome.user.password, str(os.getpid()))
            else:
                errors.append(ValueError(f"{outcome.name}: the API told no password"))
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(tenants)} tenants have no credential yet", errors)


@broker.task
async def tick() -> None:
    """Queue one every now and then, for instance with taskiq's scheduler.

    taskiq-redis looks for the jobs of dead workers only after it was given a new one (1.2).
    """
