"""Hostile tenants on MySQL and MariaDB: what they try, with what they were given, and what the administrator does.

The administrator has the rights of a managed cluster's primary user. Logins are made by the sandbox's API, which gives
each everything in every schema, as the provider does.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
import pytest
from aiodbclient.tenants._grants import mysql_server
from aiodbclient.tenants._grants.mysql import MySQLGrants
from attrs import frozen
from pymysql.cursors import Cursor

from aiodbclient import ClusterClient, DatabaseClient, RateBudget
from aiodbclient.errors import GrantError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Problem, Role
from aiodbclient.tenants._naming import Names, names_of

from ..mysql import administrator, in_grant, run

_used = iter(range(10**6))
DENIED = (1044, 1142, 1143, 1227, 1370, 1410)


@frozen
class Server:
    """A server behind the sandbox, as the tests see it."""

    cluster: ClusterClient
    grants: MySQLGrants
    doadmin: str
    root: str
    limit: int

    async def make(self, role: Role = Role.OWNER, *, like: Names | None = None) -> tuple[Names, str, str]:
        """A tenant's schema, unless ``like`` has one, and the first login of ``role`` with its rights: its password."""
        whole = f"h{next(_used)}_x" if like is None else like.tenant
        names = names_of(whole, "mysql", role=role)
        if like is None:
            await self.cluster.dbs.create(whole)
        user = await self.cluster.users.create(names.logins[0])
        assert user.password is not None
        await self.grants.give(names, user.name)
        return names, user.name, user.password

    @contextmanager
    def as_root(self) -> Any:
        """A cursor of somebody who may do everything, which no administrator of a managed cluster may."""
        with administrator(self.root) as cursor:
            yield cursor

    @contextmanager
    def as_doadmin(self) -> Any:
        with administrator(self.doadmin) as cursor:
            yield cursor

    def connect(self, login: str, password: str, db: str | None = None) -> pymysql.Connection[Cursor]:
        options = self.grants._admin
        return pymysql.connect(
            host=options["host"],
            port=options["port"],
            user=login,
            password=password,
            database=db,
            autocommit=True,
            ssl={"check_hostname": False},
        )

    def sessions(self, login: str) -> list[int]:
        with self.as_root() as cursor:
            cursor.execute("SHOW PROCESSLIST")
            return [row[0] for row in cursor.fetchall() if row[1] == login]

    def is_mariadb(self) -> bool:
        with self.as_root() as cursor:
            cursor.execute("SELECT VERSION()")
            return "MariaDB" in cursor.fetchall()[0][0]

    def in_grant(self, names: Names) -> str:
        """The tenant's schema as GRANT takes it."""
        assert names.database is not None
        with self.as_root() as cursor:
            return in_grant(cursor, names.database)


@pytest.fixture
async def server(
    mysql_cluster: tuple[Sandbox, str], mysql: Callable[[str], str], request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    sandbox, cluster_id = mysql_cluster
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateBudget([])) as client:
        cluster = client.cluster(cluster_id)
        doadmin = await cluster.users.get("doadmin")
        uri = (await cluster.info()).connection.uri_for(doadmin)
        grants = MySQLGrants(uri, await cluster.ca(), connection_limit=12)
        yield Server(cluster, grants, uri, mysql(request.node.callspec.params["mysql_cluster"]), 12)


def refused(connection: pymysql.Connection[Cursor], statement: str) -> int:
    """The code with which the server refuses a statement."""
    with pytest.raises(pymysql.MySQLError) as error:
        run(connection, statement)
    return int(error.value.args[0])


WRITE = (
    "INSERT INTO t VALUES (2)",
    "UPDATE t SET a = a + 10 WHERE a > 1",
    "DELETE FROM t WHERE a > 10",
    "REPLACE INTO t VALUES (3)",
    "CALL p()",
    "SELECT f()",
)
READ = ("SELECT * FROM t", "SELECT * FROM v", "SHOW TABLES", "SHOW COLUMNS FROM t", "SELECT COUNT(*) FROM t")
OWN = (
    "CREATE TABLE {new} (a INT)",
    "ALTER TABLE t2 ADD COLUMN {new} INT DEFAULT 1",
    "CREATE INDEX {new} ON t2 (a)",
    "CREATE VIEW {new} AS SELECT 1",
    "CREATE FUNCTION {new}() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE PROCEDURE {new}() BEGIN END",
    "CREATE TRIGGER {new} BEFORE INSERT ON t FOR EACH ROW SET NEW.a = NEW.a",
    "CREATE EVENT {new} ON SCHEDULE EVERY 1 YEAR DO DO 1",
    "CREATE TEMPORARY TABLE {new} (a INT)",
    "LOCK TABLES t WRITE",
    "TRUNCATE TABLE t2",
    "DROP TABLE t2",
)
NOBODY = (
    "SELECT * FROM mysql.user",
    "CREATE DATABASE {new}",
    "CREATE USER {new}",
    "GRANT SELECT ON {schema}.* TO doadmin@'%'",
    "ALTER USER doadmin@'%' IDENTIFIED BY 'x'",
    "SET GLOBAL max_connections = 1000",
    "FLUSH TABLES",
    "SELECT * FROM {other}.t",
    "INSERT INTO {other}.t VALUES (1)",
    "CREATE TABLE {other}.n (a INT)",
    "DROP DATABASE {other}",
    "USE {other}",
)
MAY = {Role.OWNER: (*READ, *WRITE, *OWN), Role.WRITER: (*READ, *WRITE), Role.READER: (*READ, "SHOW CREATE VIEW v")}
MAY_NOT = {Role.OWNER: NOBODY, Role.WRITER: (*OWN, *NOBODY), Role.READER: (*WRITE, *OWN, *NOBODY)}


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_do_what_the_table_says_and_nothing_else(server: Server, role: Role) -> None:
    """Statement by statement, before and after the rights were given again, for both logins."""
    owner, owning, password = await server.make()
    other, *_ = await server.make()
    with server.as_root() as cursor:
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        cursor.execute(f"CREATE TABLE `{other.database}`.t (a INT)")
    own = server.connect(owning, password, owner.database)
    for statement in (
        "CREATE TABLE t (a INT)",
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE PROCEDURE p() SELECT 1",
        "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1",
    ):
        run(own, statement)
    names, login, password = (owner, owning, password) if role is Role.OWNER else await server.make(role, like=owner)
    second = await server.cluster.users.create(names.logins[1])
    assert second.password is not None
    for turn in range(2):
        for name, secret in ((login, password), (second.name, second.password)):
            await server.grants.give(names, name)
            assert await server.grants.log_in(names, name, secret) is None
            run(own, "CREATE TABLE IF NOT EXISTS t2 (a INT)")
            for number, statement in enumerate(MAY_NOT[role]):
                values = {"new": f"n{next(_used)}", "schema": owner.database, "other": other.database}
                tried = server.connect(name, secret, owner.database)
                assert refused(tried, statement.format(**values)) in DENIED, (turn, number, statement)
                tried.close()
            for statement in MAY[role]:
                tried = server.connect(name, secret, owner.database)
                run(tried, statement.format(new=f"n{next(_used)}"))
                tried.close()
            assert await server.grants.problems(names, [name]) == frozenset()
    own.close()


async def test_other_rights_of_a_login_are_revoked(server: Server) -> None:
    names, login, password = await server.make()
    other, *_ = await server.make()
    with server.as_root() as cursor:
        cursor.execute(f"CREATE TABLE `{other.database}`.t (a INT)")
        for statement in (
            f"GRANT SELECT ON `{other.database}`.* TO %s@'%%'",
            f"GRANT SELECT (a) ON `{other.database}`.t TO %s@'%%'",
            "GRANT SELECT ON `h%%`.* TO %s@'%%'",
            "GRANT PROCESS ON *.* TO %s@'%%'",
        ):
            assert await server.grants.problems(names, [login]) == frozenset()
            cursor.execute(statement, (login,))
            assert await server.grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}, statement
            await server.grants.give(names, login)
        if not server.is_mariadb():
            cursor.execute("GRANT ROLE_ADMIN ON *.* TO doadmin@'%'")
        with server.as_doadmin() as doadmin:
            doadmin.execute(f"CREATE ROLE r{login}")
            doadmin.execute(f"GRANT r{login} TO %s@'%%'", (login,))
        assert await server.grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}
        await server.grants.give(names, login)
        assert await server.grants.problems(names, [login]) == frozenset()
        cursor.execute(f"DROP ROLE r{login}")
        cursor.execute(f"REVOKE INSERT ON `{server.in_grant(names)}`.* FROM %s@'%%'", (login,))
    assert await server.grants.problems(names, [login]) == {Problem.RIGHTS_MISSING}
    await server.grants.give(names, login)
    own = server.connect(login, password, names.database)
    assert refused(own, f"SELECT * FROM `{other.database}`.t") in DENIED
    own.close()


async def test_rights_of_others_on_the_schema_are_revoked(server: Server) -> None:
    """By hand, on a table, on a routine, to everybody: left from a tenant of the same name, or made in advance."""
    names, login, _ = await server.make()
    _, other, password = await server.make()
    schema = f"`{names.database}`"
    with server.as_root() as cursor:
        cursor.execute(f"CREATE TABLE {schema}.t (a INT, b INT)")
        cursor.execute(f"CREATE PROCEDURE {schema}.p() SELECT 1")
        granted = [
            f"GRANT ALL ON `{server.in_grant(names)}`.* TO %s@'%%' WITH GRANT OPTION",
            f"GRANT SELECT, INSERT ON {schema}.t TO %s@'%%'",
            f"GRANT SELECT (b) ON {schema}.t TO %s@'%%'",
            f"GRANT EXECUTE ON PROCEDURE {schema}.p TO %s@'%%'",
        ]
        for statement in granted:
            cursor.execute(statement, (other,))
        found = f"{other}@%"
        if server.is_mariadb():
            cursor.execute(f"GRANT SELECT ON {schema}.t TO PUBLIC")
    public = ("PUBLIC",) if server.is_mariadb() else ()
    assert await server.grants.shut_out(names, names.logins) == (*public, found)
    assert await server.grants.problems(names, [login]) == {Problem.OPEN_TO_OTHERS}

    await server.grants.give(names, login)

    assert await server.grants.shut_out(names, names.logins) == ()
    assert await server.grants.problems(names, [login]) == frozenset()
    stranger = server.connect(other, password)
    for statement in (f"SELECT * FROM {schema}.t", f"CALL {schema}.p()", f"SELECT b FROM {schema}.t"):
        assert refused(stranger, statement) in DENIED
    stranger.close()


async def test_a_login_that_only_looks_like_one_of_the_tenant_is_a_strangers(server: Server) -> None:
    names, login, _ = await server.make()
    assert names.logins[0] == names.whole  # so that no verb makes a login with this ending
    similar = names.logins[1].removesuffix("_b") + "_a"
    with server.as_root() as cursor:
        cursor.execute("CREATE USER %s@'%%'", (similar,))
        try:
            cursor.execute(f"GRANT SELECT ON `{server.in_grant(names)}`.* TO %s@'%%'", (similar,))
            assert await server.grants.problems(names, [login]) == {Problem.OPEN_TO_OTHERS}

            await server.grants.give(names, login)

            assert await server.grants.problems(names, [login]) == frozenset()
        finally:
            cursor.execute("DROP USER %s@'%%'", (similar,))


async def test_a_pattern_that_reaches_the_schema_and_others_is_refused_and_named(server: Server) -> None:
    names, login, _ = await server.make()
    _, other, _ = await server.make()
    if server.in_grant(names) == names.database:
        pytest.skip("this server takes the name of a schema as it is")
    with server.as_root() as cursor:
        cursor.execute(f"GRANT SELECT ON `{names.tenant[:-2]}%%`.* TO %s@'%%'", (other,))
        assert await server.grants.problems(names, [login]) == {Problem.OPEN_TO_OTHERS}
        with pytest.raises(GrantError, match=f"{other}@% has rights on the schemas that match .*REVOKE ALL PRIVILEGES"):
            await server.grants.give(names, login)
        cursor.execute(f"REVOKE SELECT ON `{names.tenant[:-2]}%%`.* FROM %s@'%%'", (other,))
    await server.grants.give(names, login)


async def test_the_roles_of_a_tenant_are_no_others(server: Server) -> None:
    owner, login, _ = await server.make()
    reader, reading, password = await server.make(Role.READER, like=owner)
    await server.grants.give(owner, login)
    assert await server.grants.log_in(reader, reading, password) is None
    assert await server.grants.problems(reader, [reading]) == frozenset()
    assert await server.grants.problems(owner, [login]) == frozenset()
    assert await server.grants.shut_out(owner, owner.logins) == ()


async def test_an_account_of_the_same_name_for_one_host_is_found(server: Server) -> None:
    """Nobody would reset its password, and who has it would keep the rights."""
    names, login, _ = await server.make()
    with server.as_root() as cursor:
        cursor.execute("CREATE USER %s@localhost IDENTIFIED BY 'Planted-1'", (login,))
        assert await server.grants.problems(names, [login]) == {Problem.OPEN_TO_OTHERS}
        for act in (server.grants.give, server.grants.take_over):
            with pytest.raises(GrantError, match=f"'{login}'@'localhost'.*DROP USER"):
                await act(names, login)
        cursor.execute("DROP USER %s@localhost", (login,))
    await server.grants.give(names, login)


class Fighter:
    """Sessions of a leaked login, which set its password and kill other sessions without a pause."""

    def __init__(self, server: Server, login: str, password: str, schema: str | None) -> None:
        self._server = server
        self._stop = False
        self._connections = [server.connect(login, password, schema) for _ in range(4)]
        ours = {int(run(connection, "SELECT CONNECTION_ID()")[0][0]) for connection in self._connections}
        setter = "SET PASSWORD = PASSWORD('Mine-1-Mine')" if server.is_mariadb() else "SET PASSWORD = 'Mine-1-Mine'"
        self._threads = [
            threading.Thread(target=self._set if number % 2 else self._kill, args=(connection, ours, setter))
            for number, connection in enumerate(self._connections)
        ]

    def __enter__(self) -> Fighter:
        for thread in self._threads:
            thread.start()
        time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            with suppress(pymysql.MySQLError):
                connection.close()

    def open(self) -> int:
        return sum(connection.open for connection in self._connections)

    def _set(self, connection: pymysql.Connection[Cursor], _: set[int], setter: str) -> None:
        self._again(connection, lambda: run(connection, setter))

    def _kill(self, connection: pymysql.Connection[Cursor], ours: set[int], _: str) -> None:
        def kill() -> None:
            for row in run(connection, "SHOW PROCESSLIST"):
                if row[0] not in ours:
                    run(connection, "KILL %s", row[0])

        self._again(connection, kill)

    def _again(self, connection: pymysql.Connection[Cursor], act: Callable[[], object]) -> None:
        while not self._stop:
            try:
                act()
            except pymysql.MySQLError as error:
                if not connection.open or error.args[0] in (0, 2006, 2013):
                    return


async def test_a_login_is_ended_although_its_sessions_fight_back(server: Server) -> None:
    names, login, password = await server.make()
    with Fighter(server, login, password, names.database):
        assert len(server.sessions(login)) == 4
        secret = (await server.cluster.users.reset_auth(login)).password
        assert secret is not None

        assert await asyncio.wait_for(server.grants.end_login(names, login, secret), 30) is None

        assert server.sessions(login) == []
        for tried in (password, secret, "Mine-1-Mine", ""):
            with pytest.raises(pymysql.MySQLError):
                server.connect(login, tried)
        assert await server.grants.log_in(names, login, secret)

    again = (await server.cluster.users.reset_auth(login)).password
    assert again is not None
    await server.grants.give(names, login)  # the next rotation takes the login up again
    assert await server.grants.log_in(names, login, again) is None
    own = server.connect(login, again, names.database)
    for _ in range(3):
        assert run(own, "SELECT 1") == [(1,)]
    own.close()


async def test_an_end_that_is_cancelled_leaves_nothing_half_done(server: Server) -> None:
    names, login, password = await server.make()
    held = [server.connect(login, password) for _ in range(3)]
    for wait in (0.0, 0.005, 0.01, 0.02, 0.04):
        ending = asyncio.create_task(server.grants.end_login(names, login, password))
        await asyncio.sleep(wait)
        ending.cancel()
        with suppress(asyncio.CancelledError):
            await ending
        with server.as_root() as cursor:
            cursor.execute("SELECT Host, max_questions, max_user_connections FROM mysql.user WHERE User = %s", (login,))
            assert cursor.fetchall() == (("%", 0, server.limit),)
    await server.grants.end_login(names, login, password)
    assert server.sessions(login) == []
    for each in held:
        each.close()


async def test_locks_of_a_tenant_delay_nobody(server: Server) -> None:
    """Locked tables, open transactions, and statements that wait for them."""
    names, login, password = await server.make()
    another, name, secret = await server.make()
    held = [server.connect(login, password, names.database) for _ in range(4)]
    run(held[0], "CREATE TABLE t (a INT)")
    run(held[0], "CREATE TABLE u (a INT)")
    run(held[0], "LOCK TABLES t WRITE")
    run(held[1], "START TRANSACTION")
    run(held[1], "INSERT INTO u VALUES (1)")
    stuck = [
        threading.Thread(target=lambda at=at: suppressed(held[at], f"DROP DATABASE `{names.database}`"), daemon=True)
        for at in (2, 3)
    ]
    for thread in stuck:
        thread.start()
    await asyncio.sleep(0.2)
    started = time.monotonic()

    await asyncio.gather(
        *(server.grants.give(names, login) for _ in range(4)),
        server.grants.give(another, name),
        server.grants.log_in(another, name, secret),
        server.grants.problems(another, [name]),
    )

    assert time.monotonic() - started < 5
    await server.grants.end_login(names, login, password)
    for thread in stuck:
        thread.join()


def suppressed(connection: pymysql.Connection[Cursor], statement: str) -> None:
    with suppress(pymysql.MySQLError):
        run(connection, statement)


async def test_a_login_with_all_its_connections_in_use_is_ended(server: Server) -> None:
    names, login, password = await server.make()
    held = [server.connect(login, password) for _ in range(server.limit)]
    with pytest.raises(pymysql.MySQLError, match="max_user_connections"):
        server.connect(login, password)
    assert await server.grants.log_in(names, login, password) is None  # the server accepts the password
    assert "denied" in (await server.grants.log_in(names, login, "wrong") or "")

    await server.grants.end_login(names, login, password)

    assert server.sessions(login) == []
    for each in held:
        assert refused(each, "SELECT 1")


async def test_views_and_procedures_of_an_ended_login_go_on(server: Server) -> None:
    names, login, password = await server.make()
    own = server.connect(login, password, names.database)
    run(own, "CREATE TABLE t AS SELECT 7 AS a")
    run(own, "CREATE SQL SECURITY DEFINER VIEW v AS SELECT * FROM t")
    own.close()
    second = await server.cluster.users.create(names.logins[1])
    await server.grants.give(names, second.name)

    await server.grants.end_login(names, login, password)

    other = server.connect(second.name, second.password or "", names.database)
    assert run(other, "SELECT a FROM v") == [(7,)]
    other.close()


@pytest.mark.parametrize("hides", ["event", "procedure", "dynamic"])
async def test_an_event_that_sets_the_password_of_an_ended_login_keeps_it_locked(server: Server, hides: str) -> None:
    """Else who left it would come back with the next rotation."""
    names, login, password = await server.make()
    own = server.connect(login, password, names.database)
    setting = "set/**/PassWord = 'Mine-1-Mine'"
    if hides == "dynamic":
        run(own, "CREATE PROCEDURE p() BEGIN SET @s = 'SELECT 1'; PREPARE s FROM @s; EXECUTE s; END")
    elif hides == "procedure":
        run(own, f"CREATE PROCEDURE p() {setting}")
    every = "ON SCHEDULE EVERY 1 YEAR STARTS CURRENT_TIMESTAMP + INTERVAL 1 YEAR DO"
    run(own, f"CREATE EVENT planted {every} {setting if hides == 'event' else 'CALL p()'}")
    run(own, f"CREATE EVENT harmless {every} DELETE FROM t")
    await server.grants.give(names, login)  # it is in use: its events are its own
    await server.grants.end_login(names, login, password)

    with pytest.raises(GrantError, match=f"'planted' runs as the login '{login}'.*DROP EVENT"):
        await server.grants.give(names, login)

    password = (await server.cluster.users.reset_auth(login)).password or ""
    assert "locked" in (await server.grants.log_in(names, login, password) or "")
    with server.as_doadmin() as cursor:
        cursor.execute(f"DROP EVENT `{names.database}`.planted")
    await server.grants.give(names, login)
    assert await server.grants.log_in(names, login, password) is None


async def test_a_tenant_cannot_raise_its_limit_of_connections(server: Server) -> None:
    names, login, password = await server.make()
    own = server.connect(login, password, names.database)
    for statement in (
        f"ALTER USER '{login}'@'%' WITH MAX_USER_CONNECTIONS 0",
        f"GRANT USAGE ON *.* TO '{login}'@'%' WITH MAX_USER_CONNECTIONS 0",
        "SET GLOBAL max_user_connections = 0",
        "SET SESSION max_user_connections = 0",
    ):
        refused(own, statement)
    held = [own, *(server.connect(login, password) for _ in range(server.limit - 1))]
    with pytest.raises(pymysql.MySQLError, match="max_user_connections"):
        server.connect(login, password)
    await server.grants.check()  # the administrator gets in
    for each in held:
        each.close()


async def test_sessions_of_a_login_that_was_deleted_are_ended(server: Server) -> None:
    """The provider may end none. They would make the schema again, and plant tables for the next tenant."""
    names, login, password = await server.make()
    own = server.connect(login, password, names.database)
    with server.as_root() as cursor:
        cursor.execute("DROP USER %s@'%%'", (login,))
        assert run(own, "SELECT 1") == [(1,)]
        cursor.execute(f"DROP DATABASE `{names.database}`")

        await server.grants.forget(names)

        assert server.sessions(login) == []
        assert refused(own, "SELECT 1")
        cursor.execute("SELECT Host FROM mysql.user WHERE User = %s", (login,))
        assert cursor.fetchall() == ()
        cursor.execute("SELECT User FROM mysql.db WHERE %s LIKE Db", (names.database,))
        assert cursor.fetchall() == ()


async def test_removal_ends_all_sessions_before_the_schema_goes(server: Server) -> None:
    names, login, password = await server.make()
    with Fighter(server, login, password, names.database):
        await asyncio.wait_for(server.grants.before_removal(names), 30)
        assert server.sessions(login) == []
        with pytest.raises(pymysql.MySQLError):
            server.connect(login, "Mine-1-Mine")


async def test_a_prepared_transaction_does_not_keep_the_schema(server: Server) -> None:
    names, login, password = await server.make()
    other, *_ = await server.make()
    with server.as_root() as cursor:
        if not server.is_mariadb():
            cursor.execute("GRANT XA_RECOVER_ADMIN ON *.* TO doadmin@'%'")
        for schema in (names.database, other.database):
            cursor.execute(f"CREATE TABLE `{schema}`.t (a INT) ENGINE = InnoDB")
    own = server.connect(login, password, names.database)
    other_xid = f"'other-{other.tenant}'"
    with server.as_root() as somebody:  # whose session stays open
        somebody.execute(f"XA START {other_xid}")
        somebody.execute(f"INSERT INTO `{other.database}`.t VALUES (1)")
        somebody.execute(f"XA END {other_xid}")
        somebody.execute(f"XA PREPARE {other_xid}")
        run(own, "XA START 'it''s',X'00ff25',7")
        run(own, "INSERT INTO t VALUES (1)")
        run(own, "XA END 'it''s',X'00ff25',7")
        run(own, "XA PREPARE 'it''s',X'00ff25',7")
        own.close()

        await server.grants.before_removal(names)

        with server.as_root() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = 2")
            cursor.execute(f"DROP DATABASE `{names.database}`")
        somebody.execute(f"XA COMMIT {other_xid}")
    await server.grants.before_removal(names)  # safe to repeat, when the schema is gone


async def test_sessions_that_were_open_before_an_adoption_are_ended(server: Server) -> None:
    """They have rights everywhere, and would give them back to the login."""
    names = names_of(f"h{next(_used)}_x", "mysql")
    login, schema = names.logins[0], names.database
    assert schema is not None
    await server.cluster.dbs.create(schema)
    user = await server.cluster.users.create(login)
    assert user.password is not None
    before = server.connect(login, user.password)
    run(before, "CREATE USER IF NOT EXISTS probe@'%'")
    run(before, "DROP USER probe@'%'")

    await server.grants.take_over(names, login)
    await server.grants.give(names, login)

    assert refused(before, f"GRANT ALL ON *.* TO '{login}'@'%'")
    until = time.monotonic() + 5
    while server.sessions(login):  # the one that killed the others is still logging out
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
    assert await server.grants.log_in(names, login, user.password) is None  # it keeps its password
    assert (await server.cluster.users.get(login)).password == user.password
    assert await server.grants.problems(names, [login]) == frozenset()


async def test_a_schema_that_is_kept_is_open_to_the_administrator_alone(server: Server) -> None:
    names, login, password = await server.make()
    _, reading, reader_password = await server.make(Role.READER, like=names)
    _, other, _ = await server.make()
    own = server.connect(login, password, names.database)
    run(own, "CREATE TABLE t AS SELECT 1 AS a")
    own.close()
    with server.as_root() as cursor:
        cursor.execute(f"GRANT SELECT ON `{names.database}`.t TO %s@'%%'", (other,))

    await server.grants.release(names)

    assert await server.grants.shut_out(names, names.logins) == ()
    for who, secret in ((login, password), (reading, reader_password)):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            server.connect(who, secret, names.database)
    with server.as_doadmin() as cursor:
        cursor.execute(f"SELECT a FROM `{names.database}`.t")
        assert cursor.fetchall() == ((1,),)


async def test_a_statement_that_is_blocked_ends_and_leaves_no_session(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, login, _ = await server.make()
    monkeypatch.setattr(mysql_server, "STATEMENT_SECONDS", 1)
    monkeypatch.setattr(mysql_server, "LOCK_SECONDS", 1)
    with server.as_root() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        started = time.monotonic()
        with pytest.raises(GrantError, match=r"no answer within 1 seconds|Lock wait timeout"):
            await server.grants.give(names, login)
        assert time.monotonic() - started < 5
        cursor.execute("UNLOCK TABLES")
    await server.grants.give(names, login)


async def test_a_cancelled_statement_leaves_no_session(server: Server) -> None:
    names, login, _ = await server.make()
    with server.as_root() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        before = set(server.sessions("doadmin"))
        giving = asyncio.create_task(server.grants.give(names, login))
        while not set(server.sessions("doadmin")) - before:
            await asyncio.sleep(0.01)
        giving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await giving
        cursor.execute("UNLOCK TABLES")
    until = time.monotonic() + 5
    while set(server.sessions("doadmin")) - before and time.monotonic() < until:
        await asyncio.sleep(0.05)
    assert not set(server.sessions("doadmin")) - before


async def test_an_answer_that_does_not_come_is_an_error_after_its_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_server, "STATEMENT_SECONDS", 0.2)
    async with server.grants._administrator() as session:
        with pytest.raises(GrantError, match=r"no answer within 0.2 seconds"):
            await session.rows("SELECT SLEEP(5)", tenant="alpha")


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\xff\x10\x04#08004Too many connections", "Too many connections"),
        (b"\xff\x69\x04Host is blocked", "Host is blocked"),
        (b"", "connect"),
        (b"nonsense that is no handshake\0", ""),
    ],
)
async def test_a_server_that_is_away_is_no_refused_password(packet: bytes, message: str) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if packet:
            writer.write(len(packet).to_bytes(3, "little") + b"\0" + packet)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as away:
        port = away.sockets[0].getsockname()[1]
        grants = MySQLGrants(f"mysql://doadmin:s3cret-of-doadmin@127.0.0.1:{port}/", None)
        with pytest.raises(GrantError, match=f"could not be tested: .*{message}") as error:
            await grants.log_in(names_of("alpha", "mysql"), "alpha", "s3cret-of-alpha")
        assert "s3cret" not in str(error.value)
        with pytest.raises(GrantError, match="cannot log in"):
            await grants.check()


async def test_rights_or_a_schema_that_are_missing_say_nothing_against_a_password(server: Server) -> None:
    """Else a tenant that drops its schema could not be rotated, and one whose rights are missing lost its password."""
    names, login, password = await server.make()
    with server.as_root() as cursor:
        cursor.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", (login,))
    assert await server.grants.accepts(names, login, password) is None
    with pytest.raises(GrantError, match="accepted with its password, but its rights do not open the schema"):
        await server.grants.log_in(names, login, password)
    await server.grants.give(names, login)
    own = server.connect(login, password)
    run(own, f"DROP DATABASE `{names.database}`")
    own.close()
    for test in (server.grants.accepts, server.grants.log_in):
        assert await test(names, login, password) is None
        assert "denied" in (await test(names, login, "wrong") or "")
