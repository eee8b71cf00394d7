"""Measure sign-ups of thirty customers at once, with 300 tables each: by migrations, and as copies of a golden tenant.

Each table has a revision of its own, as in most projects: it creates the table, with an index and a foreign key, and
adds a column to an earlier one. The migrations are Alembic's, of which a process runs one upgrade at a time. All
customers begin at once. The embedded server runs without fsync: ``--server`` takes the URL of a superuser of another.

PostgreSQL makes several files for each table, which takes most of the time of a copy. So the seconds depend on the
machine: the aims are printed beside them. It exits with 1 if the copies are not twice as fast by their medians.
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

CUSTOMERS, TABLES = 30, 300
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
    op.create_table(
        "table_{number}",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("parent", sa.BigInteger, sa.ForeignKey("table_{parent}.id")),
        sa.Column("name", sa.Text, nullable=False, index=True),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.func.now()),
    )
    op.add_column("table_{parent}", sa.Column("extra_{number}", sa.Text))
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
    for number in range(tables):
        revision, previous = f"{number:04}", f"{number - 1:04}" if number else None
        text = REVISION.format(revision=revision, previous=previous, number=number, parent=number // 2)
        (folder / "versions" / f"{revision}.py").write_text(text)


async def sign_up(tenants: Tenants, prefix: str, customers: int) -> Times:
    began = perf_counter()

    async def one(name: str) -> float:
        await tenants.ensure(name)
        return perf_counter() - began

    return Times(await asyncio.gather(*(one(f"{prefix}_{number}") for number in range(customers))))


async def measure(customers: int, tables: int, server: str | None = None) -> tuple[Times, Times]:
    """Return the times of sign-ups by migrations, and as copies."""
    with tempfile.TemporaryDirectory() as folder, Sandbox(windows=[]) as sandbox:
        id, migrations = await sandbox.add_cluster("pg", backend="postgres", server=server), Path(folder, "migrations")
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
            migrated, copied = Tenants(cluster, store, setup=migrate), Tenants(cluster, store, template="_golden")
            for made in (await migrated.provision(["_golden"]), await migrated.suspend(["_golden"])):
                made.raise_for_errors()
            as_copies = await sign_up(copied, "copied", customers)
            return await sign_up(migrated, "migrated", customers), as_copies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--tables", type=int, default=TABLES)
    parser.add_argument("--server", metavar="URL")
    given = parser.parse_args()
    by_migrations, as_copies = asyncio.run(measure(given.customers, given.tables, given.server))
    print(f"{given.customers} customers at once, {given.tables} tables each:")
    for what, times in (("migrations", by_migrations), ("template", as_copies)):
        print(f"{what:>10}: p50 {times.p50:6.2f} s, p99 {times.p99:6.2f} s")
    ratio = by_migrations.p50 / as_copies.p50
    print(f"by template: {ratio:.1f} times faster (aim 10), p50 {as_copies.p50:.2f} s (aim 1.5)")
    return 0 if ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
