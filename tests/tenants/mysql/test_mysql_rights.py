"""What the logins of a tenant may do on MySQL, and who else may do something in its schema."""

from __future__ import annotations

from contextlib import closing

import pymysql
import pytest

from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers import BaseTenant
from aiodbclient.tenants._servers.mysql import MySQLServer
from aiodbclient.tenants.errors import GrantError

from ...mysql import administrator, run
from ...waiting import until
from ..mysql_servers import DENIED, Server, refused, server
from ..problems import kinds, kinds_of
from ..tenant import Tenant

__all__ = ["server"]

_used = iter(range(10**6))

WRITE = (
    "INSERT INTO t VALUES (2)",
    "UPDATE t SET a = a + 10 WHERE a > 1",
    "DELETE FROM t WHERE a > 10",
    "REPLACE INTO t VALUES (3)",
)
READ = ("SELECT * FROM t", "SELECT * FROM v", "SHOW TABLES", "SHOW COLUMNS FROM t", "SELECT COUNT(*) FROM t")
OWN = (
    "CREATE TABLE {new} (a INT PRIMARY KEY)",
    "ALTER TABLE t2 ADD COLUMN {new} INT DEFAULT 1",
    "CREATE INDEX {new} ON t2 (a)",
    "CREATE VIEW {new} AS SELECT 1",
    "CREATE TEMPORARY TABLE {new} (a INT PRIMARY KEY)",
    "LOCK TABLES t WRITE",
    "TRUNCATE TABLE t2",
    "DROP TABLE t2",
)
# A program runs on after its login has ended, and locks what it names without a right: rows of others, and accounts.
PROGRAMS = {
    "spells rows in the names of locks, for a neighbour to read": "CREATE EVENT {new} ON SCHEDULE EVERY 1 SECOND DO DO "
    "GET_LOCK(CONCAT('covert', (SELECT MAX(a) FROM t)), 0)",
    "stops every change of accounts, in an idle transaction": "CREATE FUNCTION {new}(a INT) RETURNS INT DETERMINISTIC "
    "BEGIN IF a = 1 THEN UPDATE mysql.user SET User = User; END IF; RETURN a; END",
    "goes on in a half-open login": "CREATE PROCEDURE {new}() BEGIN WHILE TRUE DO INSERT INTO t VALUES (RAND()); "
    "END WHILE; END",
    "runs as its definer": "CREATE TRIGGER {new} BEFORE INSERT ON t FOR EACH ROW SET NEW.a = NEW.a",
}
NOBODY = (
    *PROGRAMS.values(),
    "CALL p()",
    "SELECT f()",
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
async def test_what_each_role_may_do(server: Server, role: Role) -> None:
    """Statement by statement, before and after its rights were mended, for both logins."""
    other, *_ = await server.make()
    server.as_root(f"CREATE TABLE `{other.database}`.t (a INT PRIMARY KEY)")
    owner, *_, own = await server.enter("CREATE TABLE t (a INT PRIMARY KEY)", "CREATE VIEW v AS SELECT * FROM t")
    for routine in ("PROCEDURE `{}`.p() SELECT 1", "FUNCTION `{}`.f() RETURNS INT DETERMINISTIC RETURN 1"):
        server.as_root(f"CREATE {routine.format(owner.database)}")
    logins = dict([await server.add(owner, role), await server.add(owner, role)])

    def filled_in(statement: str) -> str:
        return statement.format(new=f"n{next(_used)}", schema=owner.database, other=other.database)

    for turn in range(2):
        for name, secret in logins.items():
            run(own, "CREATE TABLE IF NOT EXISTS t2 (a INT PRIMARY KEY)")
            with closing(server.connect(name, secret, owner.database)) as tried:
                for number, statement in enumerate(MAY_NOT[role]):
                    assert refused(tried, filled_in(statement)) in DENIED, (turn, number, statement)
            for statement in MAY[role]:
                with closing(server.connect(name, secret, owner.database)) as tried:
                    run(tried, filled_in(statement))
        assert await owner.problems() == frozenset()
        await owner.repair()
    last = next(_used)
    with administrator(server.root) as root:  # the control: who may do all that is refused nothing
        root.execute(f"USE `{owner.database}`")
        for statement in NOBODY:
            if not statement.startswith("ALTER USER"):  # the other tests need doadmin's password
                root.execute(statement.format(new=f"n{last}", schema=owner.database, other=other.database))
    server.as_root(f"DROP DATABASE n{last}")
    server.as_root(f"DROP USER n{last}")


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT SELECT ON `{schema}`.* TO {login}",
        "GRANT SELECT (a) ON `{schema}`.t TO {login}",
        "GRANT SELECT ON `h%`.* TO {login}",
        "GRANT PROCESS ON *.* TO {login}",
        "GRANT {role} TO {login}",
    ],
)
async def test_other_rights_of_login_found_and_revoked(server: Server, grant: str) -> None:
    tenant, login, password = await server.make()
    other, *_ = await server.make()
    server.as_root(f"CREATE TABLE `{other.database}`.t (a INT PRIMARY KEY)")
    with server.as_doadmin() as doadmin:
        doadmin.execute(f"CREATE ROLE r{login}")
    server.as_root(grant.format(schema=other.database, login=f"'{login}'", role=f"r{login}"))
    assert kinds_of(await tenant.problems()) == {ProblemKind.TOO_MANY_RIGHTS}

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    assert refused(server.connect(login, password), f"SELECT * FROM `{other.database}`.t") in DENIED
    server.as_root(f"DROP ROLE r{login}")


async def test_session_in_anothers_schema_is_ended(server: Server) -> None:
    """It keeps the rights that ``repair`` revokes, because MySQL reads them when it enters the schema."""
    tenant, login, password, own = await server.enter()
    other, *_ = await server.make()
    server.grant("ALL", other.names, login)
    inside = server.connect(login, password, other.database)
    run(inside, "CREATE TABLE early (a INT PRIMARY KEY)")

    await tenant.repair()

    assert refused(inside, "CREATE TABLE late (a INT PRIMARY KEY)")
    assert run(own, "SELECT 1") == [(1,)]


async def test_open_session_keeps_rights_on_all_schemas(server: Server) -> None:
    """MySQL reads these when a session logs in. The tenant's programs use such sessions, so only its end ends them."""
    tenant, login, password = await server.make()
    other, *_ = await server.make()
    read = f"SELECT * FROM `{other.database}`.t"
    server.as_root(f"CREATE TABLE `{other.database}`.t (a INT PRIMARY KEY)")
    server.as_root("GRANT SELECT ON *.* TO %s@'%%'", login)
    held = server.connect(login, password)

    await tenant.repair()

    assert run(held, read) == []
    assert refused(server.connect(login, password), read) in DENIED
    await tenant.end(login)
    assert refused(held, read)


async def test_rights_of_others_on_the_schema_are_revoked(server: Server) -> None:
    """By hand, on a table, on a routine, to everybody: left from a tenant of the same name, or made in advance."""
    tenant, *_ = await server.make()
    _, other, password = await server.make()
    schema = f"`{tenant.database}`"
    server.as_root(f"CREATE TABLE {schema}.t (a INT PRIMARY KEY, b INT)")
    server.as_root(f"CREATE PROCEDURE {schema}.p() SELECT 1")
    for statement in (
        f"GRANT ALL ON `{server.in_grant(tenant.names)}`.* TO %s@'%%' WITH GRANT OPTION",
        f"GRANT SELECT, INSERT ON {schema}.t TO %s@'%%'",
        f"GRANT SELECT (b) ON {schema}.t TO %s@'%%'",
        f"GRANT EXECUTE ON PROCEDURE {schema}.p TO %s@'%%'",
    ):
        server.as_root(statement, other)
    assert await tenant.problems() == kinds(ProblemKind.OPEN_TO_OTHERS)
    stranger = server.connect(other, password)
    statements = (f"SELECT * FROM {schema}.t", f"CALL {schema}.p()", f"SELECT b FROM {schema}.t")
    for statement in statements:
        run(stranger, statement)

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    stranger = server.connect(other, password)
    for statement in statements:
        assert refused(stranger, statement) in DENIED


async def test_rights_given_before_schema_open_nothing(server: Server) -> None:
    """A tenant's name is known before it signs up."""
    _, early, password = await server.make()
    tenant = Tenant(server.sql, names_of(f"r{next(_used)}_late", "mysql"))
    server.grant("ALL", tenant.names, early)

    await tenant.steps.create()

    session = server.connect(early, password)
    assert refused(session, f"CREATE TABLE `{tenant.database}`.t (a INT PRIMARY KEY)") in DENIED


@pytest.mark.parametrize("is_early", [True, False], ids=["before", "after"])
async def test_pattern_for_other_schemas_is_refused_and_named(server: Server, is_early: bool) -> None:
    """Also each time before the schema is made: the second try would find the one of the first, and leave it open."""
    _, other, _ = await server.make()
    tenant = Tenant(server.sql, names_of(f"r{next(_used)}_late", "mysql"))
    if server.in_grant(tenant.names) == tenant.database:
        pytest.skip("this server takes the name of a schema as it is")
    if not is_early:
        await tenant.steps.create()
    pattern = f"`{tenant.names.tenant[:-2]}%%`.*"
    server.as_root(f"GRANT SELECT ON {pattern} TO %s@'%%'", other)
    assert await tenant.problems() == kinds(ProblemKind.OPEN_TO_OTHERS)
    for _ in range(2):
        with pytest.raises(GrantError, match=f"{other}@% has rights on the schemas that match .*REVOKE ALL PRIVILEGES"):
            await (tenant.steps.create() if is_early else tenant.repair())
    server.as_root(f"REVOKE SELECT ON {pattern} FROM %s@'%%'", other)
    assert await tenant.steps.create() == is_early
    await tenant.repair()


@pytest.mark.parametrize("account", ["'{similar}'@'%'", "'{login}'@localhost"], ids=["similar name", "one host"])
async def test_account_like_a_login_is_a_strangers(server: Server, account: str) -> None:
    """Nobody ends it with the tenant's login, whose sessions go on."""
    tenant, login, _, own = await server.enter()
    similar = f"{login[:-1]}g"
    account = account.format(login=login, similar=similar)
    server.as_root(f"CREATE USER {account}")
    server.as_root(f"GRANT SELECT ON `{server.in_grant(tenant.names)}`.* TO {account}")
    named = similar if similar in account else login
    assert await tenant.problems() == {Problem(ProblemKind.OPEN_TO_OTHERS, named)}

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    assert run(own, "SELECT 1") == [(1,)]
    server.as_root(f"DROP USER {account}")


async def test_grant_to_administrator_does_not_lock_it_out(server: Server) -> None:
    """With partial_revokes=ON, REVOKE on one schema restricts whoever has the right on all of them."""
    tenant, login, password = await server.make()
    server.grant("SELECT", tenant.names, "doadmin")

    await tenant.repair()
    await server.add(tenant)

    with server.as_doadmin() as doadmin:
        doadmin.execute(f"CREATE TABLE `{tenant.database}`.by_doadmin (a INT PRIMARY KEY)")
    assert run(server.connect(login, password, tenant.database), "SHOW TABLES") == [("by_doadmin",)]


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
    for _ in range(server.limit - 1):
        server.connect(login, password)
    with pytest.raises(pymysql.MySQLError, match="max_user_connections"):
        server.connect(login, password)
    server.as_root("ALTER USER %s@'%%' WITH MAX_USER_CONNECTIONS 0", login)  # the control: without it, it enters
    server.connect(login, password).close()
    server.as_root("ALTER USER %s@'%%' WITH MAX_USER_CONNECTIONS %s", login, server.limit)
    await server.sql.administrator()  # gets in
    assert await tenant.problems() == frozenset()


async def test_a_session_without_the_password_cannot_set_one(server: Server) -> None:
    """Of an application that is broken into, for example. MySQL refuses also what would lift that."""
    tenant, login, password, own = await server.enter()
    for statement, code in (
        ("SET PASSWORD = 'Mine-1-Mine'", 3892),
        ("ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine'", 3892),
        ("ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine' REPLACE 'wrong'", 3891),
        (f"ALTER USER '{login}'@'%' PASSWORD REQUIRE CURRENT OPTIONAL", 1227),
        (f"ALTER USER '{login}'@'%' IDENTIFIED BY 'Mine-1-Mine' RETAIN CURRENT PASSWORD", 1227),
    ):
        assert refused(own, statement) == code, statement
    run(own, f"ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine' REPLACE '{password}'")  # the control
    server.connect(login, "Mine-1-Mine")
    server.as_root("ALTER USER %s@'%%' PASSWORD REQUIRE CURRENT OPTIONAL", login)
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    await tenant.repair()
    assert await tenant.problems() == frozenset()


@pytest.mark.parametrize("connections", [0, 13])
async def test_limit_that_is_too_high_is_repaired(server: Server, connections: int) -> None:
    tenant, login, password = await server.make()
    server.as_root(f"ALTER USER %s@'%%' WITH MAX_USER_CONNECTIONS {connections}", login)
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    higher = MySQLServer(server.doadmin, await server.cluster.ca(), connection_limit=20)
    found = await higher.problems(tenant.names, tenant.on_record)
    assert found == kinds(*[ProblemKind.RIGHTS_MISSING] * (connections == 0))

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    assert await server.sql.log_in(tenant.names, login, password) is None


async def test_login_may_have_a_tenth_of_connections(server: Server) -> None:
    without = MySQLServer(server.doadmin, await server.cluster.ca())
    tenant, login, _ = await server.make()
    await without.steps(BaseTenant(tenant.names)).repair(tenant.on_record)
    limits = "SELECT max_user_connections, @@max_connections FROM mysql.user WHERE User = %s"
    [(limit, most)] = server.as_root(limits, login)
    assert limit == max(2, most // 10)


async def test_rights_in_use_stay_while_others_are_taken(server: Server) -> None:
    tenant, login, password, _ = await server.enter("CREATE TABLE t (a INT PRIMARY KEY)")
    other, *_ = await server.make()
    rounds = 0
    with server.repeated("SELECT * FROM t", login, password, tenant.database) as (tried, failures):
        while rounds < 10 or tried[0] <= 10:
            rounds += 1
            server.grant("SELECT", other.names, login)
            server.as_root("GRANT PROCESS ON *.* TO %s@'%%'", login)
            assert kinds_of(await tenant.problems()) == {ProblemKind.TOO_MANY_RIGHTS}
            await tenant.repair()
            assert await tenant.problems() == frozenset()
    assert failures == []


async def test_what_a_reader_may_lock(server: Server) -> None:
    """MySQL asks for another right than SELECT for FOR UPDATE."""
    owner, *_, own = await server.enter("CREATE TABLE t (a INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    reader = server.connect(*await server.add(owner, Role.READER), owner.database)
    run(own, "SET SESSION innodb_lock_wait_timeout = 1")
    for statement in ("LOCK TABLES t READ", "LOCK TABLES t WRITE", "CREATE TEMPORARY TABLE n (a INT PRIMARY KEY)"):
        assert refused(reader, statement) in DENIED
        run(own, statement)
        run(own, "UNLOCK TABLES")
    for_update = "SELECT * FROM t FOR UPDATE"
    assert refused(reader, for_update) in DENIED
    run(own, for_update)
    run(reader, "START TRANSACTION")
    assert run(reader, "SELECT * FROM t LOCK IN SHARE MODE") == [(1,)]
    assert refused(own, "UPDATE t SET a = a") == 1205  # waits for the reader's lock
    run(reader, "ROLLBACK")
    run(own, "UPDATE t SET a = a")


async def test_missing_rights_say_nothing_against_password(server: Server) -> None:
    tenant, login, password = await server.make()
    server.as_root("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", login)
    assert await server.sql.log_in(tenant.names, login, password) is None
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)
    await tenant.repair()
    run(server.connect(login, password), f"DROP DATABASE `{tenant.database}`")
    assert await server.sql.log_in(tenant.names, login, password) is None
