"""Tenants on MySQL with leaked credentials, existing logins, or changed rights."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial

import pymysql
import pytest
from attrs import evolve
from pymysql.cursors import Cursor

from aiodbclient import ClusterClient
from aiodbclient.errors import ConflictError
from aiodbclient.tenants import Credential, ProblemKind, Role, TenantAction, Tenants
from aiodbclient.tenants._servers.mysql import ending
from aiodbclient.tenants.errors import GrantError

from ..mysql import administrator, in_grant, run
from .conftest import Place, only
from .mysql_servers import IGNORES_KILL, suppressed, until
from .problems import kinds_of

Open = Callable[[Credential], "pymysql.Connection[Cursor]"]


@pytest.fixture
def cluster(my_place: Place) -> ClusterClient:
    return my_place.cluster


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


def set_password(credential: Credential, connection: pymysql.Connection[Cursor]) -> None:
    """As somebody who has the password of the session too."""
    with suppress(pymysql.MySQLError):
        run(connection, f"ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine' REPLACE '{credential.password}'")


async def test_a_tenant_leaves_connections_to_others(tenants: Tenants) -> None:
    greedy = await tenants.ensure("alpha")
    sessions = [connect(greedy)]
    [(most,)] = run(sessions[0], "SELECT @@max_connections")
    assert isinstance(most, int)
    try:
        sessions += [connect(greedy) for _ in range(most // 4 - 1)]
        with pytest.raises(pymysql.MySQLError, match="max_user_connections"):
            connect(greedy)

        assert await tenants.ensure("beta")
        assert (await only(tenants.rotate(["alpha"]))).error is None
    finally:
        for session in sessions:
            session.close()


async def test_a_leaked_credential_is_ended_by_rotate_and_revoke(tenants: Tenants, opened: Open) -> None:
    """A session of the old login stays open and sets its own password, after this and every later rotation."""
    leaked = await tenants.ensure("alpha")
    session = opened(leaked)
    run(session, "CREATE TABLE t (a INT PRIMARY KEY)")
    run(session, "INSERT INTO t VALUES (1)")

    assert (await only(tenants.rotate(["alpha"]))).action is TenantAction.ROTATED
    set_password(leaked, session)
    assert (await only(tenants.revoke_previous(["alpha"]))).action is TenantAction.REVOKED

    with pytest.raises(pymysql.MySQLError):
        run(session, "SELECT 1")
    for password in (leaked.password, "Mine-1-Mine"):
        with pytest.raises(pymysql.MySQLError):
            connect(leaked, password)
    for _ in range(2):
        rotated = await only(tenants.rotate(["alpha"]))
        assert rotated.credential is not None
        assert once(rotated.credential, "SELECT a FROM t") == [(1,)]
        assert (await only(tenants.revoke_previous(["alpha"]))).error is None
    assert (await tenants.get("alpha")) == rotated.credential


async def test_suspension_ends_a_session_that_locks_all_accounts(
    tenants: Tenants, opened: Open, mysql: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    """Nothing else ends it: each statement on an account would wait for it."""
    with administrator(mysql(request.node.callspec.params["mysql_cluster"])) as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    alpha = await tenants.ensure("alpha")
    session = opened(alpha)
    body = "BEGIN IF a = 1 THEN UPDATE mysql.user SET User = User; END IF; RETURN a; END"
    run(session, f"CREATE FUNCTION f(a INT) RETURNS INT DETERMINISTIC {body}")
    run(session, "BEGIN")
    run(session, "SELECT f(0)")

    assert (await only(tenants.suspend(["alpha"]))).error is None

    with pytest.raises(pymysql.MySQLError):
        run(session, "SELECT 1")


async def test_a_session_that_survives_the_tenant_does_not_reach_the_next_one(tenants: Tenants, opened: Open) -> None:
    first = await tenants.ensure("alpha")
    session = opened(first)
    run(session, "CREATE TABLE t (a INT PRIMARY KEY) ENGINE = InnoDB")
    run(session, "XA START 'held'")
    run(session, "INSERT INTO t VALUES (1)")
    run(session, "XA END 'held'")
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED

    again = await tenants.ensure("alpha")

    with pytest.raises(pymysql.MySQLError):
        run(session, "CREATE TABLE planted (a INT PRIMARY KEY)")
    assert once(again, "SHOW TABLES") == []


async def test_readers_and_writers(tenants: Tenants) -> None:
    owner = await tenants.ensure("alpha")
    once(owner, "CREATE TABLE t (a INT PRIMARY KEY)")
    reader, writer = await tenants.role("reader").ensure("alpha"), await tenants.role("writer").ensure("alpha")

    once(writer, "INSERT INTO t VALUES (1)")
    assert once(reader, "SELECT a FROM t") == [(1,)]
    for credential, statement in (
        (reader, "DELETE FROM t"),
        (writer, "DROP TABLE t"),
        (writer, "CREATE TABLE n (a INT PRIMARY KEY)"),
    ):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            once(credential, statement)
    assert (reader.role, writer.role, owner.role) == (Role.READER, Role.WRITER, Role.OWNER)

    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED
    for credential in (owner, reader, writer):
        with pytest.raises(pymysql.MySQLError):
            connect(credential)


async def test_an_adopted_login_goes_on_until_it_is_revoked(
    my_place: Place, tenants: Tenants, cluster: ClusterClient
) -> None:
    """The API gave it all rights in every schema."""
    whole = f"{my_place.prefix}alpha"
    await cluster.dbs.create(whole)
    user = await cluster.users.create(whole)
    assert user.password is not None
    with pytest.raises(ConflictError):
        await tenants.ensure("alpha")

    adopted = await only(tenants.provision(["alpha"], if_exists="adopt"))

    assert (adopted.action, adopted.error) == (TenantAction.ADOPTED, None)
    credential = await tenants.get("alpha")
    assert credential is not None
    assert credential.username != whole
    assert (await only(tenants.check(["alpha"]))).problems == ()
    with pytest.raises(pymysql.MySQLError, match="denied"):
        once(credential, "CREATE USER planted")
    old = evolve(credential, username=whole, password=user.password)
    theirs = connect(old)
    run(theirs, "CREATE TABLE t (a INT PRIMARY KEY)")
    assert once(credential, "SELECT a FROM t") == []

    assert (await only(tenants.revoke_previous(["alpha"]))).action is TenantAction.REVOKED

    with pytest.raises(pymysql.MySQLError):
        run(theirs, "SELECT 1")
    with pytest.raises(pymysql.MySQLError, match="denied"):
        connect(old)
    assert whole not in [each.name for each in await cluster.users.list()]
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_drift_is_found_and_repaired(my_place: Place, tenants: Tenants, cluster: ClusterClient) -> None:
    one, other = await tenants.ensure("alpha"), await tenants.ensure("beta")
    doadmin = await cluster.users.get("doadmin")
    info = (await cluster.info()).connection
    root = pymysql.connect(
        host=info.host,
        port=info.port or 0,
        user="doadmin",
        password=doadmin.password or "",
        autocommit=True,
        ssl={"check_hostname": False},
    )
    with root.cursor() as cursor:
        pattern = in_grant(cursor, one.database or "")
    for statement, problem in (
        (f"REVOKE INSERT ON `{pattern}`.* FROM '{one.username}'@'%'", ProblemKind.RIGHTS_MISSING),
        (f"GRANT SELECT ON `{pattern}`.* TO '{other.username}'@'%'", ProblemKind.OPEN_TO_OTHERS),
        (f"ALTER USER '{one.username}'@'%' ACCOUNT LOCK", ProblemKind.PASSWORD_REFUSED),
    ):
        run(root, statement)
        (checked,) = [each async for each in tenants.check(["alpha"])]
        assert problem in kinds_of(checked.problems), statement
        (repaired,) = [each async for each in tenants.repair(["alpha"])]
        assert (repaired.action, repaired.error) == (TenantAction.REPAIRED, None), statement
        assert [each.problems async for each in tenants.check(["alpha"])] == [()]
    root.close()


async def test_a_prepared_transaction_without_a_session_stops_no_verb_but_the_removal(
    my_place: Place, tenants: Tenants
) -> None:
    """MySQL lists it to nobody whom the provider lets in."""
    alpha = await tenants.ensure("alpha")
    xid = f"'{alpha.database}'"
    with closing(connect(alpha)) as own:
        run(own, "CREATE TABLE t (a INT PRIMARY KEY)")
        for each in (f"XA START {xid}", "INSERT INTO t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}"):
            run(own, each)

    assert (await only(tenants.rotate(["alpha"]))).ok
    assert (await only(tenants.suspend(["alpha"]))).action is TenantAction.SUSPENDED
    assert (await only(tenants.resume(["alpha"]))).action is TenantAction.RESUMED
    removed = await only(tenants.remove(["alpha"]))
    assert isinstance(removed.error, GrantError)
    assert "a prepared transaction (XA) holds tables of the schema" in str(removed.error)
    other = await tenants.ensure("other")
    with closing(connect(other)) as own:
        run(own, f"XA ROLLBACK {xid}")  # by anybody who knows its name
    removed = await only(tenants.remove(["alpha"]))
    assert removed.action is TenantAction.DELETED


@pytest.mark.parametrize("verb", ["suspend", "remove"])
async def test_resisting_login_keeps_no_other(
    tenants: Tenants, opened: Open, mysql_root: str, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A session of the owner, which is ended first, runs a statement that ignores KILL."""
    earlier = await tenants.ensure("alpha")
    once(earlier, "CREATE PROCEDURE p() SELECT 1")  # so this login stays, and has rights
    await only(tenants.rotate(["alpha"]))
    await only(tenants.revoke_previous(["alpha"]))
    owner = await tenants.ensure("alpha")
    others = [await tenants.role(role).ensure("alpha") for role in ("writer", "reader")]
    busy = threading.Thread(target=suppressed, args=(partial(once, owner, IGNORES_KILL),))
    for credential in others:
        opened(credential)

    def count(query: str, *values: str) -> int:
        with administrator(mysql_root) as root:
            root.execute(f"SELECT COUNT(*) FROM {query}", values)
            return int(root.fetchall()[0][0])

    sessions = "performance_schema.threads WHERE PROCESSLIST_USER = %s"
    rights = "mysql.db WHERE Db = %s"
    assert owner.database is not None
    assert count(rights, owner.database) == 1 + len(Role)  # the control
    assert [count(sessions, each.username) for each in others] == [1, 1]
    busy.start()
    await until(lambda: count(f"{sessions} AND PROCESSLIST_STATE = 'executing'", owner.username))
    with monkeypatch.context() as patched:
        patched.setattr(ending, "ENDING_SECONDS", 0.5)
        refused = await only(getattr(tenants, verb)(["alpha"]))

    named = rf"sessions of '{owner.username}' did not end within .*: thread \d+ \(Killed\); run it again"
    assert re.search(named, str(refused.error))
    assert count(sessions, owner.username) == 1
    assert [count(sessions, each.username) for each in others] == [0, 0]
    assert count(rights, owner.database) == 0
    for credential in (earlier, owner, *others):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            connect(credential)
    assert (await only(getattr(tenants, verb)(["alpha"]))).error is None
    busy.join()
