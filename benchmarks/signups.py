"""Measure sign-ups of thirty customers at once, with 300 tables each: by migrations, and as copies of a golden tenant.

The migrations are Alembic's, of which a process runs one upgrade at a time. All customers begin at once. It exits with
1 if the copies are not at least twice as fast by their medians.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from alembic import command
from alembic.config import Config
from attrs import frozen

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, Tenants

CUSTOMERS, TABLES, A_REVISION = 30, 300, 10
LEAST_RATIO = 2.0
ENVIRONMENT = """
from alembic import context
from sqlalchemy import create_engine, make_url, pool

url = make_url(context.config.attributes["url"]).set(drivername="postgresql+psycopg")
with create_engine(url, poolclass=pool.NullPool).begin() as connection:
    context.configure(connection=connection)
    context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{revision}", {previous!r}


def upgrade():
    for number in range({first}, {last}):
        op.create_table(
            f"table_{{number}}",
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("name", sa.Text, nullable=False, index=True),
            sa.Column("created", sa.DateTime(timezone=True), server_default=sa.func.now()),
        )
"""


@frozen
class Times:
    """The seconds of each customer."""

    seconds: list[float]

    @property
    def p50(self) -> float:
        return median(self.seconds)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


def write_migrations(folder: Path, tables: int) -> None:
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENVIRONMENT)
    previous = None
    for first in range(0, tables, A_REVISION):
        revision = f"{first:04}"
        last = min(first + A_REVISION, tables)
        text = REVISION.format(revision=revision, previous=previous, first=first, last=last)
        (folder / "versions" / f"{revision}.py").write_text(text)
        previous = revision


async def sign_up(tenants: Tenants, prefix: str, customers: int) -> Times:
    began = perf_counter()

    async def one(name: str) -> float:
        await tenants.ensure(name)
        return perf_counter() - began

    return Times(await asyncio.gather(*(one(f"{prefix}_{number}") for number in range(customers))))


async def measure(customers: int, tables: int) -> tuple[Times, Times]:
    """Return the times of sign-ups by migrations, and as copies."""
    with tempfile.TemporaryDirectory() as folder, Sandbox(windows=[]) as sandbox:
        id, migrations = await sandbox.add_cluster("pg", backend="postgres"), Path(folder, "migrations")
        write_migrations(migrations, tables)
        alembic = asyncio.Lock()  # its ``context`` is global

        def upgrade(credential: Credential) -> None:
            config = Config()
            config.set_main_option("script_location", str(migrations))
            config.attributes["url"] = credential.uri
            command.upgrade(config, "head")

        async def migrate(credential: Credential) -> None:
            async with alembic:
                await asyncio.to_thread(upgrade, credential)

        async with (
            DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client,
            SQLiteStore(Path(folder, "tenants.db")) as store,
        ):
            cluster = client.cluster(id)
            migrated, copied = Tenants(cluster, store, setup=migrate), Tenants(cluster, store, template="golden")
            (await migrated.provision(["golden"])).raise_for_errors()
            (await migrated.suspend(["golden"])).raise_for_errors()
            as_copies = await sign_up(copied, "copied", customers)
            return await sign_up(migrated, "migrated", customers), as_copies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--tables", type=int, default=TABLES)
    given = parser.parse_args()
    by_migrations, as_copies = asyncio.run(measure(given.customers, given.tables))
    print(f"{given.customers} customers at once, {given.tables} tables each:")
    for what, times in (("migrations", by_migrations), ("template", as_copies)):
        print(f"{what:>10}: p50 {times.p50:6.2f} s, p99 {times.p99:6.2f} s")
    ratio = by_migrations.p50 / as_copies.p50
    print(f"by template: {ratio:.1f} times faster (aim 10), p50 {as_copies.p50:.2f} s (aim 1.5)")
    return 0 if ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
