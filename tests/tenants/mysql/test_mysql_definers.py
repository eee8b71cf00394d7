"""Views and programs of a tenant on MySQL have a definer: what that means for its end."""

from __future__ import annotations

import threading
from contextlib import closing
from functools import partial

import pymysql
import pytest

from aiodbclient.errors import ConflictError
from aiodbclient.tenants import Problem, ProblemKind, Role
from aiodbclient.tenants._servers import ServerState

from ...mysql import administrator, run
from ...waiting import until
from ..mysql_servers import DENIED, IGNORES_KILL, Server, background, refused, server
from .test_mysql_ending import half_open

__all__ = ["server"]

TABLE = "CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(9))"


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


async def test_view_works_while_its_login_ends(server: Server) -> None:
    """Also if a session of that login resists its end for a while."""
    tenant, login, password, _ = await server.enter(TABLE, "CREATE VIEW v AS SELECT a FROM t")
    current, secret = await server.add(tenant)
    reads, failures, stop = [0], list[Exception](), threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                with closing(server.connect(current, secret, tenant.database)) as session:
                    run(session, "SELECT * FROM v")
                reads[0] += 1
            except pymysql.MySQLError as error:
                failures.append(error)

    reading = background(read)
    resists = background(partial(run, server.connect(login, password), IGNORES_KILL))
    await until(lambda: reads[0] and server.sessions(login))

    await tenant.end(login)

    after = reads[0]
    await until(lambda: reads[0] > after)
    stop.set()
    for thread in (reading, resists):
        thread.join()
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


@pytest.mark.parametrize("is_ended", [True, False], ids=["ended", "control"])
async def test_half_open_login_of_view_has_no_rights(server: Server, is_ended: bool) -> None:
    tenant, login, password, _ = await server.enter(TABLE, "CREATE VIEW v AS SELECT * FROM t")
    await server.add(tenant)
    async with half_open(server, login, password) as slow:
        if is_ended:
            await tenant.end(login)
    for read in ("v", "t"):
        if is_ended:
            assert refused(slow, f"SELECT * FROM `{tenant.database}`.{read}") in (*DENIED, 1226)
        else:
            assert run(slow, f"SELECT * FROM `{tenant.database}`.{read}") == []


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


async def test_dropped_login_of_view_is_made_again(server: Server) -> None:
    """Somebody dropped it. MySQL refuses to create it, because the view would run as it."""
    tenant, login, password, _ = await server.enter("CREATE VIEW o AS SELECT 1")
    server.as_root("DROP USER %s@'%%'", login)
    with pytest.raises(pymysql.MySQLError, match="referenced as a definer"), server.as_doadmin() as doadmin:
        doadmin.execute(f"CREATE USER '{login}'")  # the control

    await tenant.steps.add_login(login, password, Role.OWNER)

    assert run(server.connect(login, password, tenant.database), "SELECT * FROM o") == [(1,)]


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
