"""Tenants on a real PostgreSQL, through the SDK, over real HTTP: ``make demo``.

It starts the sandbox with an embedded PostgreSQL, and gives each of TENANTS a database and a login of its own. Then
it shows what you get:

- A process that is killed in the middle loses nothing.
- Each tenant works in its own database and cannot enter another.
- A rotation fails no query.
- A tenant on a Redis cluster is refused before a request is sent.

With the folder of an installed PostgreSQL's programs as its argument, it starts that one, with TLS:
``.venv/bin/python examples/demo.py /usr/lib/postgresql/17/bin``.

It ends with a summary, and with exit code 1 if anything went wrong.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import psycopg
from cryptography.fernet import Fernet
from psycopg import AsyncConnection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from aiodbclient import DatabaseClient, Engine, RateLimiter
from aiodbclient.errors import DatabaseClientError, UnsupportedOperationError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, Tenants

T = TypeVar("T")

KEY = Fernet.generate_key().decode()
TENANTS = [f"tenant_{number:03}" for number in range(1, 201)]
BY_THE_KILLED = 0.3  # the share of tenants that another process creates before it is killed
LOGINS_AT_A_TIME = 8


class Unexpected(Exception):
    """Something went wrong."""


async def demo(console: Console, folder: Path, server: str | None = None) -> Table:
    """Run all steps, and return the summary."""
    summary = Table.grid(padding=(0, 2))
    path = folder / "tenants.db"
    async with Sandbox(windows=[]) as sandbox:
        started = perf_counter()
        cluster_id = await sandbox.add_cluster("pg", "tenants", backend="postgres", server=server)
        cache = await sandbox.add_cluster("redis", "cache")
        console.print(f"PostgreSQL started in {since(started)}; the API sandbox is at {sandbox.url}")
        console.print("It has no rate limit. The provider's would not slow the tenants: they are made by SQL.\n")

        killed_at = await kill_in_the_middle(sandbox, cluster_id, path, console)
        summary.add_row("killed", f"a provisioning process, when {killed_at} tenants were stored")

        limiter = RateLimiter([])
        async with (
            DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=limiter) as client,
            SQLiteStore(path, key=KEY) as store,
        ):
            tenants = Tenants(client.cluster(cluster_id), store)
            with progress(console) as bars:
                started = perf_counter()
                credentials, kept = await provision(tenants, bars)
                took, once = since(started), await created_once(client, cluster_id)
                summary.add_row(
                    "provisioned",
                    f"the other {len(credentials) - kept} of {len(credentials)} tenants, each with a database and a "
                    f"login, in {took}; logins created exactly once: {once}",
                )
                await each(credentials, own_table, bars, "own databases")
                summary.add_row("own database", "each tenant created a table, wrote to it and read it back")
                tried = await each(pairs(credentials), stay_out, bars, "other databases")
                summary.add_row("isolated", f"each tenant was refused at another tenant's database ({tried} tried)")

            queries = await rotate_under_load(tenants, credentials[0], store)
            summary.add_row("rotated", f"{credentials[0].name}, while a client sent {queries} queries: none failed")
            await revoke_previous(tenants, credentials[0])
            summary.add_row("revoked", "its previous credential: it can no longer log in")

            before = len(sandbox.requests)
            await expect_refused(Tenants(client.cluster(cache, engine=Engine.REDIS), store))
            sent = len(sandbox.requests) - before
            if sent:
                raise Unexpected(f"{sent} requests were sent to a cluster without users")
            summary.add_row("refused", f"a tenant on Redis, before a request was sent ({sent} requests)")
    return summary


async def kill_in_the_middle(sandbox: Sandbox, cluster_id: str, path: Path, console: Console) -> int:
    """Provision in another process and kill it. Returns how many tenants are stored then."""
    names = path.with_suffix(".csv")
    names.write_text("".join(f"{name}\n" for name in TENANTS))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aiodbclient", "tenants", "provision", "--from", str(names)),
        *("--cluster", cluster_id, "--store", str(path)),
        env=os.environ
        | {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
        | {"AIODBCLIENT_STORE_KEY": KEY},
        stdout=asyncio.subprocess.DEVNULL,
    )
    enough = BY_THE_KILLED * len(TENANTS)
    while await stored(path) < enough and process.returncode is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    if await process.wait() != -signal.SIGKILL:
        raise Unexpected(f"the process ended with {process.returncode} before it was killed")
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client:
        created = await logins(client, cluster_id)
    kept = await stored(path)
    console.print(f"killed a process: it had created {created} logins and stored {kept} of them\n")
    return kept


async def stored(path: Path) -> int:
    """How many tenants have a credential in the store."""
    async with SQLiteStore(path, key=KEY) as store:
        return len([record.name async for record in store.records() if record.logins])


async def logins(client: DatabaseClient, cluster_id: str) -> int:
    """How many logins of tenants the cluster has."""
    return len([user.name for user in await client.cluster(cluster_id).users.list() if user.name.startswith("tenant_")])


async def provision(tenants: Tenants, bars: Progress) -> tuple[list[Credential], int]:
    """Continue where the killed process stopped. Returns the credentials, and how many were stored already."""
    bar = bars.add_task("provisioning", total=len(TENANTS))
    credentials: list[Credential] = []
    kept = 0
    async for outcome in tenants.provision(TENANTS):
        if outcome.credential is None:
            raise Unexpected(f"{outcome.name} was not provisioned: {outcome.error}")
        credentials.append(outcome.credential)
        kept += outcome.action == "kept"
        bars.advance(bar)
    if sorted(credential.name for credential in credentials) != TENANTS:
        raise Unexpected(f"{len(credentials)} tenants were provisioned instead of {len(TENANTS)}")
    return credentials, kept


async def created_once(client: DatabaseClient, cluster_id: str) -> str:
    created = await logins(client, cluster_id)
    if created != len(TENANTS):
        raise Unexpected(f"{created} logins were created for {len(TENANTS)} tenants")
    return f"{created} of {len(TENANTS)}"


async def own_table(credential: Credential) -> None:
    async with await AsyncConnection.connect(credential.uri) as own:
        await own.execute("CREATE TABLE visits (who text)")
        await own.execute("INSERT INTO visits VALUES (current_database())")
        rows = await (await own.execute("TABLE visits")).fetchall()
    if rows != [(credential.database,)]:
        raise Unexpected(f"{credential.name} read {rows}")


def pairs(credentials: list[Credential]) -> list[tuple[Credential, Credential]]:
    """Pair each tenant with the next one."""
    return list(zip(credentials, [*credentials[1:], credentials[0]], strict=True))


async def stay_out(pair: tuple[Credential, Credential]) -> None:
    visitor, host = pair
    try:
        await (await AsyncConnection.connect(visitor.uri, dbname=host.database)).close()
    except psycopg.OperationalError as error:
        if "permission denied for database" not in str(error):
            raise
    else:
        raise Unexpected(f"{visitor.name} entered the database of {host.name}")


async def each(things: Iterable[T], do: Callable[[T], Awaitable[None]], bars: Progress, what: str) -> int:
    """Call ``do`` with each thing, some at a time. Returns how many there were."""
    things = list(things)
    bar = bars.add_task(what, total=len(things))
    waiting = iter(things)

    async def work() -> None:
        for thing in waiting:
            await do(thing)
            bars.advance(bar)

    async with asyncio.TaskGroup() as group:
        for _ in range(LOGINS_AT_A_TIME):
            group.create_task(work())
    return len(things)


async def rotate_under_load(tenants: Tenants, credential: Credential, store: SQLiteStore) -> int:
    """Rotate a tenant while its program queries with the stored credential. Returns the number of queries."""
    rotated = asyncio.Event()
    queries = 0

    async def program() -> None:
        nonlocal queries
        more = 20  # queries after the rotation
        while more > 0:
            more -= rotated.is_set()
            current = await tenants.get(credential.name)
            assert current is not None
            async with await AsyncConnection.connect(current.uri) as connection:
                await connection.execute("INSERT INTO visits VALUES (session_user)")
            queries += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(program())
        await asyncio.sleep(0.2)
        async for outcome in tenants.rotate([credential.name]):
            if outcome.error is not None:
                raise Unexpected(f"{outcome.name} was not rotated: {outcome.error}")
        await own_query(credential)  # the previous credential still works
        rotated.set()
    return queries


async def own_query(credential: Credential) -> None:
    async with await AsyncConnection.connect(credential.uri) as connection:
        await connection.execute("SELECT count(*) FROM visits")


async def revoke_previous(tenants: Tenants, old: Credential) -> None:
    async for outcome in tenants.revoke_previous([old.name]):
        if outcome.error is not None:
            raise Unexpected(f"{outcome.name} was not revoked: {outcome.error}")
    try:
        await own_query(old)
    except psycopg.OperationalError as error:
        if "password authentication failed" not in str(error):
            raise
    else:
        raise Unexpected("the previous credential still works")


async def expect_refused(tenants: Tenants) -> None:
    try:
        await tenants.ensure("tenant")
    except UnsupportedOperationError:
        return
    raise Unexpected("a Redis cluster got a tenant")


def progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


def since(started: float) -> str:
    return f"{perf_counter() - started:.1f} s"


def main(server: str | None = None) -> int:
    console = Console(highlight=False, soft_wrap=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            summary = asyncio.run(demo(console, Path(folder), server))
    except (Unexpected, DatabaseClientError, psycopg.Error, RuntimeError) as failure:
        console.print(f"\nFAILED: {failure}")
        return 1
    except ExceptionGroup as failures:
        console.print(f"\nFAILED: {failures.exceptions[0]}")
        return 1
    console.print("", summary, "\nEverything worked. The sandbox and its PostgreSQL have been removed.", sep="\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
