"""200 logins on a real PostgreSQL, through the SDK, over real HTTP: ``make demo``.

Starts the sandbox with an embedded PostgreSQL behind it, creates a database and 200 users concurrently, logs in as each
of them with the password that the API returned, rotates one password, and shows a Redis cluster being refused. Ends
with a summary, and with exit code 1 if anything was not as it should be.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from time import perf_counter

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from aiodbclient import ClusterClient, Connection, DatabaseClient, Engine, User
from aiodbclient.errors import DatabaseClientError, UnsupportedOperationError
from aiodbclient.sandbox import Sandbox

DATABASE = "app"
NAMES = [f"tenant_{number:03}" for number in range(1, 201)]
LOGINS_AT_A_TIME = 8


class Unexpected(Exception):
    """Something was not as it should be."""


async def demo(console: Console) -> Table:
    """Do all of it, and tell what was done."""
    summary = Table.grid(padding=(0, 2))
    async with Sandbox() as sandbox:
        started = perf_counter()
        tenants = await sandbox.add_cluster("pg", "tenants", backend="postgres")
        cache = await sandbox.add_cluster("redis", "cache")
        console.print(f"PostgreSQL started in {since(started)}; an API of DigitalOcean's shape is at {sandbox.url}\n")

        async with DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
            cluster = client.cluster(tenants)
            connection = (await cluster.info()).connection

            with progress(console) as bars:
                started = perf_counter()
                await cluster.dbs.create(DATABASE)
                users = await create_users(cluster, bars)
                summary.add_row("created", f"1 database and {len(users)} users, in {since(started)}")

                started = perf_counter()
                await log_in_as_each(users, connection, bars)
                summary.add_row("logged in", f"to PostgreSQL as each of the {len(users)}, in {since(started)}")

            rotated = users[0]
            new = await cluster.users.reset_auth(rotated.name)
            await expect_refused(connection.uri_for(rotated, DATABASE))
            await expect_login(new, connection)
            summary.add_row("rotated", f"the password of {new.name}: the old one is refused, the new one works")

            before = len(sandbox.requests)
            refusal = await expect_guarded(client.cluster(cache, engine=Engine.REDIS))
            sent = len(sandbox.requests) - before
            if sent:
                raise Unexpected(f"{sent} requests were sent to a cluster without users")
            summary.add_row(
                "refused", f"{refusal.operation} on {refusal.engine}, before anything was sent ({sent} requests)"
            )

            limited = sum(count for (_, status), count in sandbox.counts.items() if status == 429)
            total = sandbox.counts.total()
            summary.add_row("requests", f"{total} in all, of which {limited} met the rate limit of 250 a minute")
            if limited:
                raise Unexpected(f"{limited} requests met the rate limit")
    return summary


async def create_users(cluster: ClusterClient, bars: Progress) -> list[User]:
    """Create all of NAMES, as many at a time as the engine bears."""
    bar = bars.add_task("creating users", total=len(NAMES))
    users: list[User] = []
    async for outcome in cluster.users.provision(NAMES, if_exists="error"):
        if outcome.user is None:
            raise Unexpected(f"{outcome.name} was not created: {outcome.error}")
        users.append(outcome.user)
        bars.advance(bar)
    if sorted(user.name for user in users) != NAMES:
        raise Unexpected(f"{len(users)} users were created, and {len(NAMES)} were asked for")
    return users


async def log_in_as_each(users: Iterable[User], connection: Connection, bars: Progress) -> None:
    bar = bars.add_task("logging in as each", total=len(NAMES))
    waiting = iter(users)
    failures: list[str] = []

    async def work() -> None:
        for user in waiting:
            try:
                await expect_login(user, connection)
            except (Unexpected, psycopg.Error) as error:
                failures.append(str(error))
            bars.advance(bar)

    async with asyncio.TaskGroup() as group:
        for _ in range(LOGINS_AT_A_TIME):
            group.create_task(work())
    if failures:
        raise Unexpected(f"{len(failures)} of {len(NAMES)} logins failed, the first with: {failures[0]}")


async def expect_login(user: User, connection: Connection) -> None:
    async with await psycopg.AsyncConnection.connect(connection.uri_for(user, DATABASE)) as there:
        row = await (await there.execute("SELECT current_user, current_database()")).fetchone()
    if row != (user.name, DATABASE):
        raise Unexpected(f"the login of {user.name} led to {row}")


async def expect_refused(dsn: str) -> None:
    try:
        await (await psycopg.AsyncConnection.connect(dsn)).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" not in str(error):
            raise
    else:
        raise Unexpected("the old password still works")


async def expect_guarded(cluster: ClusterClient) -> UnsupportedOperationError:
    """What the client raises for a user on a cluster that has none."""
    try:
        await cluster.users.create("tenant")
    except UnsupportedOperationError as refusal:
        return refusal
    raise Unexpected("a Redis cluster got a user")


def progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


def since(started: float) -> str:
    return f"{perf_counter() - started:.1f} s"


def main() -> int:
    console = Console(highlight=False, soft_wrap=True)
    try:
        summary = asyncio.run(demo(console))
    except (Unexpected, DatabaseClientError, psycopg.Error, RuntimeError) as failure:
        console.print(f"\nFAILED: {failure}")
        return 1
    console.print("", summary, "\nAll as it should be; the sandbox and its PostgreSQL are gone again.", sep="\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
