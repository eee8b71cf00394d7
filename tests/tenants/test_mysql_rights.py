"""What the logins of a tenant may do on MySQL, and who else may do something in its schema."""

from __future__ import annotations

import threading

import pymysql
import pytest

from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.mysql import MySQLServer
from aiodbclient.tenants._servers.server import Work
from aiodbclient.tenants.errors import GrantError

from ..mysql import run
from .mysql_servers import DENIED, Server, refused, server, until
from .problems import kinds, kinds_of
from .tenant import Tenant

__all__ = ["server"]

_used = iter(range(10**6))

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
    "CREATE TABLE {new} (a INT PRIMARY KEY)",
    "ALTER TABLE t2 ADD COLUMN {new} INT DEFAULT 1",
    "CREATE INDEX {new} ON t2 (a)",
    "CREATE VIEW {new} AS SELECT 1",
    "CREATE FUNCTION {new}() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE PROCEDURE {new}() BEGIN END",
    "CREATE TRIGGER {new} BEFORE INSERT ON t FOR EACH ROW SET NEW.a = NEW.a",
    "CREATE EVENT {new} ON SCHEDULE EVERY 1 YEAR DO DO 1",
    "CREATE TEMPORARY TABLE {new} (a INT PRIMARY KEY)",
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
    "CREATE TABLE {other}.n (a INT PRIMARY KEY)",
    "USE {other}",
    "DROP DATABASE {other}",
)
MAY = {Role.OWNER: (*READ, *WRITE, *OWN), Role.WRITER: (*READ, *WRITE), Role.READER: (*READ, "SHOW CREATE VIEW v")}
MAY_NOT = {Role.OWNER: NOBODY, Role.WRITER: (*OWN, *NOBODY), Role.READER: (*WRITE, *OWN, *NOBODY)}


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_do_what_the_table_says_and_nothing_else(server: Server, role: Role) -> None:
    """Statement by statement, before and after its rights were mended, for both logins."""
    owner, owning, password = await server.make()
    other, *_ = await server.make()
    with server.as_root() as cursor:
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        cursor.execute(f"CREATE TABLE `{other.database}`.t (a INT PRIMARY KEY)")
    own = server.connect(owning, password, owner.database)
    for statement in (
        "CREATE TABLE t (a INT PRIMARY KEY)",
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE PROCEDURE p() SELECT 1",
        "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1",
    ):
        run(own, statement)
    logins = dict([await server.add(owner, role), await server.add(owner, role)])
    for turn in range(2):
        for name, secret in logins.items():
            run(own, "CREATE TABLE IF NOT EXISTS t2 (a INT PRIMARY KEY)")
            for number, statement in enumerate(MAY_NOT[role]):
                values = {"new": f"n{next(_used)}", "schema": owner.database, "other": other.database}
                tried = server.connect(name, secret, owner.database)
                assert refused(tried, statement.format(**values)) in DENIED, (turn, number, statement)
                tried.close()
            for statement in MAY[role]:
                tried = server.connect(name, secret, owner.database)
                run(tried, statement.format(new=f"n{next(_used)}"))
                tried.close()
        assert await owner.problems() == frozenset()
        await owner.repair()
    own.close()
    values = {"new": f"n{next(_used)}", "schema": owner.database, "other": other.database}
    with server.as_root() as root:  # the control: who may do all that is refused nothing
        for statement in NOBODY:
            if not statement.startswith("ALTER USER"):  # the other tests need doadmin's password
                root.execute(statement.format(**values))
        root.execute("DROP DATABASE {new}".format(**values))
        root.execute("DROP USER {new}".format(**values))


async def test_other_rights_of_a_login_are_found_and_revoked(server: Server) -> None:
    tenant, login, password = await server.make()
    other, *_ = await server.make()
    schema = other.database
    with server.as_root() as root:
        root.execute(f"CREATE TABLE `{schema}`.t (a INT PRIMARY KEY)")
        for statement in (
            f"GRANT SELECT ON `{schema}`.* TO %s@'%%'",
            f"GRANT SELECT (a) ON `{schema}`.t TO %s@'%%'",
            "GRANT SELECT ON `h%%`.* TO %s@'%%'",
            "GRANT PROCESS ON *.* TO %s@'%%'",
        ):
            root.execute(statement, (login,))
            assert kinds_of(await tenant.problems()) == {ProblemKind.TOO_MANY_RIGHTS}, statement
            await tenant.repair()
            assert await tenant.problems() == frozenset()
        with server.as_doadmin() as doadmin:
            doadmin.execute(f"CREATE ROLE r{login}")
            doadmin.execute(f"GRANT r{login} TO %s@'%%'", (login,))
        assert kinds_of(await tenant.problems()) == {ProblemKind.TOO_MANY_RIGHTS}
        await tenant.repair()
        assert await tenant.problems() == frozenset()
        root.execute(f"DROP ROLE r{login}")
        root.execute(f"REVOKE INSERT ON `{server.in_grant(tenant.names)}`.* FROM %s@'%%'", (login,))
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    await tenant.repair()
    own = server.connect(login, password, tenant.database)
    assert refused(own, f"SELECT * FROM `{schema}`.t") in DENIED
    own.close()


async def test_rights_of_others_on_the_schema_are_revoked(server: Server) -> None:
    """By hand, on a table, on a routine, to everybody: left from a tenant of the same name, or made in advance."""
    tenant, *_ = await server.make()
    _, other, password = await server.make()
    schema = f"`{tenant.database}`"
    with server.as_root() as root:
        root.execute(f"CREATE TABLE {schema}.t (a INT PRIMARY KEY, b INT)")
        root.execute(f"CREATE PROCEDURE {schema}.p() SELECT 1")
        for statement in (
            f"GRANT ALL ON `{server.in_grant(tenant.names)}`.* TO %s@'%%' WITH GRANT OPTION",
            f"GRANT SELECT, INSERT ON {schema}.t TO %s@'%%'",
            f"GRANT SELECT (b) ON {schema}.t TO %s@'%%'",
            f"GRANT EXECUTE ON PROCEDURE {schema}.p TO %s@'%%'",
        ):
            root.execute(statement, (other,))
    assert await tenant.problems() == kinds(ProblemKind.OPEN_TO_OTHERS)
    stranger = server.connect(other, password)
    statements = (f"SELECT * FROM {schema}.t", f"CALL {schema}.p()", f"SELECT b FROM {schema}.t")
    for statement in statements:
        run(stranger, statement)
    stranger.close()

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    stranger = server.connect(other, password)
    for statement in statements:
        assert refused(stranger, statement) in DENIED
    stranger.close()


async def test_rights_that_were_given_before_a_schema_was_made_open_nothing(server: Server) -> None:
    """A tenant's name is known before it signs up."""
    _, early, password = await server.make()
    tenant = Tenant(server.sql, names_of(f"r{next(_used)}_late", "mysql"))
    with server.as_root() as root:
        root.execute(f"GRANT ALL ON `{server.in_grant(tenant.names)}`.* TO %s@'%%'", (early,))

    await tenant.steps.create()

    session = server.connect(early, password)
    assert refused(session, f"CREATE TABLE `{tenant.database}`.t (a INT PRIMARY KEY)") in DENIED
    session.close()


async def test_a_pattern_that_was_there_before_a_schema_was_made_is_refused_each_time(server: Server) -> None:
    """Otherwise the second try found the schema that the first one had made, and left it open."""
    _, early, _ = await server.make()
    tenant = Tenant(server.sql, names_of(f"r{next(_used)}_late", "mysql"))
    if server.in_grant(tenant.names) == tenant.database:
        pytest.skip("this server takes the name of a schema as it is")
    pattern = f"`{tenant.names.tenant[:-2]}%%`.*"
    with server.as_root() as root:
        root.execute(f"GRANT ALL ON {pattern} TO %s@'%%'", (early,))
        for _ in range(2):
            with pytest.raises(GrantError, match=f"{early}@% has rights on the schemas that match"):
                await tenant.steps.create()
        root.execute(f"REVOKE ALL ON {pattern} FROM %s@'%%'", (early,))
    assert await tenant.steps.create()


async def test_login_that_only_looks_like_one_of_the_tenant_is_a_strangers(server: Server) -> None:
    tenant, login, _ = await server.make()
    similar = f"{login[:-1]}g"
    with server.as_root() as root:
        root.execute("CREATE USER %s@'%%'", (similar,))
        root.execute(f"GRANT SELECT ON `{server.in_grant(tenant.names)}`.* TO %s@'%%'", (similar,))
        assert await tenant.problems() == {Problem(ProblemKind.OPEN_TO_OTHERS, similar)}

        await tenant.repair()

        assert await tenant.problems() == frozenset()
        root.execute("DROP USER %s@'%%'", (similar,))


async def test_a_pattern_that_reaches_the_schema_and_others_is_refused_and_named(server: Server) -> None:
    tenant, *_ = await server.make()
    _, other, _ = await server.make()
    if server.in_grant(tenant.names) == tenant.database:
        pytest.skip("this server takes the name of a schema as it is")
    with server.as_root() as root:
        root.execute(f"GRANT SELECT ON `{tenant.names.tenant[:-2]}%%`.* TO %s@'%%'", (other,))
        assert await tenant.problems() == kinds(ProblemKind.OPEN_TO_OTHERS)
        with pytest.raises(GrantError, match=f"{other}@% has rights on the schemas that match .*REVOKE ALL PRIVILEGES"):
            await tenant.repair()
        root.execute(f"REVOKE SELECT ON `{tenant.names.tenant[:-2]}%%`.* FROM %s@'%%'", (other,))
    await tenant.repair()


async def test_account_of_the_same_name_for_one_host_is_a_strangers(server: Server) -> None:
    """Nobody ends it with the tenant's login."""
    tenant, login, _ = await server.make()
    with server.as_root() as root:
        root.execute("CREATE USER %s@localhost", (login,))
        root.execute(f"GRANT SELECT ON `{server.in_grant(tenant.names)}`.* TO %s@localhost", (login,))
        assert await tenant.problems() == {Problem(ProblemKind.OPEN_TO_OTHERS, login)}

        await tenant.repair()

        assert await tenant.problems() == frozenset()
        root.execute("DROP USER %s@localhost", (login,))


async def test_a_grant_to_the_administrator_does_not_shut_it_out(server: Server) -> None:
    """With partial_revokes=ON, REVOKE on one schema restricts whoever has the right on all of them."""
    tenant, login, password = await server.make()
    with server.as_root() as root:
        root.execute(f"GRANT SELECT ON `{server.in_grant(tenant.names)}`.* TO doadmin@'%'")

    await tenant.repair()
    await server.add(tenant)

    with server.as_doadmin() as doadmin:
        doadmin.execute(f"CREATE TABLE `{tenant.database}`.by_doadmin (a INT PRIMARY KEY)")
    own = server.connect(login, password, tenant.database)
    assert run(own, "SHOW TABLES") == [("by_doadmin",)]
    own.close()


async def test_a_tenant_cannot_raise_its_limit_of_connections(server: Server) -> None:
    tenant, login, password = await server.make()
    await until(lambda: not server.sessions(login))  # the one that ``make`` closed still counts
    own = server.connect(login, password, tenant.database)
    for statement in (
        f"ALTER USER '{login}'@'%' WITH MAX_USER_CONNECTIONS 0",
        f"ALTER USER '{login}'@'%' ACCOUNT UNLOCK",
        f"GRANT USAGE ON *.* TO '{login}'@'%' WITH MAX_USER_CONNECTIONS 0",
        "SET GLOBAL max_user_connections = 0",
        "SET SESSION max_user_connections = 0",
    ):
        refused(own, statement)
    held = [own, *(server.connect(login, password) for _ in range(server.limit - 1))]
    with pytest.raises(pymysql.MySQLError, match="max_user_connections"):
        server.connect(login, password)
    with server.as_root() as root:  # the control: without the limit it enters
        root.execute("ALTER USER %s@'%%' WITH MAX_USER_CONNECTIONS 0", (login,))
        server.connect(login, password).close()
        root.execute("ALTER USER %s@'%%' WITH MAX_USER_CONNECTIONS %s", (login, server.limit))
    await server.sql.administrator()  # gets in
    assert await tenant.problems() == frozenset()
    for each in held:
        each.close()


async def test_a_session_without_the_password_cannot_set_one(server: Server) -> None:
    """Of an application that is broken into, for example. MySQL refuses also what would lift that."""
    tenant, login, password = await server.make()
    own = server.connect(login, password, tenant.database)
    for statement, code in (
        ("SET PASSWORD = 'Mine-1-Mine'", 3892),
        ("ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine'", 3892),
        ("ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine' REPLACE 'wrong'", 3891),
        (f"ALTER USER '{login}'@'%' PASSWORD REQUIRE CURRENT OPTIONAL", 1227),
        (f"ALTER USER '{login}'@'%' IDENTIFIED BY 'Mine-1-Mine' RETAIN CURRENT PASSWORD", 1227),
    ):
        assert refused(own, statement) == code, statement
    run(own, f"ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine' REPLACE '{password}'")  # the control
    own.close()
    server.connect(login, "Mine-1-Mine").close()
    with server.as_root() as root:
        root.execute("ALTER USER %s@'%%' PASSWORD REQUIRE CURRENT OPTIONAL", (login,))
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    await tenant.repair()
    assert await tenant.problems() == frozenset()


@pytest.mark.parametrize("connections", [0, 13])
async def test_a_limit_that_is_too_high_is_reported_and_mended(server: Server, connections: int) -> None:
    tenant, login, password = await server.make()
    with server.as_root() as root:
        root.execute(f"ALTER USER %s@'%%' WITH MAX_USER_CONNECTIONS {connections}", [login])
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    higher = MySQLServer(server.doadmin, await server.cluster.ca(), connection_limit=20)
    assert await higher.problems(tenant.names, tenant.on_record) == kinds(
        *[ProblemKind.RIGHTS_MISSING] * (connections == 0)
    )

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    assert await server.sql.log_in(tenant.names, login, password) is None


async def test_a_login_may_have_a_quarter_of_the_connections(server: Server) -> None:
    without = MySQLServer(server.doadmin, await server.cluster.ca())
    tenant, login, _ = await server.make()
    await without.steps(Work(tenant.names)).repair(tenant.on_record)
    with server.as_root() as root:
        root.execute("SELECT max_user_connections, @@max_connections FROM mysql.user WHERE User = %s", (login,))
        [(limit, most)] = root.fetchall()
    assert limit == most // 4


async def test_rights_in_use_are_never_taken_while_others_are(server: Server) -> None:
    tenant, login, password = await server.make()
    other, *_ = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    own.close()
    stop, tried, failures = threading.Event(), [0], list[Exception]()

    def use() -> None:
        while not stop.is_set():
            tried[0] += 1
            try:
                session = server.connect(login, password, tenant.database)
                run(session, "SELECT * FROM t")
                session.close()
            except pymysql.MySQLError as error:
                failures.append(error)

    using = threading.Thread(target=use)
    using.start()
    with server.as_root() as root:
        rounds = 0
        while rounds < 10 or tried[0] <= 10:
            rounds += 1
            root.execute(f"GRANT SELECT ON `{server.in_grant(other.names)}`.* TO %s@'%%'", (login,))
            root.execute("GRANT PROCESS ON *.* TO %s@'%%'", (login,))
            found = await tenant.problems()
            assert {each.kind for each in found} == {ProblemKind.TOO_MANY_RIGHTS}
            await tenant.repair()
            assert await tenant.problems() == frozenset()
    stop.set()
    using.join()
    assert failures == []


async def test_what_a_reader_may_lock(server: Server) -> None:
    """MySQL asks for another right than SELECT for FOR UPDATE."""
    owner, login, password = await server.make()
    _, reading, secret = await server.make(Role.READER, like=owner)
    own = server.connect(login, password, owner.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY) ENGINE = InnoDB")
    run(own, "INSERT INTO t VALUES (1)")
    reader = server.connect(reading, secret, owner.database)
    run(own, "SET SESSION innodb_lock_wait_timeout = 1")
    for_update, in_share_mode = "SELECT * FROM t FOR UPDATE", "SELECT * FROM t LOCK IN SHARE MODE"
    for statement in ("LOCK TABLES t READ", "LOCK TABLES t WRITE", "CREATE TEMPORARY TABLE n (a INT PRIMARY KEY)"):
        assert refused(reader, statement) in DENIED
        run(own, statement)
        run(own, "UNLOCK TABLES")
    assert refused(reader, for_update) in DENIED
    run(own, for_update)
    for statement in (in_share_mode,):
        run(reader, "START TRANSACTION")
        assert run(reader, statement) == [(1,)]
        assert refused(own, "UPDATE t SET a = a") == 1205  # waits for the reader's lock
        run(reader, "ROLLBACK")
    run(own, "UPDATE t SET a = a")
    for each in (own, reader):
        each.close()


async def test_rights_that_are_missing_say_nothing_against_a_password(server: Server) -> None:
    tenant, login, password = await server.make()
    with server.as_root() as root:
        root.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", (login,))
    assert await server.sql.log_in(tenant.names, login, password) is None
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    await tenant.repair()
    own = server.connect(login, password)
    run(own, f"DROP DATABASE `{tenant.database}`")
    own.close()
    assert await server.sql.log_in(tenant.names, login, password) is None
