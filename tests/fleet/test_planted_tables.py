"""A tenant that may create tables in the budget's database of PostgreSQL reads and stops nothing."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from typing import LiteralString

import pytest
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from aiodbclient import Window
from aiodbclient.errors import ConfigurationError
from aiodbclient.shared_budget import SharedRateBudget

from .test_shared_budget import answer

LONG = [Window(50, 60.0)]


class Shared:
    """A database of the login ``app``, in which the login ``tenant`` may create anything."""

    def __init__(self, superuser: str) -> None:
        self._superuser = superuser
        self.app, self.tenant, self.database = (f"{each}_{secrets.token_hex(4)}" for each in ("app", "tenant", "db"))

    def url(self, name: str) -> str:
        return re.sub("//[^@]*@(.*)/postgres", rf"//{name}:hunter2@\1/{self.database}", self._superuser)

    async def run(self, *statements: LiteralString, url: str | None = None) -> None:
        names = {name: Identifier(getattr(self, name)) for name in ("app", "tenant", "database")}
        async with await AsyncConnection.connect(url or self._superuser, autocommit=True) as connection:
            for statement in statements:
                await connection.execute(SQL(statement).format(**names))

    async def as_tenant(self, *statements: LiteralString) -> None:
        await self.run(*statements, url=self.url(self.tenant))


@pytest.fixture
async def shared(postgres_url: str) -> AsyncIterator[Shared]:
    shared = Shared(postgres_url)
    await shared.run(
        "CREATE ROLE {app} LOGIN PASSWORD 'hunter2'",
        "CREATE ROLE {tenant} LOGIN PASSWORD 'hunter2'",
        "CREATE DATABASE {database} OWNER {app}",
        "GRANT CREATE ON DATABASE {database} TO {tenant}",
    )
    await shared.run("GRANT CREATE ON SCHEMA public TO {tenant}", url=shared.url(shared.app))
    yield shared
    await shared.run("DROP DATABASE {database} WITH (FORCE)", "DROP ROLE {app}, {tenant}")


TABLE: LiteralString = '(key text COLLATE "C" PRIMARY KEY, state text NOT NULL); '
GRANTED: LiteralString = "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC"


@pytest.mark.parametrize("schema", ["public", "its own"])
async def test_a_table_of_a_tenant_is_refused(shared: Shared, schema: str) -> None:
    if schema == "public":
        await shared.as_tenant(
            "CREATE TABLE public.aiodbclient_budgets " + TABLE + GRANTED,
        )
    else:  # the first one in search_path
        await shared.as_tenant("CREATE SCHEMA {app}; GRANT ALL ON SCHEMA {app} TO {app}")
    async with SharedRateBudget(shared.url(shared.app), LONG, timeout=10.0) as budget:
        with pytest.raises(ConfigurationError, match=f"belongs to {shared.tenant}.*waiting does not help"):
            await budget.acquire()


async def test_a_table_that_the_owner_of_the_database_made_is_used(shared: Shared) -> None:
    await shared.run(
        "CREATE TABLE public.aiodbclient_budgets " + TABLE + "GRANT ALL ON public.aiodbclient_budgets TO {tenant}",
        url=shared.url(shared.app),
    )
    async with SharedRateBudget(shared.url(shared.tenant), LONG, timeout=10.0) as budget:
        await answer(budget)
        assert budget.snapshot().used == (1,)


async def test_an_advisory_lock_of_a_tenant_stops_nothing(shared: Shared) -> None:
    async with await AsyncConnection.connect(shared.url(shared.tenant)) as tenant:
        await tenant.execute("SELECT pg_advisory_lock(hashtext('aiodbclient'), 0)")
        async with SharedRateBudget(shared.url(shared.app), LONG, timeout=10.0) as budget:
            await answer(budget)
            assert budget.snapshot().used == (1,)


async def test_many_create_the_table_at_once(shared: Shared) -> None:
    for _ in range(3):
        budgets = [SharedRateBudget(shared.url(shared.app), LONG, timeout=20.0) for _ in range(20)]
        await asyncio.gather(*(answer(budget) for budget in budgets))
        await asyncio.gather(*(budget.aclose() for budget in budgets))
        async with SharedRateBudget(shared.url(shared.app), LONG, timeout=10.0) as budget:
            await answer(budget)
            assert budget.snapshot().used == (21,)
        await shared.run("DROP TABLE aiodbclient_budgets", url=shared.url(shared.app))
