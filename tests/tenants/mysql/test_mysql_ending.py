"""A login of MySQL ends, whatever its sessions do. What it leaves, also its views, does no harm."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pymysql
import pytest

from aiodbclient.errors import ConflictError
from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._servers import BaseTenant, ServerState
from aiodbclient.tenants._servers.mysql import kill
from aiodbclient.tenants._servers.mysql.kill import kill_account
from aiodbclient.tenants.errors import GrantError

from ...mysql import administrator, run
from ...waiting import until
from ..mysql_servers import DENIED, IGNORES_KILL, IGNORES_KILL_BRIEFLY, Server, background, refused, server

__all__ = ["server"]

TABLE = "CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(9))"


class SlowLogin(pymysql.connections.Connection):
    """A login that begins with another authentication plugin than its account's, and finishes when ``go`` is set."""

    def __init__(self, **options: Any) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        super().__init__(**options)

    def _get_server_information(self) -> None:
        super()._get_server_information()  # type: ignore[misc]
        self._auth_plugin_name = "mysql_native_password"

    def _process_auth(self, *args: Any) -> Any:
        self.began.set()
        self.go.wait()
        return super()._process_auth(*args)  # type: ignore[misc]


@asynccontextmanager
async def half_open(server: Server, login: str, password: str) -> AsyncIterator[SlowLogin]:
    """A login for which the server has read the account, and which is finished after the block."""
    # Without ``autocommit`` it needs no statement.
    slow = server.hold(SlowLogin(**server.options(login, password) | {"autocommit": None, "defer_connect": True}))
    connecting = asyncio.create_task(asyncio.to_thread(slow.connect))
    try:
        assert await asyncio.to_thread(slow.began.wait, 60)
        yield slow
    finally:
        slow.go.set()
    await connecting


@pytest.mark.parametrize("is_ended", [True, False], ids=["ended", "control"])
async def test_half_open_login_has_no_rights_afterwards(server: Server, is_ended: bool) -> None:
    """The server reads the account when the client begins. Nothing waits for it: it may enter, and reads nothing."""
    tenant, login, password, _ = await server.enter(TABLE, "CREATE VIEW v AS SELECT * FROM t")
    await server.add(tenant)
    async with half_open(server, login, password) as slow:
        if is_ended:
            await asyncio.wait_for(tenant.end(login), 10)
    for each in ("t", "v"):
        read = f"SELECT * FROM `{tenant.database}`.{each}"
        if is_ended:
            assert refused(slow, read) in (*DENIED, 1226)  # or it has no statement left
        else:
            assert run(slow, read) == []


async def test_silent_connection_delays_no_end(server: Server) -> None:
    """One that never says who it is: the server keeps it, whatever ``connect_timeout`` says."""
    tenant, login, _ = await server.make()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    await reader.read(4)
    writer.write(b"\x20\0\0\x01" + struct.pack("<IIB23x", 0x81AAAA05, 1 << 24, 45))  # an SSLRequest
    await writer.drain()
    await until(lambda: server.sessions("unauthenticated user"))

    await asyncio.wait_for(tenant.steps.end_logins([login]), 10)

    assert server.sessions("unauthenticated user")
    writer.close()


async def test_ended_login_keeps_no_password(server: Server) -> None:
    """Also if somebody unlocks it."""
    tenant, login, password = await server.make()
    server.connect(login, password)
    await tenant.steps.end_logins([login])
    server.as_root("ALTER USER %s@'%%' ACCOUNT UNLOCK", login)
    with pytest.raises(pymysql.MySQLError, match="Access denied"):
        server.connect(login, password)


async def test_login_that_is_not_altered_keeps_no_other(server: Server) -> None:
    tenant, first, _ = await server.make()
    second, secret = await server.add(tenant)
    server.as_root("GRANT SYSTEM_USER ON *.* TO %s@'%%'", first)
    with pytest.raises(GrantError, match=f"SYSTEM_USER.*{first}"):
        await tenant.steps.end_logins([first, second])
    with pytest.raises(pymysql.MySQLError, match="denied"):
        server.connect(second, secret)
    server.as_root("REVOKE SYSTEM_USER ON *.* FROM %s@'%%'", first)
    await tenant.steps.end_logins([first, second])
    assert await server.sql.inspect(tenant.names) == ServerState(database=True, disabled=(first, second))


@pytest.mark.parametrize("step", ["adopt", "remove", "create"])
async def test_session_of_dropped_login_is_ended(server: Server, step: str) -> None:
    """Somebody dropped the login by hand. MySQL keeps the rights of its session in the schema, also in the next one."""
    tenant, login, _, own = await server.enter()
    left, _ = await server.add(tenant)
    server.as_root("DROP USER %s@'%%'", login)
    if step != "adopt":
        server.as_root(f"DROP DATABASE `{tenant.database}`")
        server.as_root(f"CREATE DATABASE `{tenant.database}`")
    run(own, TABLE)  # the control: it could plant tables for the next tenant

    if step == "adopt":
        assert await tenant.steps.adopt() == left
    elif step == "remove":
        await tenant.remove()
        assert server.as_root("SELECT Host FROM mysql.user WHERE User IN (%s, %s)", login, left) == []
    else:
        server.as_root(f"DROP DATABASE `{tenant.database}`")
        assert await tenant.steps.create()

    assert server.sessions(login) == []
    assert refused(own, "SELECT 1")
    if step != "adopt":
        assert server.as_root("SELECT User FROM mysql.db WHERE %s LIKE Db", tenant.database) == []


async def test_locks_of_a_tenant_delay_nobody(server: Server) -> None:
    """Locked tables, open transactions, and statements that wait for them."""
    tables = [f"CREATE TABLE {name} (a INT PRIMARY KEY)" for name in "tu"]
    tenant, login, password, own = await server.enter(*tables, "LOCK TABLES t WRITE")
    another, name, secret = await server.make()
    held = [server.connect(login, password, tenant.database) for _ in range(3)]
    run(held[0], "START TRANSACTION")
    run(held[0], "INSERT INTO u VALUES (1)")
    drop = f"DROP DATABASE `{tenant.database}`"
    stuck = [background(partial(run, each, drop)) for each in held[1:]]
    await until(lambda: server.waiting(login) == 2)

    await asyncio.gather(  # what waited for a lock would fail after ``LOCK_SECONDS``
        *(tenant.repair() for _ in range(4)),
        another.repair(),
        server.sql.log_in(another.names, name, secret),
        another.problems(),
    )

    await tenant.steps.end_logins([login])
    for thread in stuck:
        thread.join()
    assert refused(own, "SELECT 1")


async def test_a_statement_that_is_no_text_stops_nothing(server: Server) -> None:
    """The list of processes shows it to the administrator, and to other sessions of the login."""
    tenant, login, _, own = await server.enter()
    neighbour, *_ = await server.make()
    statement: Any = b"SELECT SLEEP(20) /* \xff\xfe */"
    running = background(partial(run, own, statement))
    await until(lambda: server.sleeping(login) == 1)

    await server.sql.usage()
    await neighbour.remove()
    await tenant.steps.end_logins([login])

    running.join()
    assert server.sessions(login) == []


async def test_removal_that_still_drops_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many tables, for example. KILL does not stop it, and the administrator is no culprit."""
    tenant, *_ = await server.make()
    async with server.sql.schema(BaseTenant(tenant.names)) as earlier:
        dropping = asyncio.ensure_future(earlier.run(IGNORES_KILL, seconds=60))
        busy = "SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_INFO LIKE 'SELECT LOCATE%%'"
        await until(lambda: server.as_root(f"{busy} AND PROCESSLIST_ID = %s", earlier.session.thread_id()))

        with monkeypatch.context() as patched:
            patched.setattr(kill, "ENDING_SECONDS", 0.1)
            with pytest.raises(GrantError, match="an earlier operation on the tenant, such as a removal") as refused:
                await tenant.steps.end_stale_sessions()

        assert "doadmin" not in str(refused.value)
        await asyncio.gather(dropping, return_exceptions=True)
    await tenant.steps.end_stale_sessions()


async def test_work_of_a_process_that_died_is_ended(server: Server) -> None:
    tenant, *_ = await server.make()
    other, *_ = await server.make()
    async with server.sql.schema(BaseTenant(tenant.names)) as lost, server.sql.schema(BaseTenant(other.names)) as works:
        running = asyncio.ensure_future(lost.run("SELECT SLEEP(9)"))
        await until(lambda: server.sleeping("doadmin"))

        await tenant.steps.end_stale_sessions()

        await asyncio.gather(running, return_exceptions=True)
        with pytest.raises(GrantError):
            await lost.run("SELECT 1")
        assert await works.run("SELECT 1") == [(1,)]


async def test_kill_account_left_behind_locks_nobody_out(server: Server) -> None:
    tenant, *_ = await server.make()
    other, neighbour, secret = await server.make()
    async with server.sql.schema(BaseTenant(tenant.names)) as lost:
        await kill_account(lost, neighbour).__aenter__()
    with pytest.raises(pymysql.MySQLError, match="denied"):
        server.connect(neighbour, secret)

    await tenant.steps.end_stale_sessions()

    server.connect(neighbour, secret, other.database)


async def test_open_session_may_run_one_statement(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the hour after its login was locked, so that it cannot kill the sessions that kill it."""

    async def kill_nothing(*_: object) -> None:
        pass

    tenant, login, password = await server.make()
    session = server.connect(login, password)
    monkeypatch.setattr(kill, "_end_threads", kill_nothing)
    await tenant.steps.end_logins([login])
    run(session, "SELECT 1")
    with pytest.raises(pymysql.MySQLError, match="max_questions") as refused_by_limit:
        run(session, "SELECT 1")
    assert refused_by_limit.value.args[0] == 1226
    session.close()


async def test_views_of_ended_login_go_on(server: Server) -> None:
    """With the rights of who uses them, so its account has none and is dropped. The other login runs all the time."""
    tenant, login, _, own = await server.enter(
        TABLE,
        "INSERT INTO t VALUES (1, '50%')",
        "CREATE VIEW first AS SELECT a, b FROM t WHERE b LIKE '%\\%'",
        "CREATE ALGORITHM=MERGE VIEW `second ``%s` (`x y`) AS SELECT a FROM first WITH CHECK OPTION",
        "CREATE SQL SECURITY INVOKER VIEW third AS SELECT CONCAT(b, 'é') c FROM t",
    )
    current, secret = await server.add(tenant)
    reader, password = await server.add(tenant, Role.READER)
    other = server.connect(current, secret, tenant.database)
    shown = [run(other, f"SELECT * FROM {view}") for view in ("first", "`second ``%s`", "third")]
    assert shown == [[(1, "50%")], [(1,)], [("50%é",)]]

    assert await tenant.end(login)

    assert refused(own, "SELECT 1")
    for session in (other, server.connect(reader, password, tenant.database)):
        assert [run(session, f"SELECT * FROM {view}") for view in ("first", "`second ``%s`", "third")] == shown
    assert await server.sql.inspect(tenant.names) == ServerState(database=True, logins=(current, reader))
    assert await tenant.problems() == frozenset()
    run(other, "CREATE OR REPLACE VIEW first AS SELECT a FROM t")
    run(other, "DROP VIEW third")


@pytest.mark.parametrize(
    "view",
    ["JSON DUALITY VIEW v AS SELECT JSON_DUALITY_OBJECT('_id': a) FROM t", "MATERIALIZED VIEW v AS SELECT a FROM t"],
)
async def test_views_of_mysql_9_go_on(server: Server, view: str) -> None:
    tenant, login, *_, own = await server.enter(TABLE, "INSERT INTO t VALUES (1, 'x')")
    current, secret = await server.add(tenant)
    try:
        run(own, f"CREATE {view}")
    except pymysql.ProgrammingError:
        pytest.skip("needs a newer MySQL")
    shown = run(own, "SELECT * FROM v")

    assert await tenant.end(login)

    assert run(server.connect(current, secret, tenant.database), "SELECT * FROM v") == shown != []


async def test_view_works_while_its_login_ends(server: Server) -> None:
    """Also if a session of that login resists its end for a while."""
    tenant, login, password, _ = await server.enter(TABLE, "CREATE VIEW v AS SELECT a FROM t")
    current, secret = await server.add(tenant)
    with server.repeated("SELECT * FROM v", current, secret, tenant.database) as (reads, failures):
        resists = background(partial(run, server.connect(login, password), IGNORES_KILL_BRIEFLY))
        await until(lambda: reads[0] and server.sessions(login))
        await tenant.end(login)
        after = reads[0]
        await until(lambda: reads[0] > after)
    resists.join()
    assert failures == []


@pytest.mark.usefixtures("brief_locks")
async def test_view_that_is_held_works_after_repair(server: Server) -> None:
    tenant, login, *_ = await server.enter(TABLE, "CREATE VIEW v AS SELECT a FROM t")
    current, secret = await server.add(tenant)
    other = server.connect(current, secret, tenant.database)
    run(other, "BEGIN")
    assert run(other, "SELECT * FROM v") == []

    assert not await tenant.end(login)

    run(other, "ROLLBACK")
    assert refused(other, "SELECT * FROM v") == 1356  # the control: MySQL asks for the rights of the definer
    await tenant.repair()
    assert run(other, "SELECT * FROM v") == []


async def test_half_open_login_of_api_keeps_rights(server: Server) -> None:
    """The server read its rights in every schema when it began. Nothing else takes these from its session."""
    tenant, login, _ = await server.make()
    assert await tenant.end(login)
    old = tenant.database
    user = await server.cluster.users.create(old)
    assert await tenant.steps.adopt() == old
    tenant.on_record[old] = Role.OWNER
    await server.add(tenant)
    async with half_open(server, old, user.password or "") as slow:
        assert await tenant.end(old)
        assert await tenant.problems() == frozenset()
    assert run(slow, "SELECT COUNT(*) FROM mysql.user") != []
    assert await tenant.problems() == {Problem(ProblemKind.UNKNOWN_LOGIN, old)}

    await tenant.repair()

    assert refused(slow, "SELECT 1")
    assert await tenant.problems() == frozenset()


async def test_programs_are_named_before_adoption(server: Server) -> None:
    """A tenant of a name that differs in its case has some too."""
    similar, *_ = await server.make(name="PROGRAMS")
    tenant, login, _, own = await server.enter(TABLE, name="programs")
    programs = {
        "procedure p": "PROCEDURE p() SELECT 1",
        "trigger g": "TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
        "event e": "EVENT e ON SCHEDULE EVERY 1 YEAR DO DELETE FROM t",
    }
    with administrator(server.root) as root:
        root.execute(f"CREATE PROCEDURE `{similar.database}`.theirs() SELECT 1")
        root.execute(f"USE `{tenant.database}`")
        for each in programs.values():
            root.execute(f"CREATE {each}")

        with pytest.raises(ConflictError, match=r"event e, procedure p, trigger g; drop them, .*; nothing was changed"):
            await tenant.steps.adopt()

        assert run(own, "SELECT a FROM t") == []
        for each in programs:
            root.execute(f"DROP {each}")
    assert await tenant.steps.adopt() == login
