"""The calls of the API as docs/why/provider.md assumes them, and a tenant's life by SQL on the real server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from attrs import evolve
from psycopg.conninfo import make_conninfo

from aiodbclient import Cluster, ClusterInfo, DatabaseClient, NewUser, User
from aiodbclient.engines import CAPABILITIES, MYSQL, POSTGRESQL, Engine
from aiodbclient.errors import NameTakenError, NotFoundError
from aiodbclient.tenants import SQLiteStore, TenantRole, Tenants

from .conftest import SETTINGS

SECONDS = 10  # for which reads may be behind writes


async def settled(is_so: Callable[[], Awaitable[bool]]) -> bool:
    """Whether something becomes so within ten seconds."""
    for _ in range(SECONDS):
        if await is_so():
            return True
        await asyncio.sleep(1.0)
    return await is_so()


async def read_soon(cluster: Cluster, name: str) -> User:
    """Read a new user, which may be missing for a moment."""
    found: list[User] = []

    async def is_there() -> bool:
        with suppress(NotFoundError):
            found.append(await cluster.users.get(name))
        return bool(found)

    assert await settled(is_there), f"reads do not show the new user for {SECONDS} s"
    return found[0]


async def test_create_returns_password(user: User) -> None:
    """`password-on-create`: the answer to a create has the password."""
    assert user.password


async def test_reads_show_new_user(cluster: Cluster, user: User) -> None:
    """`read-lag`, `password-on-reads`, `password-once`, `settings-on-reads`."""
    read = await read_soon(cluster, user.name)
    if not CAPABILITIES[Engine(cluster.engine or "")].returns_passwords:
        assert read.password is None
    elif read.password is not None:  # the token has database:view_credentials
        assert read.password == user.password
    if read.settings is not None and (sent := SETTINGS.get(cluster.engine or "")) is not None:
        acl = None if read.settings.acl is None else [evolve(each, id=None) for each in read.settings.acl]
        assert evolve(read.settings, acl=acl) == sent


async def test_taken_name_is_refused(cluster: Cluster, user: User) -> None:
    """`taken-names`: a create of a taken name is a 409 or 422."""
    with pytest.raises(NameTakenError):
        await cluster.users.create(user.name, settings=SETTINGS.get(cluster.engine or ""))


async def test_reset_replaces_password(cluster: Cluster, user: User) -> None:
    """`reset`: reset_auth returns another password."""
    again = await cluster.users.reset_auth(user.name)
    assert again.password
    assert again.password != user.password


async def test_deleted_user_is_gone(cluster: Cluster, user: User) -> None:
    """`deletes`: within ten seconds, reading and deleting a deleted user is a 404."""

    async def is_gone() -> bool:
        with suppress(NotFoundError):
            await cluster.users.get(user.name)
            return False
        return True

    await cluster.users.delete(user.name)
    assert await settled(is_gone)
    with pytest.raises(NotFoundError):
        await cluster.users.delete(user.name)


async def test_users_created_at_once(cluster: Cluster, new_user: Callable[[str], NewUser]) -> None:
    """`writes-at-once`, `names`: four users at once, and names keep their case, digits, _ and -."""
    users = [new_user(end) for end in ("xX_9", "1", "2", "3")]
    async for outcome in cluster.users.provision(users):
        assert outcome.error is None, outcome.error
        assert outcome.action == "created"
    async for removal in cluster.users.deprovision(users):
        assert removal.error is None, removal.error


async def test_database_lives_and_goes(cluster: Cluster, prefix: str) -> None:
    """`dbs-key`: databases are created, listed and deleted."""
    if not CAPABILITIES[Engine(cluster.engine or "")].dbs:
        pytest.skip(f"a {cluster.engine} has no dbs")
    name = f"{prefix}-db"

    async def is_listed() -> bool:
        return name in {db.name for db in await cluster.dbs.list()}

    await cluster.dbs.create(name)
    assert await settled(is_listed)
    await cluster.dbs.delete(name)


async def test_hourly_limit_is_reported(client: DatabaseClient, info: ClusterInfo) -> None:
    """`hourly-limit`: answers report 5,000 requests an hour."""
    assert info.id
    assert client.rate_limit is not None
    assert client.rate_limit.limit == 5000


async def test_login_with_verified_tls(cluster: Cluster, info: ClusterInfo, user: User, tmp_path: Path) -> None:
    """`ca`: the cluster's authority signs its servers' certificates. A user of the API logs in."""
    if info.engine not in POSTGRESQL | MYSQL:
        pytest.skip("needs PostgreSQL or MySQL")
    assert info.connection is not None
    where, ca = info.connection, await cluster.ca()
    if info.engine in MYSQL:
        import aiomysql

        login = {"host": where.host, "port": where.port, "user": user.name, "password": user.password}
        connection = await aiomysql.connect(**login, ssl=ssl.create_default_context(cadata=ca))
        connection.close()
        return
    (tmp_path / "ca.pem").write_text(ca)
    uri = where.uri_for(user, database="defaultdb", ca_file=tmp_path / "ca.pem")
    async with await psycopg.AsyncConnection.connect(make_conninfo(uri, connect_timeout=10)) as session:
        rows = await (await session.execute("SELECT session_user")).fetchall()
    assert rows == [(user.name,)]


async def has_no_problems(tenants: TenantRole, name: str) -> bool:
    """Whether ``check`` logs in with each credential, and finds nothing."""
    [outcome] = await tenants.check([name])
    assert outcome.error is None, outcome.error
    assert outcome.problems == ()
    return True


async def test_tenant_lives_and_goes(cluster: Cluster, info: ClusterInfo, prefix: str, tmp_path: Path) -> None:
    """`doadmin`, `doadmin-mysql`, `by-sql`: create, rotate, revoke, read-only login, suspend, resume, remove."""
    if info.engine not in POSTGRESQL | MYSQL:
        pytest.skip("needs PostgreSQL or MySQL")
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        tenants = Tenants(cluster, store)
        try:
            first = await tenants.ensure(prefix)
            assert await has_no_problems(tenants, prefix)
            [rotated] = await tenants.rotate([prefix])
            assert rotated.error is None, rotated.error
            assert await has_no_problems(tenants, prefix)  # both logins work
            [revoked] = await tenants.revoke_previous([prefix])
            assert (revoked.error, revoked.action) == (None, "revoked")
            now = await tenants.get(prefix)
            assert now is not None
            assert now.username != first.username
            await tenants.role("reader").ensure(prefix)
            assert await has_no_problems(tenants.role("reader"), prefix)
            for run, action in ((tenants.suspend, "suspended"), (tenants.resume, "resumed")):
                [outcome] = await run([prefix])
                assert (outcome.error, outcome.action) == (None, action)
            assert await has_no_problems(tenants, prefix)
        finally:
            [removed] = await tenants.remove([prefix])
        assert removed.error is None, removed.error
