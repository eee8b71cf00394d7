"""An attacker holds a leaked credential of a tenant on PostgreSQL. It is ended all the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from attrs import frozen
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from aiodbclient import Action, Engine
from aiodbclient.errors import GrantError
from aiodbclient.tenants import Problem, Role
from aiodbclient.tenants._grants import postgres, postgres_sessions
from aiodbclient.tenants._grants.postgres import PostgresGrants
from aiodbclient.tenants._naming import Names, names_of

from .conftest import Place, only
from .managed import PASSWORD, Managed, ended, ready

_used = iter(range(10**6))


# What a database's owner may set on it. ``{d}`` is the database, ``{owner}`` its owner, ``{login}`` the login.
SET = {
    "read-only": "ALTER DATABASE {d} SET default_transaction_read_only = on",
    "1 ms": "ALTER DATABASE {d} SET statement_timeout = 1",
    "1 ms, for a lock": "ALTER DATABASE {d} SET lock_timeout = 1",
    "search_path": "ALTER DATABASE {d} SET search_path = planted",
    "another role": "ALTER DATABASE {d} SET role = 'nobody there'",
    "another encoding": "ALTER DATABASE {d} SET client_encoding = 'LATIN1'",
    "a library": "ALTER DATABASE {d} SET local_preload_libraries = 'nothing'",
    "escapes": "ALTER DATABASE {d} SET standard_conforming_strings = off",
    "role of the login": "ALTER ROLE {login} IN DATABASE {d} SET role = none",
    "no connections": "ALTER DATABASE {d} CONNECTION LIMIT 0",
    "none at all": "ALTER DATABASE {d} ALLOW_CONNECTIONS false",
    "a template": "ALTER DATABASE {d} IS_TEMPLATE true",
    "revoked from the owner": "REVOKE ALL ON DATABASE {d} FROM {owner}",
    "revoked from the login": "REVOKE ALL ON DATABASE {d} FROM {other}",
    "given away": "REASSIGN OWNED BY {owner} TO {login}",
}


@pytest.mark.parametrize("what", SET)
async def test_nothing_that_a_tenant_sets_on_its_database_keeps_the_next_login_out(
    managed: Managed, grants: PostgresGrants, names: Names, what: str
) -> None:
    leaked, other = names.logins
    with managed.open(leaked, "defaultdb") as session:
        as_itself = what in {"role of the login", "given away"}
        session.execute("SET ROLE NONE" if as_itself else "SELECT 1")
        statement = SQL(SET[what]).format(
            d=Identifier(names.database or ""),
            owner=Identifier(names.owner),
            login=Identifier(leaked),
            other=Identifier(other),
        )
        try:
            session.execute(statement)
        except psycopg.errors.InsufficientPrivilege:  # by these rights from 16 on, and by the newest releases of 15
            assert what == "given away"
            assert managed.version >= 15
        else:
            assert what != "given away" or managed.version < 16

    managed.reset(other, "new")
    await ready(grants, names, other, "new")

    with managed.open(other, names.database, "new") as session:
        session.execute("SET statement_timeout = 0")
        assert session.execute("SELECT current_user").fetchone() == (names.owner,)
        session.execute("SET search_path = public; CREATE TABLE t (x int); INSERT INTO t VALUES (1)")
    await ready(grants, names, leaked)


async def test_nothing_that_a_tenant_planted_runs_as_the_administrator(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    with managed.open(names.logins[0], names.database) as session:
        session.execute("CREATE TABLE public.ran (who text)")
        session.execute("GRANT ALL ON public.ran TO PUBLIC")
        session.execute(
            "CREATE FUNCTION public.note(name, text) RETURNS bool LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO public.ran VALUES (session_user); RETURN true; END $$"
        )
        session.execute("CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.note)")
        session.execute("CREATE VIEW public.pg_roles AS SELECT 1 AS oid, 'x' AS rolname, public.note('x', 'x')")
        session.execute("CREATE TABLE public.pg_database (datname name)")
        session.execute(SQL("ALTER DATABASE {} SET search_path = public, pg_catalog").format(Identifier(names.whole)))
    reader = await managed.role(names.tenant, Role.READER, grants)
    await grants.shut_out(names, names.logins)
    await grants.take_over(names, names.logins[0])
    managed.delete(reader.logins[0])
    await grants.forget(reader)
    await grants.before_removal(names)
    await grants.release(names)

    assert managed.api("SELECT * FROM public.ran", names.whole) == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the wait of statements for locks."""
    monkeypatch.setitem(postgres_sessions._SETTINGS, "lock_timeout", "100")
    monkeypatch.setattr(postgres, "_PAUSES", (0.0,))


@pytest.fixture
def locks() -> Iterator[Callable[[Connection], None]]:
    sessions: list[Connection] = []
    yield sessions.append
    for session in sessions:
        session.close()


@pytest.mark.usefixtures("impatient")
async def test_four_tenants_that_hold_locks_do_not_stop_the_others(
    managed: Managed, grants: PostgresGrants, locks: Callable[[Connection], None]
) -> None:
    hostile = [managed.make(f"holder{next(_used)}") for _ in range(4)]
    for names in hostile:
        await ready(grants, names, names.logins[0])
        session = managed.open(names.logins[0], "defaultdb")
        session.autocommit = False
        session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 50").format(Identifier(names.whole)))
        locks(session)

    blocked = [asyncio.create_task(grants.give(names, names.logins[1])) for names in hostile]
    await asyncio.sleep(0)
    started = time.monotonic()
    other = managed.make(f"other{next(_used)}")
    await ready(grants, other, other.logins[0])
    assert time.monotonic() - started < 5

    # Each still gets its second login. That uses the owner's rights until the first login is retired.
    await asyncio.gather(*blocked)
    for names in hostile:
        assert await grants.log_in(names, names.logins[1], PASSWORD) is None
        assert await grants.problems(names, names.logins) == {Problem.RIGHTS_MISSING}
        assert await grants.end_login(names, names.logins[0], PASSWORD) is None
        assert await grants.problems(names, [names.logins[1]]) == frozenset()


@pytest.mark.usefixtures("impatient")
async def test_a_lock_that_keeps_others_in_is_an_error_that_says_so(
    managed: Managed, grants: PostgresGrants, names: Names, locks: Callable[[Connection], None]
) -> None:
    session = managed.open(names.logins[0], "defaultdb")
    session.execute(SQL("GRANT CONNECT ON DATABASE {} TO PUBLIC").format(Identifier(names.whole)))
    session.autocommit = False
    session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 50").format(Identifier(names.whole)))
    locks(session)

    with pytest.raises(GrantError, match="holds a lock"):
        await grants.give(names, names.logins[1])


@pytest.mark.usefixtures("impatient")
async def test_an_open_change_of_the_login_does_not_keep_it_from_beginning_as_the_owner(
    managed: Managed, grants: PostgresGrants, locks: Callable[[Connection], None]
) -> None:
    names = managed.make(f"open{next(_used)}")
    session = managed.open(names.logins[0], "defaultdb")
    session.autocommit = False
    session.execute("ALTER ROLE CURRENT_USER SET role = none")
    locks(session)

    await ready(grants, names, names.logins[0])


# Sessions of a deleted login.
ORPHANS = "SELECT * FROM pg_stat_activity WHERE usesysid IS NOT NULL AND usename IS NULL"


class Fighter:
    """A hostile program: ``sessions`` of a login that each repeat an attack until they are ended."""

    def __init__(
        self,
        managed: Managed | Programs,
        names: Names,
        login: str,
        act: Callable[[Fighter, Connection], None],
        password: str | None = PASSWORD,
    ) -> None:
        self.managed, self.names, self.login, self.password = managed, names, login, password or ""
        self._stop, self._act = threading.Event(), act
        self._threads = [threading.Thread(target=self._fight) for _ in range(3)]

    def _fight(self) -> None:
        while not self._stop.wait(0.01):
            with suppress(psycopg.Error), self.managed.open(self.login, self.names.database, self.password) as session:
                session.execute("SET ROLE NONE")
                while not self._stop.wait(0.01):
                    self._act(self, session)

    def __enter__(self) -> Fighter:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def sets_passwords(fighter: Fighter, session: Connection) -> None:
    session.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")
    fighter.password = "mine"


def ends_others(fighter: Fighter, session: Connection) -> None:
    session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = session_user"
        " AND pid <> pg_backend_pid()"
    )


def stays(fighter: Fighter, session: Connection) -> None:
    session.execute("SELECT 1")


@pytest.mark.parametrize("act", [sets_passwords, ends_others, stays])
async def test_a_login_is_ended_though_its_sessions_fight_back(
    managed: Managed, grants: PostgresGrants, names: Names, act: Callable[[Fighter, Connection], None]
) -> None:
    login = names.logins[0]
    with Fighter(managed, names, login, act):
        await asyncio.sleep(0.1)
        for number in range(20):
            with suppress(psycopg.errors.InternalError):  # two changes of one role at the same time
                managed.reset(login, f"reset{number}")
            if await ended(grants, names, login, f"reset{number}", managed.deletes(login)) is None:
                break
        else:
            assert act is sets_passwords
            if managed.version >= 16:
                with pytest.raises(GrantError, match="was not ended: its sessions change its password"):
                    await ended(grants, names, login, None, managed.deletes(login))
                return
            assert await ended(grants, names, login, None, managed.deletes(login)) is None
        assert managed.api(ORPHANS) == []
        assert managed.api(SQL("SELECT FROM pg_roles WHERE rolname = {}").format(Literal(login))) == []
        await asyncio.sleep(0.1)
        assert not managed.lets_in(login, names.database, "mine")
    assert managed.lets_in(names.logins[1], names.database)


@frozen
class Programs:
    """What ``Fighter`` needs to connect to a tenant of a sandbox."""

    uri: str

    def open(self, login: str, database: str | None, password: str) -> Connection:
        return Connection.connect(self.uri, user=login, password=password, dbname=database, autocommit=True)


def sets_many_passwords(fighter: Fighter, session: Connection) -> None:
    for _ in range(30):
        sets_passwords(fighter, session)


async def test_a_tenant_that_keeps_its_login_by_setting_passwords_is_removed(place: Place) -> None:
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    names = names_of(f"{place.prefix}alpha", Engine.PG)
    programs, password = Programs(credential.uri), credential.password
    with Fighter(programs, names, credential.username, sets_many_passwords, password) as fighter:
        async with asyncio.timeout(10):
            while fighter.password == password:
                await asyncio.sleep(0.01)
        outcome = await only(tenants.remove(["alpha"]))
    assert outcome.action is Action.DELETED, outcome.error
    assert [user.name for user in await place.cluster.users.list() if user.name.startswith(place.prefix)] == []


async def test_a_login_whose_sessions_nobody_can_end_is_not_deleted(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    """What they make until then would become the administrator's."""
    login = names.logins[0]
    with managed.open(login, names.database) as session:
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(login)))
        made = list[str]()

        async def late() -> None:
            with suppress(psycopg.OperationalError):  # the administrator may end them
                session.execute("SET ROLE NONE; CREATE FUNCTION public.up() RETURNS int LANGUAGE sql AS 'SELECT 1'")
                made.append("up")
            managed.delete(login)

        if managed.version >= 16:
            with pytest.raises(GrantError, match=r"only a superuser can end them.*run this again"):
                await ended(grants, names, login, None, late)
            assert not managed.lets_in(login, names.database)
            session.close()
            assert await ended(grants, names, login, PASSWORD, late) is None
        else:
            assert await ended(grants, names, login, None, late) is None
        assert made == []


async def test_a_login_is_ended_though_its_database_lets_nobody_in(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    with managed.open(names.logins[0], "defaultdb") as session:
        session.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(Identifier(names.whole)))
        assert await ended(grants, names, names.logins[0], PASSWORD, managed.deletes(names.logins[0])) is None
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


async def test_a_full_database_does_not_keep_a_password_from_being_tested(managed: Managed) -> None:
    grants = managed.grants(connection_limit=2)
    names = managed.make(f"full{next(_used)}")
    for login in names.logins:
        await ready(grants, names, login)
    with managed.open(names.logins[0], names.database), managed.open(names.logins[0], names.database):
        assert not managed.lets_in(names.logins[1], names.database)
        assert await grants.log_in(names, names.logins[1], PASSWORD) is None
        refused = await grants.log_in(names, names.logins[1], "wrong")
    assert refused is not None
    assert "password authentication failed" in refused


async def test_only_a_refused_login_is_reported_as_refused(managed: Managed, names: Names) -> None:
    grants, login = managed.grants(), names.logins[0]
    assert await grants.log_in(names, login, "wrong") is not None
    assert await grants.log_in(names, names.logins[1] + "x", PASSWORD) is not None

    managed.api(SQL("REVOKE CONNECT ON DATABASE {} FROM {}").format(Identifier(names.whole), Identifier(login)))
    refused = await grants.log_in(names, login, PASSWORD)
    assert (refused is None) == (managed.version < 16)  # inherits the owner's right

    await grants.give(names, login)
    managed.api(SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(Identifier(login)))
    with pytest.raises(GrantError, match="too many connections"):
        await grants.log_in(names, login, PASSWORD)
    assert await grants.log_in(names, login, "wrong") is not None
    managed.api(SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(Identifier(login)))

    managed.server.stop()
    try:
        with pytest.raises(GrantError, match="could not be tested"):
            await grants.log_in(names, login, PASSWORD)
    finally:
        managed.server.start()
    assert await grants.log_in(names, login, PASSWORD) is None


async def test_a_cancelled_call_leaves_no_backend(
    managed: Managed, grants: PostgresGrants, names: Names, locks: Callable[[Connection], None]
) -> None:
    session = managed.open(names.logins[0], "defaultdb")
    session.execute(
        SQL("REVOKE CONNECT ON DATABASE {0} FROM {1}").format(Identifier(names.whole), Identifier(names.logins[1]))
    )
    session.autocommit = False
    session.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 50").format(Identifier(names.whole)))
    locks(session)
    waiting = "SELECT pid FROM pg_stat_activity WHERE usename = 'doadmin'"
    call = asyncio.create_task(grants.give(names, names.logins[1]))
    while not managed.api(waiting + " AND wait_event_type = 'Lock'"):
        await asyncio.sleep(0.01)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    async with asyncio.timeout(5):
        while managed.api(waiting):
            await asyncio.sleep(0.01)
