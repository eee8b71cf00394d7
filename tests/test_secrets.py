"""Passwords, keys and tokens appear in no repr, log or error."""

from __future__ import annotations

import asyncio
import logging
import traceback

import aiohttp
import pytest

from aiodbclient import Cluster, Connection, DatabaseClient, NewUser, RetryPolicy, User, errors

from .conftest import MakeClient
from .server import CLUSTER, Server, breaks_off, fails, hangs_up, says

PASSWORD_JSON = b'{"user":{"name":"alice","password":"hunter2"}}'
SECRETS = ["hunter2", "the-key", "the-cert", "secret-token"]


def test_no_repr_shows_a_credential() -> None:
    user = User("alice", None, "hunter2", "the-cert", "the-key")
    connection = Connection(uri="postgres://doadmin:hunter2@h", password="hunter2", user="doadmin")
    cluster = Cluster(CLUSTER, "main", "pg", users=[user], connection=connection)

    for value in (user, connection, cluster, str(cluster), [user]):
        assert not any(secret in repr(value) for secret in SECRETS)
    assert "password='********'" in repr(user)
    assert "password=None" in repr(User("alice"))
    assert repr(NewUser("alice"))


async def test_no_log_and_no_error_shows_a_credential(
    server: Server, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = {"user": {"name": "alice", "password": "hunter2", "access_key": "the-key", "access_cert": "the-cert"}}
    server.will(
        says(201, answer),
        breaks_off,
        hangs_up,
        fails(422, message="you sent Bearer secret-token and password=hunter2"),
        says(200, {"wrong": answer}),
        says(502, text="<p>authorization: secret-token</p>"),
    )
    users = make_client(retry=RetryPolicy(max_tries=1)).cluster(CLUSTER, engine="pg").users
    printed: list[str] = []

    with caplog.at_level(logging.DEBUG):
        await users.create("alice")
        for _ in range(5):
            with pytest.raises(errors.DatabaseClientError) as caught:
                await users.reset_auth("alice")
            printed += [repr(caught.value), repr(vars(caught.value)), *traceback.format_exception(caught.value)]
    printed.append(caplog.text)

    assert [secret for secret in SECRETS if secret in "".join(printed)] == []


async def test_the_error_of_a_refusing_proxy_has_no_password() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        async with aiohttp.ClientSession(proxy=f"http://me:hunter2@127.0.0.1:{port}") as session:
            client = DatabaseClient("secret-token", session=session, retry=RetryPolicy(max_tries=1))
            with pytest.raises(errors.ConnectError, match="the proxy answered 407; it was not sent") as caught:
                await client.cluster(CLUSTER, engine="pg").users.list()

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


MALFORMED = {
    "no chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + PASSWORD_JSON,
    "short chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n" + PASSWORD_JSON,
    "no status line": PASSWORD_JSON + b"\r\n\r\n",
    "a header of the token": b"HTTP/1.1 200 OK\r\nsecret-token hunter2\r\n\r\n",
    "the token as request id": b"HTTP/1.1 400 Bad\r\nx-request-id: secret-token\r\ncontent-length: 0\r\n\r\n",
    "a redirect to the token": b"HTTP/1.1 302 Found\r\nlocation: http://secret-token/\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
async def test_the_error_of_a_malformed_answer_does_not_quote_it(answer: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with DatabaseClient("secret-token", base_url=url, retry=RetryPolicy(max_tries=1)) as client:
            for call in (
                client.cluster(CLUSTER, engine="pg").users.get,
                client.cluster(CLUSTER, engine="pg").users.create,
            ):
                with pytest.raises(errors.DatabaseClientError) as caught:
                    await call("alice")
                printed = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
                assert [secret for secret in SECRETS if secret in printed] == []


async def test_each_request_is_one_debug_line(
    server: Server, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.will(fails(503), says(200, {"dbs": []}))

    with caplog.at_level(logging.DEBUG, "aiodbclient"):
        await make_client().cluster(CLUSTER, engine="pg").dbs.list()

    first, _, second = (record.getMessage() for record in caplog.records)  # between them: why it tries again
    assert first.startswith(f"GET /v2/databases/{CLUSTER}/dbs?per_page=200: 503 in ")
    assert second.startswith(f"GET /v2/databases/{CLUSTER}/dbs?per_page=200: 200 in ")
    assert second.endswith("try 2")
