"""A login of MySQL ends, whatever its sessions do, and what it leaves behind does no harm."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor

from aiodbclient.tenants import ProblemKind
from aiodbclient.tenants._servers.server import Found, Work
from aiodbclient.tenants.errors import GrantError

from ..mysql import run
from .mysql_servers import DENIED, MINE, Fighter, Server, refused, server, until
from .problems import kinds

__all__ = ["server"]

_used = iter(range(10**6))
CODE = {
    "PROCEDURE": "CREATE PROCEDURE o() SELECT 1",
    "FUNCTION": "CREATE FUNCTION o() RETURNS INT DETERMINISTIC RETURN 1",
    "VIEW": "CREATE VIEW o AS SELECT * FROM t",
    "TRIGGER": "CREATE TRIGGER o BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
    "EVENT": "CREATE EVENT o ON SCHEDULE EVERY 1 YEAR STARTS NOW() + INTERVAL 1 YEAR DO DELETE FROM t",
}


def enters(server: Server, login: str, password: str) -> bool:
    try:
        server.connect(login, password).close()
    except pymysql.MySQLError:
        return False
    return True


def suppressed(act: Callable[[], object]) -> None:
    with suppress(pymysql.MySQLError):
        act()


async def test_a_login_is_ended_although_its_sessions_fight_back(server: Server) -> None:
    work, login, password = await server.make()
    with Fighter(server, login, password, work.names.database):
        assert len(server.sessions(login)) == 4

        await asyncio.wait_for(server.sql.end_logins(work, [login]), 60)

        assert server.sessions(login) == []
        for tried in (password, MINE, ""):
            with pytest.raises(pymysql.MySQLError):
                server.connect(login, tried)
        assert await server.sql.find(work.names) == Found(database=True, logins=(), ended=(login,))

    again = await server.set(work, login)  # the next rotation takes the login up again
    own = server.connect(login, again, work.names.database)
    for _ in range(3):
        assert run(own, "SELECT 1") == [(1,)]
    own.close()


async def test_a_login_whose_sessions_know_the_password_and_set_it_for_ever_is_reset(server: Server) -> None:
    work, login, password = await server.make()
    held = [server.connect(login, password) for _ in range(2)]
    stop = threading.Event()
    setting = f"ALTER USER USER() IDENTIFIED BY '{password}' REPLACE '{password}'"
    run(held[0], setting)

    def again(at: int) -> None:
        while not stop.is_set():
            with suppress(pymysql.MySQLError):
                run(held[at], setting)
            if not held[at].open:
                return

    threads = [threading.Thread(target=again, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()

    secret = await asyncio.wait_for(server.set(work, login), 60)

    stop.set()
    for thread in threads:
        thread.join()
    with pytest.raises(pymysql.MySQLError):
        server.connect(login, password)
    own = server.connect(login, secret)
    assert run(own, "SELECT 1") == [(1,)]
    own.close()


async def test_a_login_is_ended_although_its_procedures_kill_every_new_session(server: Server) -> None:
    """One statement that began before is no statement that a limit stops."""
    work, login, password = await server.make()
    newest = "(SELECT MAX(ID) FROM information_schema.PROCESSLIST)"
    own = server.connect(login, password, work.names.database)
    run(
        own,
        f"CREATE PROCEDURE p() BEGIN DECLARE new BIGINT DEFAULT 0; DECLARE last BIGINT DEFAULT {newest}; "
        "DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; "
        f"WHILE TRUE DO SET new = {newest}; IF new > last THEN KILL new; END IF; DO SLEEP(0.005); END WHILE; END",
    )
    held = [own, *(server.connect(login, password, work.names.database) for _ in range(3))]
    threads = [threading.Thread(target=suppressed, args=(lambda at=at: run(at, "CALL p()"),)) for at in held[1:]]
    for thread in threads:
        thread.start()
    await until(lambda: server.sleeping(login) == 3)
    with (
        pytest.raises(pymysql.MySQLError),
        closing(server.connect(login, password)) as new,
    ):  # the control: it is killed
        run(new, "SELECT SLEEP(20)")

    await asyncio.wait_for(server.sql.end_logins(work, [login]), 60)

    assert server.sessions(login) == []
    assert refused(own, "SELECT 1")
    for thread in threads:
        thread.join()


async def test_a_login_with_all_its_connections_in_use_is_ended(server: Server) -> None:
    work, login, password = await server.make()
    await until(lambda: not server.sessions(login))  # the one that ``make`` closed still counts
    held = [server.connect(login, password) for _ in range(server.limit)]
    with pytest.raises(pymysql.MySQLError, match="max_user_connections"):
        server.connect(login, password)

    await server.sql.end_logins(work, [login])

    assert server.sessions(login) == []
    for each in held:
        assert refused(each, "SELECT 1")


class SlowLogin(pymysql.connections.Connection):
    """A login that begins with another authentication plugin than its account's, and finishes when ``go`` is set.

    The server reads the account, and asks for its plugin.
    """

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


@pytest.fixture
def brief(server: Server) -> Iterator[None]:
    """A server that waits two seconds for a client that logs in."""
    with server.as_root() as root:
        root.execute("SET GLOBAL connect_timeout = 2")
        yield
        root.execute("SET GLOBAL connect_timeout = DEFAULT")


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("is_reset", [False, True, None], ids=["ended", "reset", "control"])
async def test_who_began_to_log_in_before_a_login_is_ended_does_not_enter(
    server: Server, is_reset: bool | None
) -> None:
    """The server reads the account when the client begins."""
    work, login, password = await server.make()
    slow = SlowLogin(
        host=server.sql._admin["host"],
        port=server.sql._admin["port"],
        user=login,
        password=password,
        ssl={"check_hostname": False},
        defer_connect=True,
    )
    connecting = asyncio.create_task(asyncio.to_thread(slow.connect))
    assert await asyncio.to_thread(slow.began.wait, 60)
    try:
        if is_reset:
            await server.set(work, login)
        elif is_reset is not None:
            await server.sql.end_logins(work, [login])
    finally:
        slow.go.set()
    if is_reset is None:
        await connecting
        slow.close()
        return
    if is_reset:
        with pytest.raises(pymysql.MySQLError):
            await connecting
        assert server.sessions(login) == []
        return
    with suppress(pymysql.MySQLError):  # nothing waits for it: it may enter, and has no rights
        await connecting
        assert refused(slow, f"CREATE TABLE `{work.names.database}`.t (a INT PRIMARY KEY)")
    suppressed(slow.close)


async def test_an_end_that_is_cancelled_is_finished_by_the_next(server: Server) -> None:
    work, login, password = await server.make()
    held = [server.connect(login, password) for _ in range(3)]
    for wait in (0.0, 0.005, 0.01, 0.02, 0.04):
        ending = asyncio.create_task(server.sql.end_logins(work, [login]))
        await asyncio.sleep(wait)
        ending.cancel()
        with suppress(asyncio.CancelledError):
            await ending
    await server.sql.end_work(work)
    with server.as_root() as root:
        root.execute("SELECT Host FROM mysql.user WHERE User = %s", (login,))
        assert root.fetchall() == (("%",),)
    await server.sql.end_logins(work, [login])
    assert server.sessions(login) == []
    assert await server.sql.drop_login(work, login)
    for each in held:
        each.close()


async def test_sessions_of_a_login_that_was_dropped_are_ended(server: Server) -> None:
    """They would make the schema again, and plant tables for the next tenant."""
    work, login, password = await server.make()
    own = server.connect(login, password, work.names.database)
    with server.as_root() as root:
        root.execute("DROP USER %s@'%%'", (login,))
        assert run(own, "SELECT 1") == [(1,)]
        root.execute(f"DROP DATABASE `{work.names.database}`")

        await server.sql.forget(work)

        assert server.sessions(login) == []
        assert refused(own, "SELECT 1")
        root.execute("SELECT Host FROM mysql.user WHERE User = %s", (login,))
        assert root.fetchall() == ()
        root.execute("SELECT User FROM mysql.db WHERE %s LIKE Db", (work.names.database,))
        assert root.fetchall() == ()


async def test_locks_of_a_tenant_delay_nobody(server: Server) -> None:
    """Locked tables, open transactions, and statements that wait for them."""
    work, login, password = await server.make()
    another, name, secret = await server.make()
    held = [server.connect(login, password, work.names.database) for _ in range(4)]
    run(held[0], "CREATE TABLE t (a INT PRIMARY KEY)")
    run(held[0], "CREATE TABLE u (a INT PRIMARY KEY)")
    run(held[0], "LOCK TABLES t WRITE")
    run(held[1], "START TRANSACTION")
    run(held[1], "INSERT INTO u VALUES (1)")
    drop = f"DROP DATABASE `{work.names.database}`"
    stuck = [threading.Thread(target=suppressed, args=(lambda at=at: run(held[at], drop),)) for at in (2, 3)]
    for thread in stuck:
        thread.start()
    await until(lambda: server.waiting(login) == 2)

    await asyncio.gather(  # what waited for a lock would fail after ``LOCK_SECONDS``
        *(server.sql.repair(work, [login]) for _ in range(4)),
        server.sql.repair(another, [name]),
        server.sql.log_in(another.names, name, secret),
        server.sql.problems(another.names, [name]),
    )

    await server.sql.end_logins(work, [login])
    for thread in stuck:
        thread.join()


async def test_a_trigger_locks_tables_that_its_owner_may_not_touch(server: Server) -> None:
    """``LOCK TABLES`` locks what a trigger names too, and asks for no right on it. No statement may be run there."""
    _, login, password = await server.make()
    work, victim, secret = await server.make()
    theirs = server.connect(victim, secret, work.names.database)
    run(theirs, "CREATE TABLE t (a INT PRIMARY KEY)")
    run(theirs, "SET SESSION lock_wait_timeout = 1")
    own = server.connect(login, password, login)
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    for table, change in ((f"`{work.names.database}`.t", "a = 1"), ("mysql.user", "User = User")):
        run(own, "CREATE TABLE mine (a INT PRIMARY KEY)")
        body = f"BEGIN IF new.a = 1 THEN UPDATE {table} SET {change}; END IF; END"
        run(own, f"CREATE TRIGGER tr BEFORE INSERT ON mine FOR EACH ROW {body}")
        assert refused(own, "INSERT INTO mine VALUES (1)") in DENIED

        run(own, "LOCK TABLES mine WRITE")
        if table == "mysql.user":
            with pytest.raises(GrantError, match=f"(?s)Lock wait timeout.*hold locks: .*'{login}'"):
                await server.sql.repair(work, [victim])
        else:
            assert refused(theirs, "ALTER TABLE t ADD b INT") == 1205
        run(own, "UNLOCK TABLES")
        run(own, "DROP TABLE mine")
    await server.sql.repair(work, [victim])
    for each in (own, theirs):
        each.close()


async def test_a_statement_that_is_no_text_stops_nothing(server: Server) -> None:
    """The list of processes shows it to the administrator, and to other sessions of the login."""
    work, login, password = await server.make()
    neighbour, *_ = await server.make()
    own = server.connect(login, password)
    statement: Any = b"SELECT SLEEP(20) /* \xff\xfe */"
    running = threading.Thread(target=suppressed, args=(lambda: run(own, statement),))
    running.start()
    await until(lambda: server.sleeping(login) == 1)

    await server.sql.usage()
    await server.sql.drop_database(neighbour)
    await server.sql.forget(neighbour)
    await server.sql.end_logins(work, [login])

    running.join()
    assert server.sessions(login) == []


@pytest.mark.parametrize("kind", CODE)
async def test_what_runs_as_a_revoked_login_goes_on_and_holds_up_its_drop_alone(server: Server, kind: str) -> None:
    work, login, password = await server.make()
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    own = server.connect(login, password, work.names.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    run(own, CODE[kind])
    second = work.names.logins[1]
    other = server.connect(second, await server.set(work, second), work.names.database)

    await server.sql.end_logins(work, [login])
    assert not await server.sql.drop_login(work, login)

    assert refused(own, "SELECT 1")
    assert await server.sql.find(work.names) == Found(database=True, logins=(second,), ended=(login,))
    assert await server.sql.problems(work.names, [second]) == frozenset()
    run(other, "INSERT INTO t VALUES (2)")
    if kind == "VIEW":
        assert run(other, "SELECT * FROM o") == [(2,)]
    run(other, f"DROP {kind} o")
    assert await server.sql.drop_login(work, login)
    other.close()


async def test_a_login_that_was_dropped_although_code_runs_as_it_is_an_error_that_says_so(server: Server) -> None:
    work, login, password = await server.make()
    own = server.connect(login, password, work.names.database)
    run(own, "CREATE VIEW o AS SELECT 1")
    own.close()
    with server.as_root() as root:
        root.execute("DROP USER %s@'%%'", (login,))

    with pytest.raises(GrantError, match=r"still runs as it.*rotate the tenant"):
        await server.set(work, login)

    second = work.names.logins[1]
    other = server.connect(second, await server.set(work, second), work.names.database)
    run(other, "DROP VIEW o")
    other.close()
    await server.set(work, login)


async def test_events_stop_while_a_tenant_is_suspended_and_go_on_after_it(server: Server) -> None:
    """Of the login in use, and of one that was revoked. One that is running ends too."""
    work, login, password = await server.make()
    second = work.names.logins[1]
    count = f"SELECT COUNT(*) FROM `{work.names.database}`.t"
    with server.as_root() as root:
        root.execute("SET GLOBAL event_scheduler = ON")

        def rows() -> int:
            root.execute(count)
            return int(root.fetchall()[0][0])

        own = server.connect(login, password, work.names.database)
        run(own, "CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY)")
        run(own, "CREATE EVENT revoked ON SCHEDULE EVERY 1 SECOND DO INSERT INTO t VALUES ()")
        other = server.connect(second, await server.set(work, second), work.names.database)
        run(
            other,
            "CREATE EVENT runs ON SCHEDULE AT NOW() + INTERVAL 1 SECOND DO "
            "BEGIN WHILE TRUE DO INSERT INTO t VALUES (); DO SLEEP(0.2); END WHILE; END",
        )
        await server.sql.end_logins(work, [login])
        assert not await server.sql.drop_login(work, login)
        before = rows()
        await until(lambda: rows() > before + 6)

        for each in work.names.logins:
            await server.sql.end_logins(work, [each])
        await server.sql.shut(work)

        before = rows()
        await an_event_ran(root, times=3)
        assert rows() == before
        assert server.sessions(login) == server.sessions(second) == []
        await server.set(work, second)
        await until(lambda: rows() > before)
        run(root.connection, f"DROP DATABASE `{work.names.database}`")
    for session in (own, other):
        suppressed(session.close)


async def an_event_ran(root: Cursor, times: int) -> None:
    """Wait until an event of the superuser's ran so often, once a second: the server runs others meanwhile too."""
    name = f"clock{next(_used)}"
    for statement in (
        f"CREATE DATABASE {name}",
        f"CREATE TABLE {name}.t (a INT AUTO_INCREMENT PRIMARY KEY)",
        f"CREATE EVENT {name}.e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO {name}.t VALUES ()",
    ):
        root.execute(statement)

    def ran() -> bool:
        root.execute(f"SELECT COUNT(*) FROM {name}.t")
        return int(root.fetchall()[0][0]) >= times

    await until(ran)
    root.execute(f"DROP DATABASE {name}")


async def test_an_event_cannot_set_the_password_of_a_login_that_was_reset(server: Server) -> None:
    work, login, password = await server.make()
    with server.as_root() as root:
        root.execute("SET GLOBAL event_scheduler = ON")
    own = server.connect(login, password, work.names.database)
    run(own, "CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY)")
    run(
        own,
        "CREATE EVENT o ON SCHEDULE EVERY 1 SECOND DO BEGIN "
        "DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; INSERT INTO t VALUES (); "
        f"SET PASSWORD = '{MINE}'; ALTER USER USER() IDENTIFIED BY '{MINE}' REPLACE '{password}'; "
        "INSERT INTO t VALUES (); END",
    )
    await until(lambda: enters(server, login, MINE))  # the control: it sets the password until then
    secret = await server.set(work, login)
    other = server.connect(login, secret, work.names.database)
    run(other, "TRUNCATE TABLE t")
    await until(lambda: len(run(other, "SELECT a FROM t")) >= 4)

    assert await server.sql.log_in(work.names, login, secret) is None
    with pytest.raises(pymysql.MySQLError, match="denied"):
        server.connect(login, MINE)
    for each in (own, other):
        suppressed(each.close)


async def let_in(server: Server) -> tuple[Work, str, Any, str, str]:
    """A tenant with a table, its login and a session of it; a neighbour with all rights there, and its password."""
    work, login, password = await server.make()
    _, neighbour, secret = await server.make()
    own = server.connect(login, password, work.names.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    with server.as_root() as root:
        root.execute(f"GRANT ALL ON `{server.in_grant(work.names)}`.* TO %s@'%%'", (neighbour,))
    return work, login, own, neighbour, secret


async def test_a_neighbour_who_was_let_in_is_out_of_a_tenant_that_is_shut(server: Server) -> None:
    """It keeps its other work. MySQL checks rights on a schema only when a session enters it."""
    work, login, own, neighbour, secret = await let_in(server)
    inside = server.connect(neighbour, secret, work.names.database)
    holds = server.connect(neighbour, secret)
    elsewhere = server.connect(neighbour, secret, neighbour)
    run(inside, "INSERT INTO t VALUES (1)")
    run(holds, "BEGIN")
    run(holds, f"INSERT INTO `{work.names.database}`.t VALUES (2)")

    await server.sql.end_logins(work, [login])
    await server.sql.shut(work)

    assert work.ended == {neighbour}
    assert refused(inside, "INSERT INTO t VALUES (3)")
    assert refused(holds, "COMMIT")
    assert run(elsewhere, "SELECT 1") == [(1,)]
    assert refused(elsewhere, f"SELECT * FROM `{work.names.database}`.t") in DENIED
    with server.as_root() as root:
        root.execute(f"SELECT a FROM `{work.names.database}`.t")
        assert root.fetchall() == ((1,),)
    for each in (own, inside, holds, elsewhere):
        suppressed(each.close)


@pytest.mark.parametrize("step", ["repair", "adopt"])
async def test_a_neighbour_whose_rights_are_revoked_is_out_of_the_schema(server: Server, step: str) -> None:
    """MySQL checks rights on a schema only when a session enters it. The tenant's own sessions go on."""
    work, login, own, neighbour, secret = await let_in(server)
    inside = server.connect(neighbour, secret, work.names.database)
    elsewhere = server.connect(neighbour, secret, neighbour)
    run(inside, "INSERT INTO t VALUES (1)")

    if step == "repair":
        await server.sql.repair(work, [login])
    else:
        await server.sql.adopt(work, login)

    assert work.ended == {neighbour}
    assert refused(inside, "INSERT INTO t VALUES (2)")
    assert run(elsewhere, "SELECT 1") == [(1,)]
    assert run(own, "SELECT a FROM t") == [(1,)]
    for each in (own, inside, elsewhere):
        suppressed(each.close)


async def test_a_removal_ends_sessions_that_fight_back(server: Server) -> None:
    work, login, password = await server.make()
    with Fighter(server, login, password, work.names.database):
        await server.sql.end_logins(work, [login])
        await server.sql.drop_database(work)
        await server.sql.forget(work)
    assert not await server.sql.find(work.names)


def prepare(session: Any, xid: str, statement: str) -> None:
    for each in (f"XA START {xid}", statement, f"XA END {xid}", f"XA PREPARE {xid}"):
        run(session, each)


async def test_prepared_transaction_in_schema_named(server: Server) -> None:
    """As on the provider's servers. Only what needs its locks fails: no suspension does."""
    work, login, password = await server.make()
    own = server.connect(login, password, work.names.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY) ENGINE = InnoDB")
    prepare(own, "'held'", "INSERT INTO t VALUES (1)")
    own.close()
    await until(lambda: not server.sessions(login))
    await server.sql.end_logins(work, [login])

    await server.sql.shut(work)
    for needs_its_locks in (server.sql.drop_database(work), server.sql.shut(work, still=True)):
        with pytest.raises(
            GrantError, match=r"prepared transaction \(XA\) holds tables of the schema .*: t\..*XA_RECOVER_ADMIN"
        ):
            await needs_its_locks

    with server.as_root() as root:
        root.execute("SELECT User FROM mysql.db WHERE Db = %s", (work.names.database,))
        assert root.fetchall() == ()
        root.execute("XA ROLLBACK 'held'")
    await server.sql.drop_database(work)


async def test_a_prepared_transaction_is_anybodys_who_knows_its_name(server: Server) -> None:
    work, login, password = await server.make()
    _, neighbour, secret = await server.make()
    own = server.connect(login, password, work.names.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY) ENGINE = InnoDB")
    xid = f"'{work.names.tenant}'"
    prepare(own, xid, "INSERT INTO t VALUES (1)")
    theirs = server.connect(neighbour, secret)
    own.close()
    await until(lambda: not server.sessions(login))

    run(theirs, f"XA COMMIT {xid}")

    theirs.close()
    own = server.connect(login, password, work.names.database)
    assert run(own, "SELECT a FROM t") == [(1,)]
    own.close()


async def test_a_schema_that_its_tenant_made_read_only_is_writable_after_a_reset(server: Server) -> None:
    work, login, password = await server.make()
    own = server.connect(login, password, work.names.database)
    run(own, f"ALTER DATABASE `{work.names.database}` READ ONLY = 1")
    assert refused(own, "CREATE TABLE t (a INT PRIMARY KEY)")

    own = server.connect(login, await server.set(work, login), work.names.database)

    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    own.close()


async def test_a_second_password_of_before_is_none_of_the_login_that_was_reset(server: Server) -> None:
    """MySQL accepts the old password too after RETAIN CURRENT PASSWORD."""
    work, login, password = await server.make()
    own = server.connect(login, password, work.names.database)
    run(own, "CREATE VIEW v AS SELECT 1")  # so it is not dropped
    own.close()
    with server.as_root() as root:
        root.execute("ALTER USER %s@'%%' IDENTIFIED BY 'Mine-1-Mine' RETAIN CURRENT PASSWORD", (login,))
    server.connect(login, password).close()

    await server.set(work, login)

    for tried in (password, MINE):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            server.connect(login, tried)


async def test_an_adopted_login_that_code_runs_as_keeps_only_the_rights_of_a_tenant(server: Server) -> None:
    """The API gave it all rights in every schema."""
    work, _, _ = await server.make()
    first, second = work.names.logins
    await server.sql.end_logins(work, [first])
    assert await server.sql.drop_login(work, first)
    user = await server.cluster.users.create(first)
    theirs = server.connect(first, user.password or "", work.names.database)
    run(theirs, "CREATE PROCEDURE p() SELECT User FROM mysql.user")
    await server.sql.adopt(work, first)
    secret = await server.set(work, second)
    assert await server.sql.problems(work.names, [first, second]) == frozenset()

    await server.sql.end_logins(work, [first])
    assert not await server.sql.drop_login(work, first)

    own = server.connect(second, secret, work.names.database)
    assert refused(own, "CALL p()") in DENIED
    assert await server.sql.problems(work.names, [second]) == frozenset()
    own.close()
    theirs.close()


@pytest.mark.parametrize("similar", ["ALPHA", "Alpha"])
async def test_what_runs_as_a_login_with_a_similar_name_keeps_no_neighbour(server: Server, similar: str) -> None:
    """Any visitor may sign up with such a name."""
    pair = [await server.make(name=name) for name in (similar, "alpha")]
    for work, login, password in pair:
        own = server.connect(login, password, work.names.database)
        run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
        own.close()
    (theirs, name, secret), (work, login, _) = pair
    own = server.connect(name, secret, theirs.names.database)
    run(own, "CREATE VIEW o AS SELECT * FROM t")
    own.close()

    await server.sql.end_logins(work, [login])
    assert await server.sql.drop_login(work, login)
    await server.sql.drop_database(work)
    await server.sql.forget(work)

    assert await server.sql.problems(theirs.names, [name]) == frozenset()
    assert await server.sql.find(theirs.names) == Found(database=True, logins=(name,))
    for step in (server.sql.drop_database, server.sql.forget):
        await step(theirs)


async def test_work_of_a_process_that_died_is_ended(server: Server) -> None:
    work, _, _ = await server.make()
    other, *_ = await server.make()
    async with server.sql._schema(work) as lost, server.sql._schema(other) as works:
        running = asyncio.ensure_future(lost.read("SELECT SLEEP(9)"))
        await until(lambda: server.sleeping("doadmin"))

        await server.sql.end_work(work)

        await asyncio.gather(running, return_exceptions=True)
        with pytest.raises(GrantError):
            await lost.read("SELECT 1")
        assert await works.read("SELECT 1") == [(1,)]


async def test_a_login_that_is_back_is_found(server: Server) -> None:
    """As after a failover to a replica that had not yet heard of its end."""
    work, login, _ = await server.make()
    second = work.names.logins[1]
    await server.set(work, second)
    await server.sql.end_logins(work, [login])
    assert await server.sql.problems(work.names, [second]) == frozenset()
    with server.as_root() as root:
        root.execute("ALTER USER %s@'%%' ACCOUNT UNLOCK", (login,))
    assert await server.sql.problems(work.names, [second]) == kinds(ProblemKind.UNKNOWN_LOGIN)
