"""What a tenant of MySQL or MariaDB leaves behind, plants beforehand, or holds too much of."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest
from aiodbclient.tenants._grants import sql_grants
from aiodbclient.tenants._grants.mysql import MySQLGrants

from aiodbclient import Action
from aiodbclient.errors import ConfigurationError, GrantError
from aiodbclient.models import Connection
from aiodbclient.tenants import Problem, Role, SQLiteStore, Tenants

from ..mysql import run
from .conftest import only
from .test_mysql_hostile import DENIED, Server, refused, server

__all__ = ["server"]

_used = iter(range(10**6))
CODE = {
    "PROCEDURE": "CREATE PROCEDURE o() SELECT 1",
    "FUNCTION": "CREATE FUNCTION o() RETURNS INT DETERMINISTIC RETURN 1",
    "VIEW": "CREATE VIEW o AS SELECT * FROM t",
    "TRIGGER": "CREATE TRIGGER o BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
    "EVENT": "CREATE EVENT o ON SCHEDULE EVERY 1 YEAR STARTS NOW() + INTERVAL 1 YEAR DO DELETE FROM t",
}


@pytest.fixture
async def tenants(server: Server, tmp_path: Path) -> AsyncIterator[Tenants]:
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        yield Tenants(server.cluster, store, f"l{next(_used)}_")


@pytest.mark.parametrize("kind", CODE)
async def test_a_deleted_login_is_not_made_again_while_code_runs_as_it(
    server: Server, tenants: Tenants, kind: str
) -> None:
    """The API gives a new login all rights everywhere, and what runs as it would have them."""
    owner = await tenants.ensure("alpha")
    assert owner.password is not None
    own = server.connect(owner.username, owner.password, owner.database)
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    run(own, "CREATE TABLE t (a INT)")
    run(own, CODE[kind])
    own.close()
    await server.cluster.users.delete(owner.username)

    failed = await only(tenants.repair(["alpha"]))

    assert isinstance(failed.error, GrantError)
    assert f"{kind} `{owner.database}`.`o` run as it" in str(failed.error)
    assert owner.username not in [user.name for user in await server.cluster.users.list()]
    if kind != "EVENT":
        return
    with server.as_doadmin() as doadmin:
        doadmin.execute(f"DROP EVENT `{owner.database}`.o")
    assert (await only(tenants.repair(["alpha"]))).error is None


async def test_what_a_removed_tenant_left_in_a_kept_database_runs_as_nobody(server: Server, tenants: Tenants) -> None:
    """An event sets the password of whoever has the name next."""
    owner = await tenants.ensure("alpha")
    own = server.connect(owner.username, owner.password or "", owner.database)
    run(own, "CREATE EVENT o ON SCHEDULE EVERY 1 SECOND DO SET PASSWORD = 'Mine-1-Mine'")
    own.close()
    assert (await only(tenants.remove(["alpha"], keep_database=True))).action is Action.DELETED

    failed = await only(tenants.provision(["alpha"], if_exists="adopt"))

    assert isinstance(failed.error, GrantError)
    assert "EVENT" in str(failed.error)
    with server.as_doadmin() as doadmin:
        doadmin.execute(f"DROP EVENT `{owner.database}`.o")
    assert (await only(tenants.provision(["alpha"], if_exists="adopt"))).error is None


async def test_a_tenant_whose_login_may_not_be_made_again_is_rotated(server: Server, tenants: Tenants) -> None:
    owner = await tenants.ensure("alpha")
    own = server.connect(owner.username, owner.password or "", owner.database)
    run(own, "CREATE TABLE t (a INT)")
    run(own, CODE["VIEW"])
    own.close()
    await server.cluster.users.delete(owner.username)

    rotated = await only(tenants.rotate(["alpha"]))

    assert rotated.error is None
    assert rotated.credential is not None
    other = server.connect(rotated.credential.username, rotated.credential.password or "", owner.database)
    run(other, "DROP VIEW o")
    run(other, CODE["VIEW"])
    other.close()


async def test_a_statement_that_is_no_text_stops_nothing(server: Server) -> None:
    """The list of processes shows it to the administrator, and to other sessions of the login."""
    names, login, password = await server.make()
    neighbour, *_ = await server.make()
    own = server.connect(login, password)
    statement: Any = b"SELECT SLEEP(20) /* \xff\xfe */"
    running = threading.Thread(target=_suppressed, args=(lambda: run(own, statement),))
    running.start()
    with server.as_root() as root:
        until = time.monotonic() + 10
        listed = "information_schema" if server.is_mariadb() else "performance_schema"
        while not root.execute(
            f"SELECT 1 FROM {listed}.processlist WHERE USER = %s AND STATE = 'User sleep'", (login,)
        ):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    await server.grants.before_removal(neighbour)
    await server.grants.forget(neighbour)
    assert await server.grants.end_login(names, login, None) is None

    running.join()
    assert server.sessions(login) == []


def _suppressed(act: Callable[[], object]) -> None:
    with suppress(pymysql.MySQLError):
        act()


async def test_an_event_that_calls_without_the_word_keeps_an_ended_login_locked(server: Server) -> None:
    """MariaDB: ``BEGIN p; END`` with ``sql_mode=ORACLE``."""
    if not server.is_mariadb():
        pytest.skip("only MariaDB has this mode")
    names, login, password = await server.make()
    own = server.connect(login, password, names.database)
    run(own, "CREATE PROCEDURE p() SET PASSWORD = PASSWORD('Mine-1-Mine')")
    run(own, "SET SESSION sql_mode = 'ORACLE'")
    run(own, "CREATE EVENT o ON SCHEDULE EVERY 1 YEAR STARTS NOW() + INTERVAL 1 YEAR DO BEGIN p; END")
    own.close()
    await server.grants.end_login(names, login, None)

    with pytest.raises(GrantError, match=f"'o' runs as the login '{login}'.*DROP EVENT"):
        await server.grants.give(names, login)

    with server.as_doadmin() as cursor:
        cursor.execute(f"DROP EVENT `{names.database}`.o")
    await server.grants.give(names, login)


async def test_an_event_that_runs_and_dropped_itself_is_ended_before_its_login_is_used_again(server: Server) -> None:
    names, login, password = await server.make()
    setting = "SET PASSWORD = PASSWORD('Mine-1-Mine')" if server.is_mariadb() else "SET PASSWORD = 'Mine-1-Mine'"
    with server.as_root() as root:
        root.execute("SET GLOBAL event_scheduler = ON")
        own = server.connect(login, password, names.database)
        planted = f"BEGIN DROP EVENT o; DO SLEEP(600); {setting}; END"
        run(own, f"CREATE EVENT o ON SCHEDULE AT NOW() + INTERVAL 2 SECOND DO {planted}")
        own.close()
        await server.grants.end_login(names, login, None)
        until = time.monotonic() + 20
        while not (
            server.sessions(login)
            and not root.execute("SELECT 1 FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s", (names.database,))
        ):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        secret = (await server.cluster.users.reset_auth(login)).password
        assert secret is not None

        await server.grants.give(names, login)

        until = time.monotonic() + 5
        while server.sessions(login):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        assert await server.grants.log_in(names, login, secret) is None
        assert await server.grants.problems(names, [login]) == frozenset()


async def test_the_logins_of_a_tenant_share_its_connections(server: Server) -> None:
    """Of all its roles, with all sessions that they can hold."""
    owner, login, password = await server.make()
    assert _held(server, {login: password}) == server.limit
    writer, writing, writers = await server.make(Role.WRITER, like=owner)
    _, reading, readers = await server.make(Role.READER, like=owner)

    held = _held(server, {login: password, writing: writers, reading: readers})

    assert held == server.limit
    await server.grants.end_login(writer, writing, None)
    assert _held(server, {login: password, reading: readers}) == server.limit


@pytest.mark.parametrize("connections", [0, 13])
async def test_a_limit_that_is_too_high_is_reported_and_repaired(server: Server, connections: int) -> None:
    names, login, _ = await server.make()
    with server.as_root() as root:
        how = "GRANT USAGE ON *.* TO" if server.is_mariadb() else "ALTER USER"
        root.execute(f"{how} %s@'%%' WITH MAX_USER_CONNECTIONS {connections}", [login])
    assert await server.grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}
    higher = MySQLGrants(server.doadmin, await server.cluster.ca(), connection_limit=20)
    assert await higher.problems(names, [login]) == ({Problem.RIGHTS_MISSING} if connections == 0 else frozenset())

    await server.grants.give(names, login)

    assert await server.grants.problems(names, [login]) == frozenset()


async def test_a_lower_limit_stays_where_none_is_asked_for(server: Server) -> None:
    """As for a program that was not given the limit of the service."""
    names, login, password = await server.make()
    without = MySQLGrants(server.doadmin, await server.cluster.ca())

    await without.give(names, login)

    assert _held(server, {login: password}, most=server.limit + 2) == server.limit


def _held(server: Server, logins: dict[str, str], most: int = 100) -> int:
    """How many sessions these logins can have open at a time."""
    held: list[Any] = []
    for login, password in logins.items():
        while server.sessions(login):  # those of before are still ending
            time.sleep(0.01)
        with suppress(pymysql.MySQLError):
            while len(held) < most:
                held.append(server.connect(login, password))
    for each in held:
        each.close()
    return len(held)


async def test_a_neighbour_cannot_make_the_rights_of_a_login_look_wrong_for_ever(server: Server) -> None:
    """Everybody may grant PROXY on himself, and only he can revoke it. On MySQL it brings a right to grant."""
    names, login, _ = await server.make()
    _, neighbour, secret = await server.make()
    theirs = server.connect(neighbour, secret)
    run(theirs, f"GRANT PROXY ON '{neighbour}'@'%' TO '{login}'@'%'")
    assert await server.grants.problems(names, [login]) == frozenset()
    if not server.is_mariadb():
        run(theirs, f"GRANT PROXY ON '{neighbour}'@'%' TO '{login}'@'%' WITH GRANT OPTION")
        assert await server.grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}
    theirs.close()

    await server.grants.give(names, login)

    assert await server.grants.problems(names, [login]) == frozenset()


async def test_rights_in_use_are_never_taken_while_others_are(server: Server) -> None:
    names, login, password = await server.make()
    other, *_ = await server.make()
    own = server.connect(login, password, names.database)
    run(own, "CREATE TABLE t (a INT)")
    own.close()
    stop, tried, failures = threading.Event(), [0], list[Exception]()

    def use() -> None:
        while not stop.is_set():
            tried[0] += 1
            try:
                session = server.connect(login, password, names.database)
                run(session, "SELECT * FROM t")
                session.close()
            except pymysql.MySQLError as error:
                failures.append(error)

    using = threading.Thread(target=use)
    using.start()
    with server.as_root() as root:
        for _ in range(10):
            root.execute(f"GRANT SELECT ON `{server.in_grant(other)}`.* TO %s@'%%'", (login,))
            root.execute("GRANT PROCESS ON *.* TO %s@'%%'", (login,))
            assert await server.grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}
            await server.grants.give(names, login)
            assert await server.grants.problems(names, [login]) == frozenset()
    stop.set()
    using.join()
    assert tried[0] > 10
    assert failures == []


async def test_no_frame_of_a_traceback_shows_a_password(server: Server) -> None:
    """Whenever the work is cut off, in the package's frames and in the driver's."""
    names, login, password = await server.make()
    admins = server.grants._admin["password"]
    works: list[Callable[[], Awaitable[object]]] = [
        lambda: server.grants.log_in(names, login, password),
        lambda: server.grants.accepts(names, login, password),
        lambda: server.grants.give(names, login),
        lambda: server.grants.end_login(names, login, password),
        lambda: server.grants.problems(names, [login]),
        lambda: server.grants.take_over(names, login),
    ]
    cut = 0
    for work in works:
        for wait in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12):
            try:
                async with asyncio.timeout(wait):
                    await work()
            except TimeoutError as error:
                cut += 1
                _assert_hidden(error, password, str(admins))
    assert cut > 20
    await server.grants.give(names, login)


async def test_no_frame_shows_the_password_of_an_administrator_that_is_refused() -> None:
    connection = Connection(host="h")
    for admin in ("mysql://doadmin:s3cret@", "mysql://doadmin:s3cret@h:99999/", "mysql://doadmin:a@s3cret/b@h/"):
        with pytest.raises(ConfigurationError) as caught:
            sql_grants("mysql", connection, None, admin, None)
        _assert_hidden(caught.value, "s3cret")
    grants = MySQLGrants("mysql://doadmin:s3cret@127.0.0.1:1/", None)
    with pytest.raises(GrantError) as refusal:
        await grants.check()
    _assert_hidden(refusal.value, "s3cret")


def _assert_hidden(error: BaseException | None, *secrets: str) -> None:
    while error is not None:
        for frame in traceback.TracebackException.from_exception(error, capture_locals=True).stack:
            shown = str(frame.locals)
            assert frame.filename == __file__ or not any(secret in shown for secret in secrets), (frame.name, shown)
        error = error.__cause__ or error.__context__


async def test_a_prepared_transaction_is_anybodys_who_knows_its_name(server: Server) -> None:
    names, login, password = await server.make()
    _, neighbour, secret = await server.make()
    own = server.connect(login, password, names.database)
    run(own, "CREATE TABLE t (a INT) ENGINE = InnoDB")
    xid = f"'{names.tenant}'"
    for statement in (f"XA START {xid}", "INSERT INTO t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}"):
        run(own, statement)
    theirs = server.connect(neighbour, secret)
    if server.is_mariadb():
        assert refused(theirs, f"XA COMMIT {xid}") == 1397  # while its session is open
    own.close()
    until = time.monotonic() + 5
    while server.sessions(login):
        assert time.monotonic() < until
        await asyncio.sleep(0.01)

    run(theirs, f"XA COMMIT {xid}")

    theirs.close()
    own = server.connect(login, password, names.database)
    assert run(own, "SELECT a FROM t") == [(1,)]
    own.close()


LOCKS = ("SELECT * FROM t FOR UPDATE", "SELECT * FROM t LOCK IN SHARE MODE")


async def test_what_a_reader_may_lock(server: Server) -> None:
    """MySQL asks for another right than SELECT for FOR UPDATE, MariaDB does not."""
    owner, login, password = await server.make()
    _, reading, secret = await server.make(Role.READER, like=owner)
    own = server.connect(login, password, owner.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY) ENGINE = InnoDB")
    run(own, "INSERT INTO t VALUES (1)")
    reader = server.connect(reading, secret, owner.database)
    run(own, "SET SESSION innodb_lock_wait_timeout = 1")
    for_update, in_share_mode = LOCKS
    for statement in ("LOCK TABLES t READ", "LOCK TABLES t WRITE", "CREATE TEMPORARY TABLE n (a INT)"):
        assert refused(reader, statement) in DENIED
    if not server.is_mariadb():
        assert refused(reader, for_update) in DENIED
    for statement in (in_share_mode, *([for_update] if server.is_mariadb() else [])):
        run(reader, "START TRANSACTION")
        assert run(reader, statement) == [(1,)]
        assert refused(own, "UPDATE t SET a = a") == 1205  # waits for the reader's lock
        run(reader, "ROLLBACK")
    run(own, "UPDATE t SET a = a")
    for each in (own, reader):
        each.close()


async def test_a_trigger_locks_tables_that_its_owner_may_not_touch(server: Server) -> None:
    """``LOCK TABLES`` locks what a trigger names too, and asks for no right on it. No statement may be run there."""
    _, login, password = await server.make()
    names, victim, secret = await server.make()
    theirs = server.connect(victim, secret, names.database)
    run(theirs, "CREATE TABLE t (a INT)")
    run(theirs, "SET SESSION lock_wait_timeout = 1")
    own = server.connect(login, password, login)
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    for table, change in ((f"`{names.database}`.t", "a = 1"), (ACCOUNTS[server.is_mariadb()], "User = User")):
        run(own, "CREATE TABLE mine (a INT)")
        body = f"BEGIN IF new.a = 1 THEN UPDATE {table} SET {change}; END IF; END"
        run(own, f"CREATE TRIGGER tr BEFORE INSERT ON mine FOR EACH ROW {body}")
        assert refused(own, "INSERT INTO mine VALUES (1)") in DENIED

        run(own, "LOCK TABLES mine WRITE")
        if table == ACCOUNTS[server.is_mariadb()]:
            with pytest.raises(GrantError, match="Lock wait timeout"):
                await server.grants.give(names, victim)
        else:
            assert refused(theirs, "ALTER TABLE t ADD b INT") == 1205
        run(own, "UNLOCK TABLES")
        run(own, "DROP TABLE mine")
    await server.grants.give(names, victim)
    for each in (own, theirs):
        each.close()


ACCOUNTS = {True: "mysql.global_priv", False: "mysql.user"}  # whether it is MariaDB


async def test_a_schema_that_its_tenant_made_read_only_is_removed(server: Server, tenants: Tenants) -> None:
    """Although a prepared transaction, which only read, keeps it from being made writable."""
    if server.is_mariadb():
        pytest.skip("only MySQL has read-only schemas")
    owner = await tenants.ensure("alpha")
    with server.as_root() as root:
        root.execute("GRANT XA_RECOVER_ADMIN ON *.* TO doadmin@'%'")
    own = server.connect(owner.username, owner.password or "", owner.database)
    run(own, "CREATE TABLE t (a INT) ENGINE = InnoDB")
    run(own, f"ALTER DATABASE `{owner.database}` READ ONLY = 1")
    xid = f"'{owner.database}'"
    for statement in (f"XA START {xid}", "SELECT * FROM t", f"XA END {xid}", f"XA PREPARE {xid}"):
        run(own, statement)
    own.close()

    removed = await only(tenants.remove(["alpha"]))

    assert removed.error is None
    assert owner.database not in [each.name for each in await server.cluster.dbs.list()]


async def test_a_second_password_of_before_an_adoption_is_none_of_the_tenants(server: Server, tenants: Tenants) -> None:
    """MySQL accepts the old password too after RETAIN CURRENT PASSWORD, which only logins of the API may run."""
    if server.is_mariadb():
        pytest.skip("only MySQL has second passwords")
    name = f"{tenants._tenancy.prefix}alpha"
    await server.cluster.dbs.create(name)
    leaked = (await server.cluster.users.create(name)).password or ""
    intruder = server.connect(name, leaked)
    run(intruder, "ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine' RETAIN CURRENT PASSWORD")
    intruder.close()

    adopted = await only(tenants.provision(["alpha"], if_exists="reset"))

    assert adopted.error is None
    for password in (leaked, "Mine-1-Mine"):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            server.connect(name, password)


@pytest.mark.parametrize("similar", ["ALPHA", "älpha"])
async def test_what_runs_as_a_login_with_a_similar_name_keeps_no_neighbour(
    server: Server, tenants: Tenants, similar: str
) -> None:
    """MariaDB's information_schema ignores case and accents. Any visitor may sign up with such a name."""
    neighbour = await tenants.ensure(similar)
    own = server.connect(neighbour.username, neighbour.password or "", neighbour.database)
    run(own, "CREATE TABLE t (a INT)")
    run(own, CODE["VIEW"])
    run(own, "CREATE PROCEDURE p() BEGIN SET @s = 'SELECT 1'; PREPARE s FROM @s; EXECUTE s; END")
    run(own, "CREATE EVENT o ON SCHEDULE EVERY 1 YEAR STARTS NOW() + INTERVAL 1 YEAR DO SET PASSWORD = 'Mine-1-Mine'")
    own.close()

    owner = await tenants.ensure("alpha")

    own = server.connect(owner.username, owner.password or "", owner.database)
    run(own, "CREATE TABLE t (a INT)")
    run(own, "CREATE EVENT o ON SCHEDULE EVERY 1 YEAR STARTS NOW() + INTERVAL 1 YEAR DO BEGIN DELETE FROM t; END")
    own.close()
    for _ in range(2):  # the second one takes up the first login again
        assert (await only(tenants.rotate(["alpha"]))).error is None
        assert (await only(tenants.retire(["alpha"]))).error is None


HIDE_LOCKS = {
    "log": "CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW INSERT INTO mysql.general_log VALUES (1)",
    "broken": "CREATE TABLE b (a INT) ENGINE = MRG_MyISAM UNION = (nothing)",
    "versioned": "ALTER TABLE t ADD SYSTEM VERSIONING",
}


@pytest.mark.parametrize("how", HIDE_LOCKS)
async def test_a_prepared_transaction_is_found_whatever_else_is_in_the_schema(server: Server, how: str) -> None:
    if how == "versioned" and not server.is_mariadb():
        pytest.skip("only MariaDB has versioned tables")
    names, login, password = await server.make()
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        if not server.is_mariadb():
            root.execute("GRANT XA_RECOVER_ADMIN ON *.* TO doadmin@'%'")
    own = server.connect(login, password, names.database)
    run(own, "CREATE TABLE a (a INT) ENGINE = InnoDB")
    run(own, "CREATE TABLE t (a INT) ENGINE = InnoDB")
    run(own, HIDE_LOCKS[how])
    xid = f"'{names.database}'"
    for statement in (f"XA START {xid}", "INSERT INTO t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}"):
        run(own, statement)
    own.close()

    await server.grants.before_removal(names)

    with server.as_root() as root:
        root.execute("SET SESSION lock_wait_timeout = 2")
        root.execute(f"DROP DATABASE `{names.database}`")


async def test_no_event_begins_while_a_tenant_is_removed(server: Server) -> None:
    """It could lock the tables again and again, which looks like a prepared transaction."""
    names, login, password = await server.make()
    with server.as_root() as root:
        root.execute("SET GLOBAL event_scheduler = ON")
        own = server.connect(login, password, names.database)
        run(own, "CREATE TABLE t (a INT) ENGINE = InnoDB")
        run(own, "CREATE EVENT o ON SCHEDULE EVERY 1 SECOND DO INSERT INTO t VALUES (1)")
        until = time.monotonic() + 20
        while not run(own, "SELECT * FROM t LIMIT 1"):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)

        await server.grants.before_removal(names)

        root.execute(f"SELECT COUNT(*) FROM `{names.database}`.t")
        before = root.fetchall()
        await asyncio.sleep(2.5)  # long enough for two more
        root.execute(f"SELECT COUNT(*) FROM `{names.database}`.t")
        assert root.fetchall() == before
    own.close()


async def test_a_login_is_ended_although_its_procedures_kill_every_new_session(server: Server) -> None:
    """One statement that began before is no statement that a limit stops."""
    names, login, password = await server.make()
    newest = "(SELECT MAX(ID) FROM information_schema.PROCESSLIST)"
    own = server.connect(login, password, names.database)
    run(
        own,
        f"CREATE PROCEDURE p() BEGIN DECLARE new BIGINT DEFAULT 0; DECLARE last BIGINT DEFAULT {newest}; "
        "DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; "
        f"WHILE TRUE DO SET new = {newest}; IF new > last THEN KILL new; END IF; DO SLEEP(0.005); END WHILE; END",
    )
    held = [own, *(server.connect(login, password, names.database) for _ in range(2))]
    threads = [threading.Thread(target=_suppressed, args=(lambda at=at: run(at, "CALL p()"),)) for at in held[1:]]
    for thread in threads:
        thread.start()
    with server.as_root() as root:
        until = time.monotonic() + 20
        listed = "information_schema" if server.is_mariadb() else "performance_schema"
        while root.execute(f"SELECT 1 FROM {listed}.processlist WHERE USER = %s AND COMMAND = 'Query'", (login,)) < 2:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    await server.grants.end_login(names, login, None)

    assert server.sessions(login) == []
    assert refused(own, "SELECT 1")
    for thread in threads:
        thread.join()
