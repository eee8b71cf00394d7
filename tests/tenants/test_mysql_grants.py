"""Refusals of MySQL and MariaDB become errors that name the tenant and contain no secret."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiodbclient.tenants._grants import mysql_server, mysql_sessions
from aiodbclient.tenants._grants.mysql import MySQLGrants

from aiodbclient import Action, ClusterClient, DatabaseClient, RateBudget
from aiodbclient.errors import ConfigurationError, GrantError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants
from aiodbclient.tenants import _logins as logins
from aiodbclient.tenants import _provisioning as provisioning
from aiodbclient.tenants._naming import names_of

from ..mysql import administrator
from .conftest import only


@pytest.fixture
async def cluster(mysql_cluster: tuple[Sandbox, str]) -> AsyncIterator[ClusterClient]:
    sandbox, cluster_id = mysql_cluster
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateBudget([])) as client:
        yield client.cluster(cluster_id)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        yield store


async def as_administrator(cluster: ClusterClient, statement: str) -> None:
    doadmin = await cluster.users.get("doadmin")
    with administrator((await cluster.info()).connection.uri_for(doadmin)) as cursor:
        cursor.execute(statement)


async def test_missing_rights_of_the_administrator_are_reported_with_the_statement_and_no_secret(
    cluster: ClusterClient, store: SQLiteStore
) -> None:
    beta = await Tenants(cluster, store, "rights_").ensure("beta")  # has all rights in its database, and none elsewhere

    with pytest.raises(GrantError) as caught:
        await Tenants(cluster, store, "rights_", admin=beta.uri).ensure("alpha")

    assert caught.value.tenant == "alpha"
    assert caught.value.statement.startswith("SELECT Host FROM mysql.user")
    assert "MySQL refused a statement" in str(caught.value)
    assert beta.password is not None
    assert beta.password not in str(caught.value)
    assert await Tenants(cluster, store, "rights_").ensure("alpha")


async def test_an_administrator_who_cannot_log_in_is_met_before_anything_is_made(
    cluster: ClusterClient, store: SQLiteStore, unused_tcp_port: int
) -> None:
    connection = (await cluster.info()).connection
    for admin in (
        f"mysql://doadmin:wrong-secret@{connection.host}:{connection.port}/",
        f"mysql://doadmin:wrong-secret@127.0.0.1:{unused_tcp_port}/",
    ):
        with pytest.raises(GrantError, match="cannot log in") as caught:
            await Tenants(cluster, store, "login_", admin=admin).ensure("alpha")
        assert "wrong-secret" not in str(caught.value)
    for nonsense in (
        "nonsense wrong-secret",
        "postgresql://doadmin:wrong-secret@127.0.0.1/",
        "mysql://[wrong-secret",
        *(f"mysql://doadmin:a@wrong-secret{end}b@127.0.0.1/" for end in "/?#"),  # the host would be wrong-secret
    ):
        with pytest.raises(ConfigurationError, match="not a DSN of MySQL") as refused:
            await Tenants(cluster, store, "login_", admin=nonsense).ensure("alpha")
        assert "wrong-secret" not in str(refused.value)
    assert not [user.name for user in await cluster.users.list() if user.name.startswith("login_")]


async def test_a_login_that_the_server_refuses_is_not_put_on_record(
    cluster: ClusterClient, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seconds of retries, since it may be about to be deleted.
    monkeypatch.setattr(provisioning, "_RETURNED_AFTER_DELETION", 0.2)
    monkeypatch.setattr(logins, "SOON", 0.2)  # and since the server may accept its password a moment later
    monkeypatch.setattr(mysql_sessions, "_END_SECONDS", 1.0)
    tenants = Tenants(cluster, store, "locked_")
    user = await cluster.users.create("locked_alpha")
    await as_administrator(cluster, "ALTER USER locked_alpha@'%' REQUIRE ISSUER '/CN=nobody'")

    failed = await only(tenants.provision(["alpha"], if_exists="adopt"))

    assert isinstance(failed.error, GrantError)
    assert "Access denied for user 'locked_alpha'" in str(failed.error)
    assert user.password is not None
    assert user.password not in str(failed.error)
    assert await tenants.get("alpha") is None
    await as_administrator(cluster, "ALTER USER locked_alpha@'%' REQUIRE NONE")
    assert (await only(tenants.provision(["alpha"], if_exists="adopt"))).action is Action.ADOPTED


def _greeting(capabilities: int) -> bytes:
    """What a server sends first."""
    salt, plugin = b"8" * 8, b"caching_sha2_password\0"
    low, high = capabilities.to_bytes(4, "little")[:2], capabilities.to_bytes(4, "little")[2:]
    text = b"\x0a8.0.99\0" + bytes(4) + salt + b"\0" + low + b"\x21\x02\0" + high + b"\x15" + bytes(10) + salt
    packet = text + b"8888\0" + plugin
    return len(packet).to_bytes(3, "little") + b"\0" + packet


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("greets", [False, True], ids=["silent", "greets"])
async def test_a_connection_that_cannot_be_made_is_closed_at_once(
    monkeypatch: pytest.MonkeyPatch, tls: bool, greets: bool
) -> None:
    """Of a server that hangs, without help by the garbage collector, while the errors are still there."""
    monkeypatch.setattr(mysql_server, "CONNECT_SECONDS", 0.1)
    closed = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        if greets:
            writer.write(_greeting(0xFFFFFFFF))
        while await reader.read(1000):
            pass
        closed += 1
        writer.close()

    gc.collect()
    gc.disable()
    errors: list[Exception] = []
    try:
        async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            ca = trustme.CA().cert_pem.bytes().decode() if tls else None
            grants = MySQLGrants(f"mysql://doadmin:secret@127.0.0.1:{port}/", ca)
            names = names_of("alpha", "mysql")
            for act in (grants.check(), grants.log_in(names, "alpha", "secret"), grants.problems(names, ["alpha"])):
                with pytest.raises(GrantError, match="no answer within") as caught:
                    await act
                errors.append(caught.value)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await grants.check()
            async with asyncio.timeout(5):
                while closed < 4:
                    await asyncio.sleep(0.005)
    finally:
        gc.enable()
