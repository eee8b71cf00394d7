"""Tenants on MySQL with leaked credentials, existing logins, or changed rights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

import pymysql
import pytest
from pymysql.cursors import Cursor

from aiodbclient import Cluster
from aiodbclient.errors import UnsupportedOperationError
from aiodbclient.tenants import Credential, Role, TenantAction, Tenants
from aiodbclient.tenants._servers.mysql import kill
from aiodbclient.tenants.errors import GrantError

from ...mysql import administrator, run
from ...waiting import until
from ..conftest import Place, only
from ..mysql_servers import IGNORES_KILL, background

Open = Callable[[Credential], "pymysql.Connection[Cursor]"]


@pytest.fixture
def tenants(my_place: Place) -> Tenants:
    return my_place.tenants()


def connect(credential: Credential, password: str | None = None) -> pymysql.Connection[Cursor]:
    return pymysql.connect(
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=password or credential.password or "",
        database=credential.database,
        autocommit=True,
        ssl={"check_hostname": False},
    )


@pytest.fixture
def opened() -> Iterator[Open]:
    """Logs in. The sessions are closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda credential: stack.enter_context(closing(connect(credential)))


def once(credential: Credential, statement: str) -> list[tuple[object, ...]]:
    """Log in, run one statement, and log out."""
    with closing(connect(credential)) as connection:
        return run(connection, statement)


async def test_move_is_refused_before_anything(my_place: Place, mysql_root: str) -> None:
    other = await my_place.sandbox.add_cluster("mysql", server=mysql_root)
    both = [my_place.cluster, my_place.client.cluster(other)]

    async def choose(*_: object) -> Cluster:
        return my_place.cluster

    tenants = Tenants(both, my_place.store, prefix=my_place.prefix, choose_cluster=choose)
    alpha = await tenants.ensure("alpha")
    with closing(connect(alpha)) as own:
        requests = len(my_place.sandbox.requests)

        refused = await only(tenants.move(["alpha"], to=other))

        assert isinstance(refused.error, UnsupportedOperationError)
        assert "MySQL cannot be moved" in str(refused.error)
        assert run(own, "SELECT 7") == [(7,)]
    assert len(my_place.sandbox.requests) == requests
    assert await tenants.get("alpha") == alpha


async def test_session_does_not_reach_next_tenant_of_name(tenants: Tenants, opened: Open) -> None:
    session = opened(await tenants.ensure("alpha"))
    run(session, "CREATE TABLE t (a INT PRIMARY KEY)")
    for statement in ("XA START 'held'", "INSERT INTO t VALUES (1)", "XA END 'held'"):
        run(session, statement)
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED

    again = await tenants.ensure("alpha")

    with pytest.raises(pymysql.MySQLError):
        run(session, "CREATE TABLE planted (a INT PRIMARY KEY)")
    assert once(again, "SHOW TABLES") == []


async def test_prepared_transaction_stops_removal_alone(tenants: Tenants) -> None:
    """One without a session: MySQL lists it to nobody whom the provider lets in."""
    alpha = await tenants.ensure("alpha")
    xid = f"'{alpha.database}'"
    with closing(connect(alpha)) as own:
        run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
        for each in (f"XA START {xid}", "INSERT INTO t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}"):
            run(own, each)

    assert (await only(tenants.rotate(["alpha"]))).error is None
    assert (await only(tenants.suspend(["alpha"]))).action is TenantAction.SUSPENDED
    assert (await only(tenants.resume(["alpha"]))).action is TenantAction.RESUMED
    removed = await only(tenants.remove(["alpha"]))
    assert isinstance(removed.error, GrantError)
    assert "a prepared transaction (XA) holds tables of the schema" in str(removed.error)
    once(await tenants.ensure("other"), f"XA ROLLBACK {xid}")  # by anybody who knows its name
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED


@pytest.mark.parametrize("verb", ["suspend", pytest.param("remove", marks=pytest.mark.thorough)])
async def test_resisting_login_keeps_no_other(
    tenants: Tenants, opened: Open, mysql_root: str, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A session of the owner, which is ended first, runs a statement that ignores KILL."""
    earlier = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    await only(tenants.revoke_previous(["alpha"]))
    owner = await tenants.ensure("alpha")
    others = [await tenants.role(role).ensure("alpha") for role in ("writer", "reader")]
    for credential in others:
        opened(credential)
    assert owner.database is not None

    def count(query: str, *values: str) -> int:
        with administrator(mysql_root) as root:
            root.execute(f"SELECT COUNT(*) FROM {query}", values)
            return int(root.fetchall()[0][0])

    sessions, rights = "performance_schema.threads WHERE PROCESSLIST_USER = %s", "mysql.db WHERE %s LIKE Db"
    assert count(rights, owner.database) == len(Role)  # the control
    assert [count(sessions, each.username) for each in others] == [1, 1]
    busy = background(partial(once, owner, IGNORES_KILL))
    await until(lambda: count(f"{sessions} AND PROCESSLIST_STATE = 'executing'", owner.username))
    with monkeypatch.context() as patched:
        patched.setattr(kill, "ENDING_SECONDS", 0.5)
        refused = await only(getattr(tenants, verb)(["alpha"]))

    named = rf"sessions of '{owner.username}' did not end within .*: thread \d+ \(Query\); run it again"
    assert re.search(named, str(refused.error))
    assert [count(sessions, each.username) for each in (owner, *others)] == [1, 0, 0]
    assert count(rights, owner.database) == 0
    for credential in (earlier, owner, *others):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            connect(credential)
    assert (await only(getattr(tenants, verb)(["alpha"]))).error is None
    busy.join()
