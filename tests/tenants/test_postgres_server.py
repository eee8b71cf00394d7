"""The life of a tenant on each installed PostgreSQL, with only the rights of a managed cluster's primary user."""

from __future__ import annotations

import pytest
from psycopg.sql import SQL, Literal

from aiodbclient import Engine
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers.postgres import PostgresServer

from .managed import PASSWORD, Managed, ended, ready, work

NAMES = ["alpha", "a.B-c_1", "x" * 63]


@pytest.mark.parametrize("name", NAMES)
async def test_a_tenant_is_made_rotated_and_removed(managed: Managed, server: PostgresServer, name: str) -> None:
    names = names_of(name, Engine.PG)
    first, second = names.logins
    assert not await server.find(names)
    for new in (True, False):  # each step may be repeated
        assert await server.create(work(names)) is new
    assert await server.log_in(names, first, Secret(PASSWORD)) is not None
    for _ in range(2):
        await ready(server, names, first)
    assert (await server.find(names)).logins == (first,)
    assert await server.problems(names, [first]) == frozenset()
    with managed.open(first, name) as session:
        assert session.execute("SELECT session_user::text, current_user::text").fetchone() == (first, names.owner)
        session.execute("CREATE TABLE t (x int); CREATE SCHEMA s CREATE TABLE inner_t (x int)")

    await ready(server, names, second, "other")
    assert await server.problems(names, names.logins) == frozenset()
    assert await ended(server, names, first)
    assert await server.problems(names, [second]) == frozenset()
    with managed.open(second, name, "other") as session:
        session.execute("ALTER TABLE t ADD y int; DROP SCHEMA s CASCADE")
    assert not managed.lets_in(first, name)

    for _ in range(2):
        await server.end_logins(work(names), [second])
        await server.drop_database(work(names))
        assert await server.drop_login(work(names), second)
        await server.forget(work(names))
    assert not await server.find(names)
    assert left(managed, names) == []


def left(managed: Managed, names: Names) -> list[str]:
    """The existing roles of the tenant."""
    every = SQL("SELECT rolname::text FROM pg_roles WHERE rolname = ANY ({})").format(Literal(sorted(names.everything)))
    return [name for (name,) in managed.api(every)]


async def test_a_shared_session_that_ended_while_it_was_idle_is_replaced(
    managed: Managed, server: PostgresServer, names: Names
) -> None:
    async with server.sessions.shared():
        assert (await server.find(names)).database
        managed.api("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'doadmin'")
        assert (await server.find(names)).database
        managed.api("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'doadmin'")
        assert await server.problems(names, names.logins) == frozenset()
