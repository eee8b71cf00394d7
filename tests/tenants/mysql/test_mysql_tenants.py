"""Tenants on MySQL with leaked credentials, existing logins, changed rights, and names that GRANT takes as patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

import pymysql
import pytest
from attrs import evolve
from pymysql.cursors import Cursor

from aiodbclient import Cluster, Engine
from aiodbclient.errors import InvalidArgumentError, NotFoundError, UnsupportedOperationError
from aiodbclient.tenants import Credential, ProblemKind, Role, TenantAction, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.mysql import kill
from aiodbclient.tenants.errors import GrantError

from ...mysql import administrator, in_grant, run
from ...waiting import until
from ..conftest import Place, only, present
from ..mysql_servers import IGNORES_KILL, background
from ..problems import kinds_of

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

    claim = present(await my_place.store.claim("alpha", 30))
    await my_place.store.save(claim, evolve(present(claim.record), engine=Engine.ADVANCED_MYSQL), release=True)
    refused = await only(tenants.move(["alpha"], to=other))
    assert isinstance(refused.error, UnsupportedOperationError)


async def test_prepared_transaction_stops_removal_alone(tenants: Tenants, mysql_root: str) -> None:
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
    assert "but a prepared transaction (XA) may. Run XA ROLLBACK with its name" in str(removed.error)
    with administrator(mysql_root) as root:
        assert root.execute("SELECT User FROM mysql.db WHERE %s LIKE Db", (alpha.database,)) == 0
    once(await tenants.ensure("other"), f"XA ROLLBACK {xid}")  # by anybody who knows its name
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED


@pytest.mark.parametrize("operation", ["suspend", pytest.param("remove", marks=pytest.mark.thorough)])
async def test_resisting_login_keeps_no_other(
    tenants: Tenants, opened: Open, mysql_root: str, monkeypatch: pytest.MonkeyPatch, operation: str
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
        refused = await only(getattr(tenants, operation)(["alpha"]))

    named = rf"sessions of '{owner.username}' did not end within .*: thread \d+ \(Query\); run it again"
    assert re.search(named, str(refused.error))
    assert [count(sessions, each.username) for each in (owner, *others)] == [1, 0, 0]
    assert count(rights, owner.database) == 0
    for credential in (earlier, owner, *others):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            connect(credential)
    assert (await only(getattr(tenants, operation)(["alpha"]))).error is None
    busy.join()


def refused(credential: Credential, statement: str) -> None:
    with pytest.raises(pymysql.MySQLError, match="denied"):
        once(credential, statement)


async def test_name_that_grant_refuses_makes_nothing(my_place: Place, tenants: Tenants, mysql_root: str) -> None:
    """Where GRANT takes patterns, each ``_`` counts twice."""
    under = "_" * 20
    room = 64 - len(my_place.prefix) - my_place.prefix.count("_") - 2 * len(under)
    longest, longer = under + "a" * room, under + "a" * (room + 1)
    once(await tenants.ensure(longest), "CREATE TABLE t (a INT PRIMARY KEY)")
    schema = my_place.prefix + longer
    with administrator(mysql_root) as root:
        if in_grant(root, schema) == schema:
            once(await tenants.ensure(longer), "CREATE TABLE t (a INT PRIMARY KEY)")
            return
        with pytest.raises(InvalidArgumentError, match="which makes 65; nothing was made"):
            await tenants.ensure(longer)
        assert await my_place.store.get(longer) is None
        root.execute("SELECT User FROM mysql.user")
        accounts = [user for (user,) in root.fetchall() if names_of(schema, "mysql").is_login(user)]
        root.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = %s", (schema,))
        assert (accounts, root.fetchall()) == ([], ())
        root.execute(f"CREATE DATABASE `{schema}`")
        adopted = await only(tenants.provision([longer], if_exists="adopt"))
        root.execute(f"DROP DATABASE `{schema}`")
    assert isinstance(adopted.error, InvalidArgumentError)
    assert await my_place.store.get(longer) is None


async def test_rights_of_other_mode_and_of_name_that_matches(tenants: Tenants, mysql_root: str) -> None:
    """As after a change of ``partial_revokes``: what was escaped is literal now, and the reverse."""
    one = await tenants.ensure("a_b")
    other = await tenants.ensure("axb")
    assert one.database is not None
    with administrator(mysql_root) as root:
        now = in_grant(root, one.database)
        then = one.database.replace("_", "\\_") if now == one.database else one.database
        root.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", (one.username,))
        root.execute(f"GRANT ALL ON `{then.replace('%', '%%')}`.* TO %s@'%%'", (one.username,))
    assert ProblemKind.RIGHTS_MISSING in kinds_of((await only(tenants.check(["a_b"]))).problems)

    assert (await only(tenants.repair(["a_b"]))).error is None

    for name in ("a_b", "axb"):
        assert (await only(tenants.check([name]))).problems == ()
    refused(one, f"SELECT * FROM `{other.database}`.t")
    assert once(one, "SHOW TABLES") == []
    for name, left in (("axb", "a_b"), ("a_b", "axb")):
        assert (await only(tenants.remove([name]))).action is TenantAction.DELETED
        adopted = await only(tenants.provision([name], if_exists="adopt"))
        assert isinstance(adopted.error, NotFoundError), "the other one is no database of this name"
        assert (await only(tenants.check([left]))).problems == ()
        await tenants.ensure(name)
