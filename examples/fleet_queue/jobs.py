"""The jobs of a fleet, for ``taskiq worker jobs:broker`` on any number of machines.

A job is a tenant's name. A worker can die at any moment, and then another worker gets its job. So a job may run more
than once, and on two workers at once. ``ensure`` still creates one login, and returns it to both.

Set in the environment: DIGITALOCEAN_TOKEN, CLUSTER_ID, VALKEY_URL and STORE (the DSN of a PostgreSQL that stores the
credentials). To try it out, also set DIGITALOCEAN_API_URL, RATE_LIMIT (requests/seconds) and LEASE (seconds until
another worker gets the job of a dead one).
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from aiodbclient import DatabaseClient, RateLimiter, Window
from aiodbclient.shared_budget import SharedRateBudget, token_key
from aiodbclient.tenants import PostgresStore, Tenants

VALKEY_URL = os.environ["VALKEY_URL"]
LEASE = float(os.environ.get("LEASE", "60"))

broker = RedisStreamBroker(
    VALKEY_URL.replace("valkey", "redis", 1),
    consumer_id="0",  # include jobs that were queued before the first worker started
    xread_count=1,  # take one job at a time: other workers may be idle
    xread_block=500,
    idle_timeout=round(LEASE * 1000),
    unacknowledged_lock_timeout=LEASE,
).with_middlewares(SimpleRetryMiddleware(default_retry_count=3))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_tenants(state: TaskiqState) -> None:
    token = os.environ["DIGITALOCEAN_TOKEN"]
    windows = RateLimiter().windows
    if "RATE_LIMIT" in os.environ:
        limit, seconds = os.environ["RATE_LIMIT"].split("/")
        windows = (Window(int(limit), float(seconds)),)
    state.opened = AsyncExitStack()
    budget = await state.opened.enter_async_context(SharedRateBudget(VALKEY_URL, windows, key=token_key(token)))
    client = await state.opened.enter_async_context(DatabaseClient(token, budget=budget))
    store = await state.opened.enter_async_context(PostgresStore(os.environ["STORE"]))
    state.tenants = Tenants(client.cluster(os.environ["CLUSTER_ID"]), store, lease=LEASE)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_tenants(state: TaskiqState) -> None:
    await state.opened.aclose()


@broker.task(retry_on_error=True)
async def ensure_tenant(name: str, context: Context = TaskiqDepends()) -> None:
    """Give the tenant a database and a login, and store its credential."""
    tenants: Tenants = context.state.tenants
    await tenants.ensure(name)


@broker.task
async def tick() -> None:
    """Queue this regularly, for instance with taskiq's scheduler.

    taskiq-redis looks for the jobs of dead workers only after it receives a new job (1.2).
    """
