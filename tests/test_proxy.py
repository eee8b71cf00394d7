"""The tests' own proxy adds TLS, delays and cuts, for PostgreSQL and HTTP."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psycopg
import pytest
import trustme

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox

from .proxy import Proxy, behind_proxy


@pytest.fixture(params=[True, False], ids=["TLS", "plain"])
def authority(request: pytest.FixtureRequest) -> trustme.CA | None:
    return trustme.CA() if request.param else None


@pytest.fixture
async def cluster(sandbox: Sandbox) -> str:
    return await sandbox.add_cluster("pg", backend="postgres")


@pytest.fixture
def proxy(sandbox: Sandbox, cluster: str, authority: trustme.CA | None) -> Iterator[Proxy]:
    with behind_proxy(sandbox, cluster, authority) as proxy:
        yield proxy


@pytest.fixture
async def uri(sandbox: Sandbox, cluster: str, proxy: Proxy, tmp_path: Path, authority: trustme.CA | None) -> str:
    """The verified URI of a user, by way of the proxy."""
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
        server, user = (await client.clusters.get(cluster)).connection, await client.cluster(cluster).users.create("a")
        if authority is not None:
            (tmp_path / "ca.pem").write_text(await client.cluster(cluster).ca())
    assert server is not None
    assert server.port == proxy.port
    return server.uri_for(user, ca_file=tmp_path / "ca.pem")


async def test_postgres_tls(uri: str, authority: trustme.CA | None) -> None:
    async with await psycopg.AsyncConnection.connect(uri) as session:
        assert session.pgconn.ssl_in_use is (authority is not None)
        await session.execute("CREATE TEMPORARY TABLE numbers (n int)")
        async with session.cursor() as cursor, cursor.copy("COPY numbers FROM STDIN") as copy:
            for number in range(20_000):
                await copy.write_row([number])
        assert await (await session.execute("SELECT sum(n) FROM numbers")).fetchall() == [(199990000,)]
    if authority is not None:
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            await psycopg.AsyncConnection.connect(uri, sslmode="disable")


async def test_postgres_delay_and_cut(proxy: Proxy, uri: str) -> None:
    slow = proxy.add(delay=0.2, nth=2, login="a")
    other = proxy.add(cut=True, login="somebody else")
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as session:
        await session.execute("SELECT 1")
        started = time.monotonic()
        await session.execute("SELECT 2")
        assert time.monotonic() - started >= 0.2
        assert (slow.seen, slow.fired, other.seen) == (2, 1, 0)
        proxy.add(cut=True, times=1)
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 3")
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as session:
        await session.execute("SELECT 4")


async def test_postgres_refused_login(proxy: Proxy, uri: str) -> None:
    refused = proxy.add("login", sqlstate="53300", times=1)
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        await psycopg.AsyncConnection.connect(uri)
    await (await psycopg.AsyncConnection.connect(uri)).close()
    assert (refused.seen, refused.fired) == (2, 1)


async def test_http(sandbox: Sandbox, authority: trustme.CA | None) -> None:
    context = ssl.create_default_context()
    if authority is not None:
        authority.configure_trust(context)
    scheme = "http" if authority is None else "https"
    headers = {"authorization": f"Bearer {sandbox.token}"}
    with Proxy(int(sandbox.url.rpartition(":")[2]), "http", authority) as proxy:
        url = f"{scheme}://127.0.0.1:{proxy.port}/v2/databases"
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.get(url, ssl=context) as answer:
                assert answer.status == 200
            proxy.add(delay=0.2, times=1)
            started = time.monotonic()
            async with session.get(url, ssl=context) as answer:
                assert answer.status == 200
            assert time.monotonic() - started >= 0.2
            proxy.add(cut=True)
            with pytest.raises(aiohttp.ClientError):
                await session.get(url, ssl=context)
    assert len(sandbox.requests) == 2
