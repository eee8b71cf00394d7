"""An attacker holds a leaked credential of a tenant on PostgreSQL. It is ended all the same."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from aiodbclient._masking import Secret
from aiodbclient.tenants import ProblemKind, Role
from aiodbclient.tenants._servers.postgres import connection
from aiodbclient.tenants.errors import GrantError

from ...waiting import until
from ..managed import Managed
from ..problems import kinds_of
from ..tenant import PASSWORD, Tenant
from ..threads import repeating


async def test_role_of_login_is_set_again(managed: Managed, victim: Tenant) -> None:
    leaked, _ = victim.logins
    managed.run(victim, f"SET ROLE NONE; ALTER ROLE {leaked} IN DATABASE {victim.database} SET role = none")
    with managed.open(await victim.add(), victim.database) as session:
        assert session.execute("SELECT current_user::text").fetchone() == (victim.owner,)
    assert await victim.end(leaked)


async def test_short_timeout_stops_no_step(managed: Managed, victim: Tenant) -> None:
    """A reader gets its rights on more tables than one statement names, which takes longer than the database allows."""
    tables = (f"CREATE TABLE public.t{n} ()" for n in range(600))
    managed.run(victim, *tables)
    managed.as_admin(f"ALTER DATABASE {victim.database} SET statement_timeout = 1")
    with pytest.raises(psycopg.errors.QueryCanceled):
        managed.run(victim, "SELECT pg_sleep(1)")
    await victim.add(Role.READER)
    assert await victim.problems() == frozenset()


LIFT: list[LiteralString] = [
    "ALTER ROLE {login} CONNECTION LIMIT 50",
    "ALTER ROLE {login} INHERIT",
    "ALTER ROLE {login} VALID UNTIL 'infinity'",
    "GRANT {owner} TO {other}",
    "GRANT {owner} TO {evil}",
    "ALTER DATABASE {d} OWNER TO {login}",
    "REASSIGN OWNED BY {owner} TO {login}",
]


async def test_login_cannot_lift_its_limit(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    victim.server = managed.postgres(connection_limit=3)
    login = await victim.add()
    for as_role in ("SET ROLE NONE", "SELECT 1"):
        for text in LIFT:
            names = {"login": login, "owner": victim.owner, "d": victim.database}
            statement = text.format(**names, other=victim.logins[0], evil=evil.logins[0])
            await managed.closed(login)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                managed.run(victim, as_role, statement, login=login)
    await managed.closed(login)
    databases = (victim.database, "defaultdb", "template1")
    with ExitStack() as held:
        for database in databases:
            held.enter_context(managed.open(login, database))
        assert not any(managed.lets_in(login, database) for database in databases)


async def test_planted_code_never_runs_as_administrator(managed: Managed, victim: Tenant) -> None:
    """Whatever the administrator does, no function or operator of the tenant is called."""
    managed.run(
        victim,
        "CREATE TABLE public.ran (who text); GRANT ALL ON public.ran TO PUBLIC",
        "CREATE FUNCTION public.note(name, text) RETURNS bool LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM set_config('role', 'none', false);"
        " INSERT INTO public.ran VALUES (session_user); RETURN true; END $$",
        "CREATE FUNCTION public.note(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM public.note('x', 'x'); RETURN 1; END $$",
        "CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.note)",
        "CREATE VIEW public.pg_roles AS SELECT 1 AS oid, 'x' AS rolname, public.note('x', 'x')",
        "CREATE TABLE public.pg_database (datname name)",
        "CREATE TABLE public.t (x int DEFAULT public.note(1) CHECK (public.note(x) = 1),"
        " g int GENERATED ALWAYS AS (public.note(x)) STORED); CREATE INDEX ON public.t (public.note(x));"
        " ALTER TABLE public.t ENABLE ROW LEVEL SECURITY; ALTER TABLE public.t FORCE ROW LEVEL SECURITY;"
        " CREATE POLICY p ON public.t USING (public.note(x) = 1);"
        " CREATE MATERIALIZED VIEW public.mv AS SELECT public.note(1) WITH NO DATA",
        "TRUNCATE public.ran",
        f"GRANT CREATE, USAGE ON SCHEMA public TO {victim.logins[0]}",
        "SET ROLE NONE; CREATE VIEW public.v AS SELECT public.note('x', 'x') AS of_login",
    )
    managed.as_admin(f"ALTER DATABASE {victim.database} SET search_path = public, pg_catalog")
    managed.api("INSERT INTO public.t DEFAULT VALUES", victim.database)
    assert managed.api("SELECT who FROM public.ran", victim.database), "it would not be noticed"
    managed.api("TRUNCATE public.ran, public.t", victim.database)
    reader = await victim.add(Role.READER)
    assert await victim.problems() == frozenset()
    assert await victim.end(reader)
    await victim.steps.drop_roles(Role.READER)
    assert not managed.exists(victim.names.group(Role.READER))
    await victim.repair()
    assert await victim.end(victim.logins[0])
    [dump] = victim.names.next_logins(victim.on_record)
    await victim.steps.add_dump_login(dump, Secret(PASSWORD))
    await victim.freeze()
    await victim.steps.unfreeze(victim.on_record)
    assert await victim.end(dump)
    await victim.suspend()
    assert await victim.steps.adopt() is None
    await victim.add()

    assert managed.api("SELECT who FROM public.ran", victim.database) == []


@contextmanager
def fighting(managed: Managed, victim: Tenant, login: str, act: str) -> Iterator[list[str]]:
    """Four sessions of a login repeat an act, and log in again when they are ended. Yields an entry for each login."""
    tries, stop = list[str](), threading.Event()

    def fight(database: str) -> None:
        tries.append(database)
        with suppress(psycopg.Error), managed.open(login, database) as session:
            session.execute("SET ROLE NONE")
            while not stop.is_set():
                session.execute(act)

    with repeating(*(partial(fight, each) for each in (victim.database, "defaultdb") * 2)):
        try:
            yield tries
        finally:
            stop.set()


ACTS = {
    "locks its row": "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'; SELECT pg_sleep(60)",
    "ends others": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE usename = session_user AND pid <> pg_backend_pid()",
}


OPENING = (
    "SELECT FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND mode = 'RowExclusiveLock'"
)


def entering(managed: Managed, login: str, database: str, seconds: int = 0) -> asyncio.Task[object]:
    """A login enters a database, after ``seconds`` in ``post_auth_delay``. Its result is as whom."""

    def enter() -> object:
        with managed.open(login, database, options=f"-c post_auth_delay={seconds}") as session:
            return session.execute("SELECT current_user::text").fetchone()

    return asyncio.create_task(asyncio.to_thread(enter))


async def take(victim: Tenant, step: str) -> None:
    """Run a step that ends sessions."""
    if step == "repair":
        assert ProblemKind.OPEN_TO_OTHERS in kinds_of(await victim.problems())
    await (victim.steps.end_logins(victim.on_record) if step == "end_logins" else getattr(victim, step)())
    if step == "repair":
        assert await victim.problems() == frozenset()


@pytest.mark.parametrize(
    ("whose", "step"),
    [
        ("neighbour", "repair"),
        ("replicating", "repair"),  # such a session runs SQL, and is no client backend
        ("replicating", "suspend"),
        ("replicating", "freeze"),
        ("dropped", "freeze"),
        ("administrator", "freeze"),
    ],
)
async def test_session_in_database_is_ended(
    managed: Managed, victim: Tenant, evil: Tenant, whose: str, step: str
) -> None:
    """Whosever it is. An administrator let it in."""
    login = {"neighbour": evil.logins[0], "administrator": "doadmin"}.get(whose, f"is_{whose}")
    password = "doadmin-secret" if whose == "administrator" else PASSWORD
    options = {"replication": "database"} if whose == "replicating" else {}
    if login.startswith("is_"):
        managed.make_login(login)
        managed.api(f"ALTER ROLE {login} REPLICATION")
    managed.let_in(victim, login)
    with closing(managed.open(login, victim.database, password, **options)) as session:
        session.execute("SET ROLE NONE")
        session.execute("CREATE TABLE public.written ()")
        if whose == "dropped":
            managed.delete(login)
        await take(victim, step)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    if whose == "replicating":
        managed.delete(login)


@pytest.mark.parametrize(
    ("whose", "step"), [("own", "end_logins"), ("own", "suspend"), ("own", "freeze"), ("neighbour", "repair")]
)
async def test_hidden_sessions_are_ended(managed: Managed, victim: Tenant, evil: Tenant, whose: str, step: str) -> None:
    """A session that waits in ``post_auth_delay`` has passed all checks, and ``pg_stat_activity`` does not have it."""
    tenant, databases = victim, [victim.database, "defaultdb"]
    if whose == "neighbour":
        tenant, databases = evil, [victim.database]
        managed.let_in(victim, evil.logins[0])
    login = tenant.logins[0]
    for database in databases:
        assert await entering(managed, login, database) == (tenant.owner,)  # it would be noticed
    await managed.closed(login)
    hidden = [entering(managed, login, database, 15) for database in databases]
    await until(lambda: len(managed.api(OPENING)) >= len(hidden))
    assert managed.sessions(login) == 0

    await take(victim, step)

    entered = await asyncio.gather(*hidden, return_exceptions=True)
    assert [type(each) for each in entered if not isinstance(each, psycopg.OperationalError)] == []


async def test_session_waiting_for_lock_is_ended(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    """The server has checked its login. A tenant locks a database for 5 s by a DROP DATABASE that fails."""
    login = victim.logins[0]
    managed.as_admin(f"GRANT CONNECT ON DATABASE {evil.database} TO PUBLIC")
    await managed.closed(evil.logins[0])

    @asynccontextmanager
    async def waiting() -> AsyncIterator[asyncio.Task[object]]:
        with psycopg.connect(managed.superuser) as locking:
            locking.execute(f"ALTER DATABASE {evil.database} RENAME TO another")
            task = entering(managed, login, evil.database)
            await until(lambda: managed.api(f"{OPENING} AND NOT granted"))
            yield task
            locking.rollback()
        await asyncio.wait([task])

    async with waiting() as control:
        pass
    assert control.result() == (victim.owner,)
    await managed.closed(login)
    async with waiting() as hidden:
        await victim.steps.end_logins([login])
    with pytest.raises(psycopg.OperationalError):
        hidden.result()


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_fighting_sessions_keep_no_login(managed: Managed, victim: Tenant, act: str) -> None:
    login = victim.logins[0]
    with fighting(managed, victim, login, act) as tries:
        await until(lambda: managed.sessions(login) > 1 and managed.lets_in(login, "defaultdb"))
        await victim.steps.end_logins([login])
        assert managed.sessions(login) == 0
        enough = len(tries) + 8
        await until(lambda: len(tries) > enough)
        assert managed.sessions(login) == 0
        assert not any(managed.lets_in(login, "defaultdb", password) for password in (PASSWORD, "mine"))
        assert await victim.steps.drop_logins([login]) == ()
    assert managed.lets_in(victim.logins[1], victim.database)
    of_nobody = "SELECT * FROM pg_stat_activity WHERE usesysid IS NOT NULL AND usename IS NULL"
    await until(lambda: not managed.api(of_nobody))  # no session of a login that is gone goes on


@pytest.mark.usefixtures("brief")
async def test_prepared_transaction_on_login_named(managed: Managed, victim: Tenant) -> None:
    """It locks the row of the login, which loses its rights all the same. The other logins end."""
    login, other = victim.logins
    prepare = "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'; PREPARE TRANSACTION 'held'"
    managed.run(victim, f"SET ROLE NONE; {prepare}", database="defaultdb")
    with pytest.raises(GrantError, match=f"the prepared transaction 'held' of '{login}' in the database 'defaultdb'"):
        await victim.steps.end_logins(victim.logins)
    assert not managed.lets_in(other, victim.database)
    assert not managed.lets_in(login, victim.database)
    assert not managed.api(f"SELECT FROM pg_auth_members WHERE member = '{login}'::regrole")

    managed.api("ROLLBACK PREPARED 'held'", "defaultdb")
    await victim.steps.end_logins(victim.logins)
    assert not managed.lets_in(login, "defaultdb")
    assert await victim.steps.drop_logins([login]) == ()


def half_open(managed: Managed, login: str) -> socket.socket:
    """A login with a clear-text password that is held back."""
    connection = socket.create_connection(("127.0.0.1", int(conninfo_to_dict(managed.admin)["port"] or 0)))
    given = b"\0".join(each.encode() for each in ("user", login, "database", "defaultdb")) + b"\0\0"
    connection.sendall(struct.pack("!ii", 8 + len(given), 3 << 16) + given)
    assert connection.recv(1) == b"R"
    connection.recv(1000)
    return connection


def enters(connection: socket.socket, password: str) -> bool:
    """Whether the server takes the password that was held back."""
    connection.sendall(b"p" + struct.pack("!i", 5 + len(password)) + password.encode() + b"\0")
    with suppress(ConnectionError):
        answer = connection.recv(10_000)
        return b"\x00\x00\x00\x08\x00\x00\x00\x00" in answer and b"Z\x00\x00\x00\x05I" in answer
    return False


def is_open(connection: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    return True


@pytest.fixture
async def clear_text(managed: Managed, victim: Tenant) -> AsyncIterator[None]:
    """The server asks for the password in clear text, so the test need not speak SCRAM: the order is the same."""
    hba = managed.server.hba
    before = hba.read_text()
    hba.write_text(f'host all "{victim.logins[0]}" all password\n{before}')
    managed.reload()
    yield
    hba.write_text(before)
    managed.reload()


@pytest.mark.usefixtures("clear_text")
async def test_half_open_login_delays_no_ending(managed: Managed, victim: Tenant) -> None:
    login = victim.logins[0]
    with half_open(managed, login) as control, half_open(managed, login) as first, half_open(managed, login) as second:
        assert enters(control, PASSWORD)
        await victim.steps.end_logins([login])
        assert is_open(first)  # the server ends them after 60 s: nobody waited for that
        assert is_open(second)
        assert not enters(first, PASSWORD)
        assert await victim.steps.drop_logins([login]) == ()
        await victim.add()
        assert not enters(second, PASSWORD)


async def test_half_open_login_stops_no_removal(
    managed: Managed, victim: Tenant, evil: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody needs a password to begin one, and DROP DATABASE waits until the server ends it."""
    managed.api("ALTER SYSTEM SET authentication_timeout = '2s'")
    managed.reload()
    try:
        with half_open(managed, evil.logins[0]), monkeypatch.context() as patched:
            patched.setitem(connection._SETTINGS, "statement_timeout", "200ms")
            with pytest.raises(GrantError, match="for one that begins a login"):  # the control
                await victim.steps.drop_database()
        with half_open(managed, evil.logins[0]):
            await victim.remove()
    finally:
        managed.api("ALTER SYSTEM RESET ALL")
        managed.reload()
    assert not (await victim.server.inspect(victim.names)).database


async def test_ended_login_keeps_nothing(managed: Managed, victim: Tenant) -> None:
    """Not even a password that NOLOGIN makes useless: a connection that began before would enter with it."""
    login = victim.logins[0]
    state = f"""
        SELECT rolcanlogin, rolpassword IS NOT NULL, EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid),
               EXISTS (SELECT FROM pg_database, aclexplode(datacl) WHERE grantee = r.oid)
        FROM pg_authid r WHERE rolname = '{login}'
    """
    assert managed.api(state) == [(True, True, True, True)]
    await victim.steps.end_logins([login])
    assert managed.api(state) == [(False, False, False, False)]


async def test_default_limit_is_tenth_of_server(managed: Managed, victim: Tenant) -> None:
    """One login cannot fill the server, whatever it does."""
    [(most, reserved)] = managed.api(
        "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int"
    )
    login, limit = victim.logins[0], max(2, (most - reserved) // 10)
    with ExitStack() as held:
        for _ in range(limit):
            held.enter_context(managed.open(login, victim.database))
        assert not managed.lets_in(login, victim.database)
        assert managed.lets_in(victim.logins[1], victim.database)  # the control: there are more
