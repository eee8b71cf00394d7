"""A schema of MySQL is shut, frozen and dropped, whatever its tenant and others did there."""

from __future__ import annotations

from typing import Any

import pymysql
import pytest

from aiodbclient.tenants._servers.server import Found, Work
from aiodbclient.tenants.errors import GrantError

from ..mysql import run
from .mysql_servers import DENIED, Server, refused, server, suppressed, until
from .tenant import Tenant

__all__ = ["server"]


async def let_in(server: Server) -> tuple[Tenant, Any, Tenant, str, str]:
    """A tenant with a table, and a session of it; a neighbour, its login with all rights there, and its password."""
    tenant, login, password = await server.make()
    other, neighbour, secret = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    with server.as_root() as root:
        root.execute(f"GRANT ALL ON `{server.in_grant(tenant.names)}`.* TO %s@'%%'", (neighbour,))
    return tenant, own, other, neighbour, secret


async def test_a_neighbour_who_was_let_in_is_out_of_a_tenant_that_is_shut(server: Server) -> None:
    """It keeps its other work. MySQL checks rights on a schema only when a session enters it."""
    tenant, own, other, neighbour, secret = await let_in(server)
    inside = server.connect(neighbour, secret, tenant.database)
    holds = server.connect(neighbour, secret)
    elsewhere = server.connect(neighbour, secret, other.database)
    run(inside, "INSERT INTO t VALUES (1)")
    run(holds, "BEGIN")
    run(holds, f"INSERT INTO `{tenant.database}`.t VALUES (2)")

    await tenant.steps.end_logins(tenant.on_record)
    work = Work(tenant.names)
    await server.sql.steps(work).shut()

    assert work.ended == {neighbour}
    assert refused(inside, "INSERT INTO t VALUES (3)")
    assert refused(holds, "COMMIT")
    assert run(elsewhere, "SELECT 1") == [(1,)]
    assert refused(elsewhere, f"SELECT * FROM `{tenant.database}`.t") in DENIED
    with server.as_root() as root:
        root.execute(f"SELECT a FROM `{tenant.database}`.t")
        assert root.fetchall() == ((1,),)
    for each in (own, inside, holds, elsewhere):
        suppressed(each.close)


@pytest.mark.parametrize("step", ["repair", "adopt"])
async def test_a_neighbour_whose_rights_are_revoked_is_out_of_the_schema(server: Server, step: str) -> None:
    """MySQL checks rights on a schema only when a session enters it. The tenant's own sessions go on."""
    tenant, own, other, neighbour, secret = await let_in(server)
    inside = server.connect(neighbour, secret, tenant.database)
    elsewhere = server.connect(neighbour, secret, other.database)
    run(inside, "INSERT INTO t VALUES (1)")

    work = Work(tenant.names)
    if step == "repair":
        await server.sql.steps(work).repair(tenant.on_record)
    else:
        await server.sql.steps(work).adopt()

    assert work.ended == {neighbour}
    assert refused(inside, "INSERT INTO t VALUES (2)")
    assert run(elsewhere, "SELECT 1") == [(1,)]
    assert run(own, "SELECT a FROM t") == [(1,)]
    for each in (own, inside, elsewhere):
        suppressed(each.close)


def prepare(session: Any, xid: str, statement: str) -> None:
    for each in (f"XA START {xid}", statement, f"XA END {xid}", f"XA PREPARE {xid}"):
        run(session, each)


async def test_prepared_transaction_in_schema_named(server: Server) -> None:
    """As on the provider's servers. Only what needs its locks fails: no suspension does."""
    tenant, login, password = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY) ENGINE = InnoDB")
    prepare(own, "'held'", "INSERT INTO t VALUES (1)")
    own.close()
    await until(lambda: not server.sessions(login))
    await tenant.steps.end_logins([login])

    await tenant.steps.shut()
    for needs_its_locks in (tenant.steps.drop_database(), tenant.steps.freeze([login])):
        with pytest.raises(
            GrantError, match=r"prepared transaction \(XA\) holds tables of the schema .*: t\..*XA_RECOVER_ADMIN"
        ):
            await needs_its_locks

    with server.as_root() as root:
        root.execute("SELECT User FROM mysql.db WHERE Db = %s", (tenant.database,))
        assert root.fetchall() == ()
        root.execute("XA ROLLBACK 'held'")
    await tenant.steps.drop_database()


async def test_a_prepared_transaction_is_anybodys_who_knows_its_name(server: Server) -> None:
    tenant, login, password = await server.make()
    _, neighbour, secret = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY) ENGINE = InnoDB")
    xid = f"'{tenant.names.tenant}'"
    prepare(own, xid, "INSERT INTO t VALUES (1)")
    theirs = server.connect(neighbour, secret)
    own.close()
    await until(lambda: not server.sessions(login))

    run(theirs, f"XA COMMIT {xid}")

    theirs.close()
    own = server.connect(login, password, tenant.database)
    assert run(own, "SELECT a FROM t") == [(1,)]
    own.close()


@pytest.mark.parametrize("step", ["repair", "shut", "drop_database"])
async def test_schema_that_its_tenant_made_read_only_stops_nothing(server: Server, step: str) -> None:
    tenant, login, password = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, f"ALTER DATABASE `{tenant.database}` READ ONLY = 1")
    assert refused(own, "CREATE TABLE t (a INT PRIMARY KEY)")

    if step == "repair":
        await tenant.repair()
    else:
        await tenant.steps.end_logins([login])
        await getattr(tenant.steps, step)()
        await tenant.steps.create()
        await tenant.end(login)
        login, password = await server.add(tenant)

    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    own.close()


async def test_nobody_writes_in_a_frozen_schema(server: Server) -> None:
    """Nor who has rights on all schemas, and names the schema from outside."""
    tenant, login, password = await server.make()
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    insert = f"INSERT INTO `{tenant.database}`.t VALUES"
    with server.as_doadmin() as before:
        before.execute(f"{insert} (1)")  # the control

        await tenant.steps.freeze([login])

        with pytest.raises(pymysql.MySQLError, match="read only"), server.as_doadmin() as after:
            after.execute(f"{insert} (2)")
    await tenant.steps.unfreeze(tenant.on_record)
    own = server.connect(login, password, tenant.database)
    assert run(own, "SELECT a FROM t") == [(1,)]
    run(own, f"{insert} (3)")
    own.close()


@pytest.mark.parametrize("similar", ["ALPHA", "Alpha"])
async def test_what_runs_as_a_login_with_a_similar_name_keeps_no_neighbour(server: Server, similar: str) -> None:
    """Any visitor may sign up with such a name."""
    theirs, name, secret = await server.make(name=similar)
    tenant, *_ = await server.make(name="alpha")
    own = server.connect(name, secret, theirs.database)
    run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
    run(own, "CREATE VIEW o AS SELECT * FROM t")
    own.close()

    await tenant.remove()

    assert await server.sql.find(tenant.names) == Found()
    assert await theirs.problems() == frozenset()
    assert await server.sql.find(theirs.names) == Found(database=True, logins=(name,))
    await theirs.remove()
