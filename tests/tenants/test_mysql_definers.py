"""Code of a tenant on MySQL runs as the login that made it: what that means for its end."""

from __future__ import annotations

import asyncio

import pymysql
import pytest
from pymysql.cursors import Cursor

from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._servers.server import Found
from aiodbclient.tenants.errors import GrantError

from ..mysql import run
from .mysql_servers import DENIED, Server, refused, server, suppressed, until
from .problems import kinds
from .tenant import Tenant
from .test_mysql_ending import begin_login

__all__ = ["server"]

_used = iter(range(10**6))
CODE = {
    "PROCEDURE": "CREATE PROCEDURE o() SELECT 1",
    "FUNCTION": "CREATE FUNCTION o() RETURNS INT DETERMINISTIC RETURN 1",
    "VIEW": "CREATE VIEW o AS SELECT * FROM t",
    "TRIGGER": "CREATE TRIGGER o BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
    "EVENT": "CREATE EVENT o ON SCHEDULE EVERY 1 YEAR STARTS NOW() + INTERVAL 1 YEAR DO DELETE FROM t",
}


async def with_code(server: Server, kind: str) -> tuple[Tenant, str, Secret, pymysql.Connection[Cursor]]:
    """A tenant with a login that is connected and has made the object ``o``."""
    tenant, login, password = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    run(own, CODE[kind])
    return tenant, login, password, own


@pytest.mark.parametrize("kind", CODE)
async def test_code_of_an_ended_login_goes_on_and_holds_up_its_drop_alone(server: Server, kind: str) -> None:
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    tenant, login, _, own = await with_code(server, kind)
    second, secret = await server.add(tenant)
    other = server.connect(second, secret, tenant.database)

    assert not await tenant.end(login)

    assert refused(own, "SELECT 1")
    assert await server.sql.find(tenant.names) == Found(database=True, logins=(second,), ended=(login,))
    assert await tenant.problems() == frozenset()
    run(other, "INSERT INTO t VALUES (2)")
    if kind == "VIEW":
        assert run(other, "SELECT * FROM o") == [(2,)]
    run(other, f"DROP {kind} o")
    assert await tenant.end(login)
    other.close()


async def test_rights_of_code_are_missing_until_repaired(server: Server) -> None:
    """As after a process that died before it gave them back."""
    tenant, login, *_ = await with_code(server, "VIEW")
    second, secret = await server.add(tenant)
    await tenant.steps.end_logins([login])
    del tenant.on_record[login]
    other = server.connect(second, secret, tenant.database)
    assert refused(other, "SELECT * FROM o")
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    assert run(other, "SELECT * FROM o") == []
    other.close()


async def test_half_open_login_that_code_runs_as_enters_until_repaired(server: Server) -> None:
    """It is the one case in which an ended login has rights. ``check`` sees its session."""
    tenant, login, password, own = await with_code(server, "VIEW")
    await server.add(tenant)
    slow, connecting = await begin_login(server, login, password)
    try:
        assert not await tenant.end(login)
        assert await tenant.problems() == frozenset()
    finally:
        slow.go.set()
    await connecting
    assert await tenant.problems() == {Problem(ProblemKind.UNKNOWN_LOGIN, login)}

    await tenant.repair()

    assert refused(slow, "SELECT 1")
    assert await tenant.problems() == frozenset()
    for each in (own, slow):
        suppressed(each.close)


async def test_half_open_login_of_the_api_keeps_its_rights_until_repaired(server: Server) -> None:
    """The server read its rights in every schema when it began. Nothing else takes these from its session."""
    tenant, login, _ = await server.make()
    assert await tenant.end(login)
    old = tenant.database
    user = await server.cluster.users.create(old)
    assert await tenant.steps.adopt() == old
    tenant.on_record[old] = Role.OWNER
    await server.add(tenant)
    slow, connecting = await begin_login(server, old, user.password or "")
    try:
        assert await tenant.end(old)
        assert await tenant.problems() == frozenset()
    finally:
        slow.go.set()
    await connecting
    assert run(slow, "SELECT COUNT(*) FROM mysql.user") != []
    assert await tenant.problems() == {Problem(ProblemKind.UNKNOWN_LOGIN, old)}

    await tenant.repair()

    assert refused(slow, "SELECT 1")
    assert await tenant.problems() == frozenset()
    suppressed(slow.close)


async def test_login_that_code_runs_as_is_not_made_again(server: Server) -> None:
    """Somebody dropped it. MySQL refuses to create it."""
    tenant, login, password = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE VIEW o AS SELECT 1")
    own.close()
    with server.as_root() as root:
        root.execute("DROP USER %s@'%%'", (login,))

    with pytest.raises(GrantError, match=r"still runs as it.*rotate the tenant"):
        await tenant.steps.add_login(login, password, Role.OWNER)

    second, secret = await server.add(tenant)
    other = server.connect(second, secret, tenant.database)
    run(other, "DROP VIEW o")
    other.close()
    await tenant.steps.add_login(login, password, Role.OWNER)


async def test_events_stop_while_a_tenant_is_suspended_and_go_on_after_it(server: Server) -> None:
    """Of an earlier login. Those of one that was in use go on after it too, and one that is running ends."""
    tenant, login, password = await server.make()
    count = f"SELECT COUNT(*) FROM `{tenant.database}`.t"
    with server.as_root() as root:
        root.execute("SET GLOBAL event_scheduler = ON")

        def rows() -> int:
            root.execute(count)
            return int(root.fetchall()[0][0])

        own = server.connect(login, password, tenant.database)
        run(own, "CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY)")
        run(own, "CREATE EVENT revoked ON SCHEDULE EVERY 1 SECOND DO INSERT INTO t VALUES ()")
        second, secret = await server.add(tenant)
        other = server.connect(second, secret, tenant.database)
        run(
            other,
            "CREATE EVENT runs ON SCHEDULE AT NOW() + INTERVAL 1 SECOND DO "
            "BEGIN WHILE TRUE DO INSERT INTO t VALUES (); DO SLEEP(0.2); END WHILE; END",
        )
        assert not await tenant.end(login)
        before = rows()
        await until(lambda: rows() > before + 6)

        await tenant.steps.end_logins([login, second])
        await tenant.steps.drop_logins([login, second])
        await tenant.steps.shut()

        before = rows()
        await an_event_ran(root, times=3)
        assert rows() == before
        assert server.sessions(login) == server.sessions(second) == []
        assert await server.sql.problems(tenant.names, None) == frozenset()
        tenant.on_record.clear()
        await server.add(tenant)
        await until(lambda: rows() > before)
        run(root.connection, f"DROP DATABASE `{tenant.database}`")
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


@pytest.mark.parametrize("number", [40, pytest.param(400, marks=pytest.mark.thorough)])
async def test_many_events_delay_no_suspension(server: Server, number: int) -> None:
    """Threads of the scheduler are no sessions. Each event kills the sessions of its login."""
    tenant, login, password = await server.make()
    with server.as_root() as root:
        root.execute("SET GLOBAL event_scheduler = ON")
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY)")
    newest = f"(SELECT MAX(ID) FROM information_schema.PROCESSLIST WHERE USER = '{login}')"
    body = f"BEGIN INSERT INTO t VALUES (); SET @newest = {newest}; KILL @newest; END"
    for at in range(number):
        run(own, f"CREATE EVENT e{at} ON SCHEDULE EVERY 1 SECOND STARTS NOW() + INTERVAL 2 SECOND DO {body}")
    with server.as_root() as root:

        def rows() -> int:
            root.execute(f"SELECT COUNT(*) FROM `{tenant.database}`.t")
            return int(root.fetchall()[0][0])

        await until(rows)

        async with asyncio.timeout(120):  # each of the two has a bound of its own
            await tenant.steps.end_logins([login])
            await tenant.steps.shut()

        before = rows()
        await an_event_ran(root, times=2)
        assert rows() == before
    suppressed(own.close)
    await tenant.remove()


async def test_adopted_login_that_code_runs_as_keeps_only_the_rights_of_a_tenant(server: Server) -> None:
    """The API gave it all rights in every schema."""
    tenant, first, _ = await server.make()
    assert await tenant.end(first)
    old = tenant.database
    user = await server.cluster.users.create(old)
    theirs = server.connect(old, user.password or "", tenant.database)
    run(theirs, "CREATE PROCEDURE p() SELECT User FROM mysql.user")
    assert await tenant.steps.adopt() == old
    tenant.on_record[old] = Role.OWNER
    second, secret = await server.add(tenant)
    assert await tenant.problems() == frozenset()

    assert not await tenant.end(old)

    own = server.connect(second, secret, tenant.database)
    assert refused(own, "CALL p()") in DENIED
    assert await tenant.problems() == frozenset()
    own.close()
    theirs.close()
