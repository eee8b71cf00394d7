"""Code of a tenant on MySQL runs as the login that made it: what that means for its end."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._servers import BaseTenant, Found
from aiodbclient.tenants.errors import GrantError

from ..mysql import run
from ..waiting import until
from .mysql_servers import DENIED, Server, refused, server
from .problems import kinds
from .test_mysql_ending import half_open

__all__ = ["server"]

_used = iter(range(10**6))
CODE = {
    "PROCEDURE": "CREATE PROCEDURE o() SELECT 1",
    "FUNCTION": "CREATE FUNCTION o() RETURNS INT DETERMINISTIC RETURN 1",
    "VIEW": "CREATE VIEW o AS SELECT * FROM t",
    "TRIGGER": "CREATE TRIGGER o BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
    "EVENT": "CREATE EVENT o ON SCHEDULE EVERY 1 YEAR STARTS NOW() + INTERVAL 1 YEAR DO DELETE FROM t",
}


TABLE = "CREATE TABLE t (a INT PRIMARY KEY)"


@pytest.mark.parametrize("kind", CODE)
async def test_code_of_ended_login_goes_on(server: Server, kind: str) -> None:
    """It holds up nothing but the drop of the login."""
    tenant, login, _, own = await server.enter(TABLE, CODE[kind])
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


async def test_rights_of_code_are_missing_until_repaired(server: Server) -> None:
    """As after a process that died before it gave them back."""
    tenant, login, *_ = await server.enter(TABLE, CODE["VIEW"])
    second, secret = await server.add(tenant)
    await tenant.steps.end_logins([login])
    del tenant.on_record[login]
    other = server.connect(second, secret, tenant.database)
    assert refused(other, "SELECT * FROM o")
    assert await tenant.problems() == kinds(ProblemKind.RIGHTS_MISSING)

    await tenant.repair()

    assert await tenant.problems() == frozenset()
    assert run(other, "SELECT * FROM o") == []


async def test_half_open_login_of_code_enters_until_repaired(server: Server) -> None:
    """It is the one case in which an ended login has rights. ``check`` sees its session."""
    tenant, login, password, _ = await server.enter(TABLE, CODE["VIEW"])
    await server.add(tenant)
    async with half_open(server, login, password) as slow:
        assert not await tenant.end(login)
        assert await tenant.problems() == frozenset()
    assert await tenant.problems() == {Problem(ProblemKind.UNKNOWN_LOGIN, login)}

    await tenant.repair()

    assert refused(slow, "SELECT 1")
    assert await tenant.problems() == frozenset()


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


async def test_login_of_code_is_not_made_again(server: Server) -> None:
    """Somebody dropped it. MySQL refuses to create it."""
    tenant, login, password, _ = await server.enter("CREATE VIEW o AS SELECT 1")
    server.as_root("DROP USER %s@'%%'", login)

    with pytest.raises(GrantError, match=r"still runs as it.*rotate the tenant"):
        await tenant.steps.add_login(login, password, Role.OWNER)

    second, secret = await server.add(tenant)
    run(server.connect(second, secret, tenant.database), "DROP VIEW o")
    await tenant.steps.add_login(login, password, Role.OWNER)


async def test_events_stop_while_a_tenant_is_suspended(server: Server) -> None:
    """Those of an earlier login go on after it, as they do after a rotation, and one that is running ends."""
    tenant, login, *_ = await server.enter(
        "CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY, b TEXT)",
        "CREATE EVENT revoked ON SCHEDULE EVERY 1 SECOND DO INSERT INTO t (b) VALUES ('revoked')",
    )
    rows = partial(server.count, f"`{tenant.database}`.t")
    second, secret = await server.add(tenant)
    run(
        server.connect(second, secret, tenant.database),
        "CREATE EVENT runs ON SCHEDULE AT NOW() DO "
        "BEGIN WHILE TRUE DO INSERT INTO t (b) VALUES ('runs'); DO SLEEP(0.2); END WHILE; END",
    )
    assert not await tenant.end(login)
    both = f"SELECT COUNT(DISTINCT b) FROM `{tenant.database}`.t WHERE a > {rows()}"
    await until(lambda: server.as_root(both) == [(2,)])

    await tenant.steps.end_logins([login, second])
    await tenant.steps.drop_logins([login, second])
    await tenant.steps.shut()

    before = rows()
    await an_event_ran(server, times=3)
    assert rows() == before
    assert server.sessions(login) == server.sessions(second) == []
    assert await server.sql.problems(tenant.names, None) == frozenset()
    tenant.on_record.clear()
    await server.add(tenant)
    await until(lambda: rows() > before)
    server.as_root(f"DROP DATABASE `{tenant.database}`")


async def an_event_ran(server: Server, times: int) -> None:
    """Wait until an event of the superuser's ran so often, once a second: the server runs others meanwhile too."""
    name = f"clock{next(_used)}"
    for statement in (
        f"CREATE DATABASE {name}",
        f"CREATE TABLE {name}.t (a INT AUTO_INCREMENT PRIMARY KEY)",
        f"CREATE EVENT {name}.e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO {name}.t VALUES ()",
    ):
        server.as_root(statement)
    await until(lambda: server.count(f"{name}.t") >= times)
    server.as_root(f"DROP DATABASE {name}")


@pytest.mark.parametrize("number", [10, pytest.param(400, marks=pytest.mark.thorough)])
async def test_many_events_delay_no_suspension(server: Server, number: int) -> None:
    """Threads of the scheduler are no sessions. Each event kills the sessions of its login."""
    tenant, login, _, own = await server.enter("CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY)")
    newest = f"(SELECT MAX(ID) FROM information_schema.PROCESSLIST WHERE USER = '{login}')"
    body = f"BEGIN INSERT INTO t VALUES (); SET @newest = {newest}; KILL @newest; END"
    for at in range(number):
        run(own, f"CREATE EVENT e{at} ON SCHEDULE EVERY 1 SECOND STARTS NOW() + INTERVAL 2 SECOND DO {body}")
    rows = partial(server.count, f"`{tenant.database}`.t")
    await until(rows)

    async with asyncio.timeout(120):  # each of the two has a bound of its own
        await tenant.steps.end_logins([login])
        await tenant.steps.shut()

    before = rows()
    await an_event_ran(server, times=2)
    assert rows() == before
    await tenant.remove()


async def test_adopted_login_of_code_keeps_rights_of_tenant(server: Server) -> None:
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

    on = BaseTenant(tenant.names)
    await server.sql.steps(on).end_logins([old])
    assert on.others_ended == set()  # of others
    assert not await tenant.end(old)

    assert refused(server.connect(second, secret, tenant.database), "CALL p()") in DENIED
    assert await tenant.problems() == frozenset()
