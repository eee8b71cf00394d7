"""A schema of MySQL is locked, frozen and dropped, whatever its tenant and others did there."""

from __future__ import annotations

from typing import Any

import pytest

from aiodbclient.tenants._servers import BaseTenant, ServerState
from aiodbclient.tenants.errors import GrantError

from ...mysql import run
from ...waiting import until
from ..mysql_servers import DENIED, Server, refused, server

__all__ = ["server"]


TABLE = "CREATE TABLE t (a INT PRIMARY KEY)"


@pytest.mark.parametrize("step", ["lock_out", "repair", "adopt"])
async def test_neighbour_whose_rights_are_revoked_is_out(server: Server, step: str) -> None:
    """MySQL checks rights on a schema only when a session enters it. The tenant's own go on, unless it is locked."""
    tenant, *_, own = await server.enter(TABLE)
    _, neighbour, secret, elsewhere = await server.enter()
    server.grant("ALL", tenant.names, neighbour)
    inside = server.connect(neighbour, secret, tenant.database)
    holds = server.connect(neighbour, secret)
    run(inside, "INSERT INTO t VALUES (1)")
    run(holds, "BEGIN")
    run(holds, f"INSERT INTO `{tenant.database}`.t VALUES (2)")

    on = BaseTenant(tenant.names)
    if step == "repair":
        await server.sql.steps(on).repair(tenant.on_record)
    elif step == "adopt":
        await server.sql.steps(on).adopt()
    else:
        await tenant.steps.end_logins(tenant.on_record)
        await server.sql.steps(on).lock_out()

    assert on.others_ended == {neighbour}
    assert refused(inside, "INSERT INTO t VALUES (3)")
    assert refused(holds, "COMMIT")
    assert run(elsewhere, "SELECT 1") == [(1,)]
    assert refused(elsewhere, f"SELECT * FROM `{tenant.database}`.t") in DENIED
    assert server.as_root(f"SELECT a FROM `{tenant.database}`.t") == [(1,)]
    if step == "lock_out":
        assert refused(own, "SELECT 1")
    else:
        assert run(own, "SELECT a FROM t") == [(1,)]


async def test_member_of_role_with_rights_is_out(server: Server) -> None:
    """Also a member of a member. Its session keeps the rights that ``repair`` revokes from the role."""
    tenant, *_, own = await server.enter(TABLE)
    _, neighbour, secret = await server.make()
    outer, inner = f"o{neighbour[-8:]}", f"i{neighbour[-8:]}"
    server.as_root(f"CREATE ROLE {outer}, {inner}")
    server.grant("ALL", tenant.names, outer)
    server.as_root(f"GRANT {outer} TO {inner}")
    server.as_root(f"GRANT {inner} TO '{neighbour}'")
    inside = server.connect(neighbour, secret)
    for each in ("SET ROLE ALL", f"USE `{tenant.database}`", "INSERT INTO t VALUES (1)"):
        run(inside, each)

    await tenant.repair()

    assert refused(inside, "INSERT INTO t VALUES (2)")
    assert run(own, "SELECT a FROM t") == [(1,)]
    server.as_root(f"DROP ROLE {outer}, {inner}")


async def test_session_that_outlived_its_rights_is_out(server: Server) -> None:
    """As after a ``repair`` that failed. Who has rights on every schema goes on, also by a role."""
    tenant, *_, own = await server.enter(TABLE)
    _, neighbour, secret = await server.make()
    _, reader, password = await server.make()
    server.grant("ALL", tenant.names, neighbour)
    server.as_root(f"CREATE ROLE r{reader}")
    server.as_root(f"GRANT SELECT ON *.* TO r{reader}")
    server.as_root(f"GRANT r{reader} TO '{reader}'")
    inside = server.connect(neighbour, secret, tenant.database)
    reads = server.connect(reader, password)
    for each in ("SET ROLE ALL", f"USE `{tenant.database}`"):
        run(reads, each)
    server.as_root(f"REVOKE ALL ON `{server.in_grant(tenant.names)}`.* FROM '{neighbour}'")
    run(inside, "INSERT INTO t VALUES (1)")  # the control: it keeps them

    await tenant.repair()

    assert refused(inside, "INSERT INTO t VALUES (2)")
    for session in (own, reads):
        assert run(session, "SELECT a FROM t") == [(1,)]
    server.as_root(f"DROP ROLE r{reader}")


def prepare(session: Any, xid: str, statement: str) -> None:
    for each in (f"XA START {xid}", statement, f"XA END {xid}", f"XA PREPARE {xid}"):
        run(session, each)


async def test_prepared_transaction_in_schema_named(server: Server) -> None:
    """As on the provider's servers. Only what needs its locks fails: no suspension does."""
    tenant, login, _, own = await server.enter(TABLE)
    prepare(own, "'held'", "INSERT INTO t VALUES (1)")
    own.close()
    await until(lambda: not server.sessions(login))
    await tenant.steps.end_logins([login])

    await tenant.steps.lock_out()
    with pytest.raises(
        GrantError, match=r"prepared transaction \(XA\) holds tables of the schema .*: t\..*XA_RECOVER_ADMIN"
    ):
        await tenant.steps.drop_database()

    assert server.as_root("SELECT User FROM mysql.db WHERE %s LIKE Db", tenant.database) == []
    server.as_root("XA ROLLBACK 'held'")
    await tenant.steps.drop_database()


async def test_prepared_transaction_is_anybodys_who_knows_it(server: Server) -> None:
    tenant, login, password, own = await server.enter(TABLE)
    *_, theirs = await server.enter()
    xid = f"'{tenant.names.tenant}'"
    prepare(own, xid, "INSERT INTO t VALUES (1)")
    own.close()
    await until(lambda: not server.sessions(login))

    run(theirs, f"XA COMMIT {xid}")

    assert run(server.connect(login, password, tenant.database), "SELECT a FROM t") == [(1,)]


@pytest.mark.parametrize("step", ["repair", "lock_out", "drop_database"])
async def test_schema_its_tenant_made_read_only(server: Server, step: str) -> None:
    """It stops nothing."""
    tenant, login, password, own = await server.enter()
    run(own, f"ALTER DATABASE `{tenant.database}` READ ONLY = 1")
    assert refused(own, TABLE)

    if step == "repair":
        await tenant.repair()
    else:
        await tenant.steps.end_logins([login])
        await getattr(tenant.steps, step)()
        await tenant.steps.create()
        await tenant.end(login)
        login, password = await server.add(tenant)

    run(server.connect(login, password, tenant.database), TABLE)


@pytest.mark.parametrize("place", ["TABLESPACE innodb_system", "ENGINE=MyISAM", "ENGINE=InnoDB"])
async def test_usage_counts_tables_without_own_file(server: Server, place: str) -> None:
    """The control is one that has a file."""
    tenant, *_, own = await server.enter(f"CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) {place}")
    before, _ = (await server.sql.usage())[tenant.database]
    run(own, "INSERT INTO t (b) VALUES (REPEAT('x', 8000000))")
    run(own, "ANALYZE TABLE t")  # as the server does after some seconds

    after, _ = (await server.sql.usage())[tenant.database]

    assert after - before > 7_000_000


@pytest.mark.parametrize("similar", ["ALPHA", "Alpha"])
async def test_code_of_login_with_similar_name(server: Server, similar: str) -> None:
    """It keeps no neighbour. Any visitor may sign up with such a name."""
    theirs, name, *_ = await server.enter(TABLE, "CREATE VIEW o AS SELECT * FROM t", name=similar)
    tenant, *_ = await server.make(name="alpha")

    await tenant.remove()

    assert await server.sql.inspect(tenant.names) == ServerState()
    assert await theirs.problems() == frozenset()
    assert await server.sql.inspect(theirs.names) == ServerState(database=True, logins=(name,))
    await theirs.remove()
