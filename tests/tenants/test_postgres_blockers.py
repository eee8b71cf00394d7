"""No tenant holds up another on PostgreSQL: who blocks the administrator for long loses its session, and is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._naming import Names
from aiodbclient.tenants._servers import postgres
from aiodbclient.tenants._servers.postgres import PostgresServer, sessions
from aiodbclient.tenants.errors import GrantError

from ..thorough import first_of
from .managed import PASSWORD, Managed, ended, ready, until, work


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PATIENCE_SECONDS", 1.0)


def let_in(managed: Managed, neighbour: Names, login: str) -> None:
    """A neighbour lets a login of another tenant into its database, and create there."""
    with managed.open(neighbour.logins[0], neighbour.database) as session:
        database = Identifier(neighbour.database)
        session.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, Identifier(login)))
        session.execute(SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(Identifier(login)))


def plant(managed: Managed, names: Names, login: str, database: str) -> None:
    """A function that sets the password of ``login``, for everybody to call."""
    with managed.open(login, database) as session:
        session.execute("SET ROLE NONE")
        session.execute(
            "CREATE FUNCTION public.go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS "
            "'BEGIN ALTER ROLE CURRENT_USER PASSWORD ''mine''; END'; GRANT EXECUTE ON FUNCTION public.go() TO PUBLIC"
        )


async def test_a_neighbours_transaction_that_locks_a_leaked_login_is_ended_and_named(
    managed: Managed, server: PostgresServer, names: Names, evil: Names
) -> None:
    """A neighbour calls a function of the login that sets its password, and does not commit."""
    login = names.logins[0]
    let_in(managed, evil, login)
    plant(managed, names, login, evil.database)
    with closing(managed.open(evil.logins[0], evil.database)) as session:
        began, ending = time.monotonic(), work(names)
        session.execute("BEGIN; SELECT public.go()")
        await server.end_logins(ending, [login])
        assert time.monotonic() - began > sessions.PATIENCE_SECONDS
    assert ending.ended == {evil.logins[0]}
    assert not managed.lets_in(login, "defaultdb", "mine")
    assert await server.drop_login(work(names), login)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert managed.lets_in(evil.logins[0], evil.database)  # it lost a session, and no right


STEPS = ("set_login", "repair", "shut", "drop_database")


@pytest.mark.parametrize("step", first_of(STEPS))
@pytest.mark.usefixtures("impatient")
async def test_a_lock_on_the_database_holds_up_no_step(
    managed: Managed, server: PostgresServer, names: Names, evil: Names, step: str
) -> None:
    """Its own session locks the row; a neighbour's locks the object, by a setting of its login there."""
    await ready(server, names, names.logins[0])
    own, theirs = managed.open(names.logins[0], "defaultdb"), managed.open(evil.logins[0], "defaultdb")
    own.execute(SQL("GRANT TEMPORARY ON DATABASE {} TO PUBLIC").format(Identifier(names.database)))
    own.execute("BEGIN")
    own.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 50").format(Identifier(names.database)))
    theirs.execute("SET ROLE NONE; BEGIN")
    setting = SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET work_mem = '1MB'")
    theirs.execute(setting.format(Identifier(names.database)))
    on = work(names)
    try:
        if step == "set_login":
            await server.set_login(on, names.logins[1], Secret(PASSWORD))
        elif step == "repair":
            await server.repair(on, names.logins)
        elif step == "shut":
            await server.shut(on)
        else:
            await server.drop_database(on)
            assert on.ended == {evil.logins[0]}
            assert not (await server.find(names)).database
    finally:
        own.close()
        theirs.close()


@pytest.mark.usefixtures("impatient")
async def test_who_lost_a_session_is_named_also_if_the_step_ends_first(
    managed: Managed, server: PostgresServer, names: Names, evil: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SQL("SELECT * FROM ({} OFFSET 0) ended WHERE pg_sleep(1) IS NOT NULL").format(sessions._END_BLOCKING)
    monkeypatch.setattr(sessions, "_END_BLOCKING", slow)
    await ready(server, names, names.logins[0])
    with closing(managed.open(evil.logins[0], "defaultdb")) as theirs:
        theirs.execute("SET ROLE NONE; BEGIN")
        setting = SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET work_mem = '1MB'")
        theirs.execute(setting.format(Identifier(names.database)))
        on = work(names)
        await server.drop_database(on)
    assert on.ended == {evil.logins[0]}


@pytest.mark.usefixtures("impatient")
async def test_who_is_no_tenant_keeps_its_session_and_the_error_names_it(
    managed: Managed, server: PostgresServer, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = names.logins[0]
    monkeypatch.setattr(postgres, "_ENDING_SECONDS", 4.0)
    with Connection.connect(managed.superuser) as human:
        human.execute(SQL("ALTER ROLE {} VALID UNTIL 'infinity'").format(Identifier(login)))
        with pytest.raises(
            GrantError, match=r"an open transaction of the login 'postgres' in the database 'postgres' holds"
        ):
            await server.end_logins(work(names), [login])
        human.execute("SELECT 1")
    monkeypatch.undo()
    await server.end_logins(work(names), [login])


async def test_housekeeping_ends_nobodys_session(
    managed: Managed, server: PostgresServer, names: Names, evil: Names
) -> None:
    """A grant to the login that is not committed keeps it from being dropped. It is ended all the same."""
    login = names.logins[0]
    with closing(managed.open(evil.logins[0], evil.database)) as session:
        session.execute("CREATE TABLE public.t (x int); BEGIN")
        session.execute(SQL("GRANT SELECT ON public.t TO {}").format(Identifier(login)))
        await asyncio.sleep(sessions.PATIENCE_SECONDS + 0.5)
        await server.end_logins(work(names), [login])
        assert not managed.lets_in(login, names.database)
        on = work(names)
        assert not await server.drop_login(on, login)
        assert on.ended == set()
        assert (await server.find(names)).ended == (login,)
        assert await server.problems(names, names.logins[1:]) == frozenset()
        session.execute("COMMIT")
    assert await server.drop_login(work(names), login)  # and the grant is revoked as its grantor


async def test_four_tenants_that_hold_locks_do_not_stop_the_others(
    managed: Managed, server: PostgresServer, locks: Callable[[Connection], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PATIENCE_SECONDS", 25.0)
    hostile = [await managed.tenant(f"holder{number}", server, logins=1) for number in range(4)]
    for names in hostile:
        session = managed.open(names.logins[0], "defaultdb")
        session.execute("BEGIN")
        session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 50").format(Identifier(names.database)))
        locks(session)

    blocked = [asyncio.create_task(ready(server, names, names.logins[1])) for names in hostile]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'doadmin' AND wait_event_type = 'Lock'"
    await until(lambda: managed.api(waiting) == [(4,)])
    other = await managed.tenant("not-held", server, logins=1)
    assert not any(each.done() for each in blocked)
    monkeypatch.setattr(sessions, "PATIENCE_SECONDS", 0.5)
    await asyncio.gather(*blocked)
    for names in [*hostile, other]:
        await server.drop_database(work(names))
        for login in names.logins:
            assert await ended(server, names, login)
        await server.forget(work(names))


@pytest.fixture
def locks() -> Iterator[Callable[[Connection], None]]:
    sessions: list[Connection] = []
    yield sessions.append
    for session in sessions:
        session.close()


async def test_a_process_that_lost_its_claim_is_ended(managed: Managed, server: PostgresServer, names: Names) -> None:
    with Connection.connect(managed.admin, application_name=names.group, autocommit=True) as lost:
        other = Connection.connect(managed.admin, application_name="psql", autocommit=True)
        await server.end_work(work(names))
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
        other.execute("SELECT 1")
        other.close()


async def test_a_tenant_that_takes_all_locks_stops_everybody_until_its_session_ends(
    managed: Managed, server: PostgresServer, names: Names, evil: Names
) -> None:
    with managed.open(evil.logins[0], evil.database) as session:
        with pytest.raises(psycopg.errors.OutOfMemory):
            session.execute("SELECT pg_advisory_lock(g) FROM generate_series(1, 1000000) AS g")
        with pytest.raises(GrantError, match="out of shared memory"):
            await server.set_login(work(names), names.logins[0], Secret(PASSWORD))
    until = time.monotonic() + 60
    while not managed.lets_in(names.logins[0], "defaultdb"):  # its process is ending
        assert time.monotonic() < until
    await ready(server, names, names.logins[0])
