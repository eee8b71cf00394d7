"""No tenant holds up another on PostgreSQL: who blocks the administrator for long loses its session, and is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from aiodbclient.engines import Engine
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers import BaseTenant, TenantSteps
from aiodbclient.tenants._servers.postgres import PostgresServer, connection
from aiodbclient.tenants.errors import GrantError

from ...thorough import first_of
from ...waiting import until
from ..managed import Managed
from ..tenant import Tenant

STEPS: dict[str, Callable[[Tenant, TenantSteps], Awaitable[object]]] = {
    "add_login": lambda victim, steps: victim.add(),
    "repair": lambda victim, steps: steps.repair(victim.on_record),
    "freeze": lambda victim, steps: steps.freeze(victim.logins),
    "lock_out": lambda victim, steps: steps.lock_out(),
    "drop_database": lambda victim, steps: steps.drop_database(),
}


@contextmanager
def locked(managed: Managed, evil: Tenant, database: str) -> Iterator[None]:
    """A tenant locks a database, by a setting of its login there."""
    with closing(managed.open(evil.logins[0], "defaultdb")) as session:
        session.execute("SET ROLE NONE; BEGIN")
        session.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET work_mem = '1MB'".encode())
        yield


@pytest.mark.parametrize("step", first_of(STEPS))
@pytest.mark.usefixtures("impatient")
async def test_lock_on_database_delays_no_step(
    managed: Managed, server: PostgresServer, victim: Tenant, evil: Tenant, step: str
) -> None:
    managed.as_admin(f"GRANT TEMPORARY ON DATABASE {victim.database} TO PUBLIC")
    on = BaseTenant(victim.names)
    with locked(managed, evil, victim.database):
        await STEPS[step](victim, server.steps(on))
    if step == "drop_database":
        assert on.terminated == {evil.logins[0]}
        assert not (await server.inspect(victim.names)).database


@pytest.mark.usefixtures("impatient")
async def test_ended_neighbour_is_named_after_quick_step(
    managed: Managed, server: PostgresServer, victim: Tenant, evil: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SQL("SELECT * FROM ({} OFFSET 0) ended WHERE pg_sleep(1) IS NOT NULL").format(connection._END_BLOCKING)
    monkeypatch.setattr(connection, "_END_BLOCKING", slow)
    on = BaseTenant(victim.names)
    with locked(managed, evil, victim.database):
        await server.steps(on).drop_database()
    assert on.terminated == {evil.logins[0]}


@pytest.mark.usefixtures("brief", "impatient")
async def test_strangers_lock_is_named_not_ended(managed: Managed, victim: Tenant) -> None:
    """The administrator could end the session. It does so to tenants alone."""
    login = victim.logins[0]
    managed.make_login("human")
    managed.api("ALTER ROLE human CREATEROLE")
    managed.api(f"GRANT {login} TO human WITH ADMIN OPTION")
    with closing(managed.open("human", "defaultdb")) as human:
        human.execute(f"BEGIN; ALTER ROLE {login} VALID UNTIL 'infinity'".encode())
        with pytest.raises(
            GrantError, match=r"an open transaction of the login 'human' in the database 'defaultdb' holds"
        ):
            await victim.steps.end_logins([login])
        human.execute("SELECT 1")
    await victim.steps.end_logins([login])
    managed.delete("human")


@pytest.mark.usefixtures("impatient")
async def test_housekeeping_ends_nobodys_session(
    managed: Managed, server: PostgresServer, victim: Tenant, evil: Tenant
) -> None:
    """A grant to the login that is not committed keeps it from being dropped. It is ended all the same."""
    login = victim.logins[0]
    with closing(managed.open(evil.logins[0], evil.database)) as session:
        session.execute("CREATE TABLE public.t (x int); BEGIN")
        session.execute(f"GRANT SELECT ON public.t TO {login}")
        await asyncio.sleep(connection.PATIENCE_SECONDS + 0.5)
        await victim.steps.end_logins([login])
        assert not managed.lets_in(login, victim.database)
        on = BaseTenant(victim.names)
        assert await server.steps(on).drop_logins([login]) == (login,)
        assert on.terminated == set()
        assert (await server.inspect(victim.names)).disabled == (login,)
        del victim.on_record[login]
        assert await victim.problems() == frozenset()
        session.execute("COMMIT")
    assert await victim.steps.drop_logins([login]) == ()  # and the grant is revoked as its grantor


async def test_four_lock_holders_stop_nobody_else(
    managed: Managed, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 25.0)
    hostile = [await managed.tenant(f"holder{number}", server, logins=1) for number in range(4)]
    with ExitStack() as held:
        for tenant in hostile:
            held.enter_context(locked(managed, tenant, tenant.database))
        blocked = [asyncio.create_task(tenant.steps.drop_database()) for tenant in hostile]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'doadmin' AND wait_event_type = 'Lock'"
        await until(lambda: managed.api(waiting) == [(4,)])
        other = await managed.tenant("not-held", server, logins=1)
        assert not any(each.done() for each in blocked)
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)
        await asyncio.gather(*blocked)
    for tenant in [*hostile, other]:
        await tenant.remove()


async def test_a_process_that_lost_its_claim_is_ended(managed: Managed, victim: Tenant) -> None:
    with Connection.connect(managed.admin, application_name=victim.owner, autocommit=True) as lost:
        other = Connection.connect(managed.admin, application_name="psql", autocommit=True)
        await victim.steps.end_stale_sessions()
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
        other.execute("SELECT 1")
        other.close()


async def test_database_is_new_after_a_lock(managed: Managed, server: PostgresServer) -> None:
    """Once it exists, another session holds up its owner role for longer than the lock timeout."""
    tenant = Tenant(server, names_of("delayed", Engine.PG))
    with Connection.connect(managed.superuser) as other:
        other.execute(SQL("CREATE ROLE {}").format(Identifier(tenant.owner)))
        creating = asyncio.create_task(tenant.steps.create())
        await until(lambda: managed.api("SELECT FROM pg_database WHERE datname = 'delayed'"))
        await asyncio.sleep(1.5)
        other.rollback()
    assert await creating
    await tenant.remove()


async def test_tenant_takes_all_locks_of_server(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    with managed.open(evil.logins[0], evil.database) as session:
        with pytest.raises(psycopg.errors.OutOfMemory):
            session.execute("SELECT pg_advisory_lock(g) FROM generate_series(1, 1000000) AS g")
        with pytest.raises(GrantError, match="out of shared memory"):
            await victim.add()
    until = time.monotonic() + 60
    while not managed.lets_in(victim.logins[0], "defaultdb"):  # its process is ending
        assert time.monotonic() < until
    await victim.add()
