"""The life of a tenant on each installed PostgreSQL, with only the rights of a managed cluster's primary user."""

from __future__ import annotations

import pytest

from aiodbclient import Engine
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.postgres import PostgresServer

from .managed import Managed
from .tenant import PASSWORD, Tenant

NAMES = ["alpha", "a.B-c_1", "x" * 63]


@pytest.mark.parametrize("name", NAMES)
async def test_tenant_is_made_rotated_and_removed(managed: Managed, server: PostgresServer, name: str) -> None:
    tenant = Tenant(server, names_of(name, Engine.PG))
    assert not await server.find(tenant.names)
    for new in (True, False):  # each step may be repeated
        assert await tenant.steps.create() is new
    assert await server.log_in(tenant.names, tenant.names.new_login([]), Secret(PASSWORD)) is not None
    first = await tenant.add()
    assert (await server.find(tenant.names)).logins == (first,)
    assert await tenant.problems() == frozenset()
    with managed.open(first, name) as session:
        assert session.execute("SELECT session_user::text, current_user::text").fetchone() == (first, tenant.owner)
        session.execute("CREATE TABLE t (x int); CREATE SCHEMA s CREATE TABLE inner_t (x int)")

    second = await tenant.add(password="other")
    assert await tenant.problems() == frozenset()
    assert await tenant.end(first)
    assert await tenant.problems() == frozenset()
    with managed.open(second, name, "other") as session:
        session.execute("ALTER TABLE t ADD y int; DROP SCHEMA s CASCADE")
    assert not managed.lets_in(first, name)

    for _ in range(2):
        await tenant.steps.end_logins([second])
        await tenant.steps.drop_database()
        assert await tenant.steps.drop_logins([second]) == ()
        await tenant.steps.forget()
    assert not await server.find(tenant.names)
    roles = f"SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{tenant.names.stem}')"
    assert managed.api(roles) == []


async def test_ended_idle_session_is_replaced(managed: Managed, server: PostgresServer, victim: Tenant) -> None:
    async with server.sessions.shared():
        assert (await server.find(victim.names)).database
        managed.api("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'doadmin'")
        assert (await server.find(victim.names)).database
        managed.api("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = 'doadmin'")
        assert await victim.problems() == frozenset()
