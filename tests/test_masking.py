"""Secrets appear in no repr, log, error or traceback. Each check has a control, in which it finds them."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import aiodbclient
from aiodbclient import Cluster, ClusterInfo, Connection, DatabaseClient, RequestEvent, RetryPolicy, User, errors
from aiodbclient._masking import Secrets

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Server, breaks_off, fails, hangs_up, late, says, speaks, time_out_if_late

PACKAGE = Path(aiodbclient.__file__).parent
TOKEN = "dop_v1_0123456789abcdef0123456789abcdef"
PROVIDERS = "AVNS_f8Qw-_2kd0Z"

MESSAGES = {
    "bearer": f"Authorization: Bearer {TOKEN}",
    "bare": f"<p>{TOKEN}</p>",
    "url": f"https://{TOKEN}@host/",
    "json": json.dumps({"seen": TOKEN}),
    "the provider's password": f"the password {PROVIDERS} is weak",
    "member": json.dumps({"user": {"password": "hunter2", "role": "normal"}}),
    "member with a quote": json.dumps({"password": 'a"hunter2'}),
    "cut member": '{"password": "hunter2',
    "JSON in JSON": json.dumps(json.dumps({"password": "hunter2"})),
    "form": "user=alice&password=hunter2&x=1",
    "yaml": "user:\n  name: alice\n  password: hunter2\n",
    "libpq": "host=h user=alice password='hunter 2' sslmode=require",
    "number": '{"password": 8675309}',
}
SECRETS = (TOKEN, PROVIDERS, "hunter", "8675309")


@pytest.mark.parametrize("form", MESSAGES)
@pytest.mark.parametrize("member", ["id", "message", "request_id"])
async def test_error_masks_secret(
    form: str, member: str, server: Server, make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """An error and the log quote the id, the message and the request id of an answer, with every secret masked."""
    caplog.set_level(logging.DEBUG)
    server.will(says(422, {member: MESSAGES[form]}))

    with pytest.raises(errors.UnprocessableEntityError, match=r"\*\*\*") as caught:
        await make_cluster(TOKEN).users.create("alice")

    assert told(caught.value, *SECRETS) == found(caplog.text, *SECRETS) == []


async def test_unmasked_error_shows_secret(
    server: Server, make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without masking, the same search finds the secret in each form and member, and in the log."""
    monkeypatch.setattr(Secrets, "line", lambda _, text, limit: " ".join(text.split())[:limit])
    caplog.set_level(logging.DEBUG)
    users = make_cluster(TOKEN).users
    for text in MESSAGES.values():
        for member in ("id", "message", "request_id"):
            server.will(says(422, {member: text}))
            with pytest.raises(errors.UnprocessableEntityError) as caught:
                await users.create("alice")
            assert told(caught.value, *SECRETS) != [], (member, text)
    assert found(caplog.text, *SECRETS) == [*SECRETS]


@pytest.mark.parametrize("status", [200, 302, 400, 502])
@pytest.mark.parametrize("text", ["<p>hunter2</p>", '{"user": {"name": "bob", "password": "hunter2"}}', "[1, 2"])
async def test_error_quotes_no_body(status: int, text: str, server: Server, make_cluster: MakeCluster) -> None:
    """No error quotes a body: it may hold a password in any form."""
    server.will(says(status, text=text))

    with pytest.raises(errors.DatabaseClientError) as caught:
        await make_cluster(retry=RetryPolicy(max_tries=1)).users.get("alice")

    assert told(caught.value, "hunter2", "<p>", "[1") == []


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('{"password": "hunter2", "x": 1}', '{"password": ***, "x": 1}'),
        ("a=1&password=hunter2&b=2", "a=1&password=***&b=2"),
        ("password: hunter2\nx: 1", "password: *** x: 1"),
        ("AVNS_hunter2 is too short", "*** is too short"),
        ("the password is too short", "the password is too short"),
        (f"your token {TOKEN} is odd", "your token *** is odd"),
        (f"{TOKEN}{TOKEN}", "******"),
        ("token--0 token--1 token--8", "token--0 *** ***"),  # the eight newest: a late answer may quote an older one
        ("about an invalid token", "about an invalid token"),  # a short token of a test is a part of many words
    ],
)
def test_masking_keeps_rest(text: str, masked: str) -> None:
    """Only the secret is masked, so that the message stays useful."""
    tokens = [f"token--{n}" for n in range(9)] if "token-" in text else [TOKEN, "t", "ab", "invalid"]

    assert secrets_of(*tokens).line(text, 100) == masked


def secrets_of(*tokens: str) -> Secrets:
    secrets = Secrets()
    for token in tokens:
        secrets.add_token(token)
    return secrets


@pytest.mark.parametrize("before", [480, 499, 500, 7990])
def test_masking_before_cut(before: int) -> None:
    """A text is masked before it is cut, so no part of a secret is left at its end."""
    secrets = secrets_of(TOKEN)

    for secret in (TOKEN, PROVIDERS, 'password="hunter2"'):
        line = secrets.line("x" * (before - 1) + " " + secret + "y" * 100, 500)
        assert not {TOKEN[:8], PROVIDERS[:8], "hunt"} & {
            line[at : at + size] for at in range(len(line)) for size in (4, 8)
        }


@pytest.mark.parametrize(
    "unit",
    ["x", " ", '"password":"', '\\"', " \n", "AVNS_", "password", "password ", "password\\", "password='", "password:"],
)
def test_masking_linear_time(unit: str) -> None:
    """A long text of any form is masked in a few milliseconds."""
    secrets = secrets_of(TOKEN)
    started = thread_time()  # whatever else the machine does

    many = unit * (60_000 // len(unit))
    for text in (many, f"password{many}", f'"password"{many}'):
        secrets.line(text, 500)

    assert thread_time() - started < 0.3


@given(text=st.text(max_size=200), where=st.integers(0, 200))
def test_masking_token_in_any_text(text: str, where: int) -> None:
    assert TOKEN not in secrets_of(TOKEN).line(text[:where] + TOKEN + text[where:], 1000)


async def test_an_error_quotes_an_answer_on_one_line(server: Server, cluster: Cluster) -> None:
    evil = "x\nCRITICAL root: \x1b[31mfake\r\u2028line\x00"
    server.will(says(400, {"id": evil, "message": evil, "request_id": evil}))

    with pytest.raises(errors.BadRequestError) as caught:
        await cluster.dbs.list()

    error = caught.value
    for text in (str(error), error.id, error.message, error.request_id or ""):
        assert text.isprintable()


async def begins_with_secrets(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(status=200, headers={"Content-Length": "1000", "X-Seen": TOKEN, "X-Is": PROVIDERS})
    await response.prepare(request)
    await response.write(f'{{"user": {{"password": "{PROVIDERS}'.encode())
    return response


async def breaks_off_with_headers(request: web.BaseRequest) -> web.StreamResponse:
    response = await begins_with_secrets(request)
    assert request.transport is not None
    request.transport.close()
    return response


async def test_cancelled_call_traceback_locals(server: Server, make_cluster: MakeCluster) -> None:
    """No frame of a call that is cancelled in the middle of its answer shows a secret, whatever it had read."""
    arrived = asyncio.Event()

    async def stops_midway(request: web.BaseRequest) -> web.StreamResponse:
        response = await begins_with_secrets(request)
        arrived.set()
        await asyncio.Event().wait()
        return response

    server.otherwise = stops_midway
    users = make_cluster(TOKEN).users
    for turns in range(20):
        arrived.clear()
        call = asyncio.create_task(users.create("alice"))
        await arrived.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert leaked(caught.value) == []


async def test_traceback_locals(server: Server, make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    """No frame of an error shows a secret to tools that print local variables with a traceback, nor does the log."""
    caplog.set_level(logging.DEBUG)
    secrets = {"password": PROVIDERS, "access_key": "the-key", "access_cert": "the-cert"}
    answer = {"user": {"name": "bob", **secrets}}
    async with aiohttp.ClientSession(middlewares=[time_out_if_late]) as session:
        client = make_client(TOKEN, session=session, retry=RetryPolicy(max_tries=2, base_delay=0.001))
        users = client.cluster(CLUSTER, engine="pg").users
        server.will(says(200, answer))
        await users.create("bob")
        calls: dict[str, Any] = {
            "another user": (says(200, answer), users.get),
            "another shape": (says(200, {"wrong": answer}), users.create),
            "an error": (says(422, answer), users.create),
            "a lost one": (hangs_up, users.create),
            "a cut one": (breaks_off, users.create),
            "a late one": (late, users.create),
            "one with headers": (breaks_off_with_headers, users.create),
            "a server's": (says(503, answer), users.reset_auth),
            "a redirect": (says(302, answer, location=f"https://{TOKEN}/"), users.create),
            "a proxy's": (says(502, text=f"<p>authorization: {TOKEN}</p>", x_request_id=TOKEN), users.get),
        }
        for reply, call in calls.values():
            server.otherwise = reply
            with pytest.raises(errors.DatabaseClientError) as caught:
                await call("alice")
            assert leaked(caught.value) == told(caught.value, TOKEN, *secrets.values()) == []
            assert caught.value.__context__ is None
    assert "users.create" in caplog.text
    assert found(caplog.text, TOKEN, *secrets.values()) == []


def test_plain_locals_are_found() -> None:
    """The control: the same search finds secrets in the local variables of a function of the package."""
    code = compile("def fail(token, answer):\n    raise LookupError", str(PACKAGE / "control.py"), "exec")
    names: dict[str, Any] = {}
    exec(code, names)

    with pytest.raises(LookupError) as caught:
        names["fail"](TOKEN, {"password": PROVIDERS})

    assert leaked(caught.value) == [TOKEN, PROVIDERS]


async def test_event_and_log_show_no_secret(
    server: Server, make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """An error shows the request id of its body, not the one in the headers."""
    events: list[RequestEvent] = []
    server.will(
        says(200, {"dbs": []}, x_request_id="from-header"),
        says(400, {"id": "x", "message": "y", "request_id": "from-body"}, x_request_id="from-header"),
        says(200, {"dbs": []}, x_request_id=TOKEN),
        says(200, {"dbs": []}),
    )
    dbs = make_cluster(TOKEN, on_event=events.append).dbs

    with caplog.at_level(logging.DEBUG, "aiodbclient"):
        await dbs.list()
        with pytest.raises(errors.BadRequestError, match=r"400 x: y \(request id from-body\)$") as caught:
            await dbs.list()
        await dbs.list()
        await dbs.list()

    assert caught.value.request_id == "from-body"
    assert [event.request_id for event in events] == ["from-header", "from-body", "***", None]
    assert TOKEN not in repr([vars(record) for record in caplog.records])


def test_no_repr_shows_a_credential() -> None:
    user = User("alice", None, "hunter2", "the-cert", "the-key")
    connection = Connection(uri="postgres://doadmin:hunter2@h", password="hunter2", user="doadmin")
    cluster = ClusterInfo(CLUSTER, "main", "pg", users=[user], connection=connection)

    for value in (user, connection, cluster, str(cluster), [user]):
        assert not any(secret in repr(value) for secret in ("hunter2", "the-cert", "the-key"))
    assert "password='********'" in repr(user)
    assert "password=None" in repr(User("alice"))
    assert repr(aiodbclient.NewUser("alice"))


PASSWORD_JSON = b'{"user":{"name":"alice","password":"hunter2"}}'
MALFORMED = {
    "no chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + PASSWORD_JSON,
    "short chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n" + PASSWORD_JSON,
    "no status line": PASSWORD_JSON + b"\r\n\r\n",
    "a header of the token": b"HTTP/1.1 200 OK\r\nsecret-token hunter2\r\n\r\n",
    "the token as request id": b"HTTP/1.1 400 Bad\r\nx-request-id: secret-token\r\ncontent-length: 0\r\n\r\n",
    "a redirect to the token": b"HTTP/1.1 302 Found\r\nlocation: http://secret-token/\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_answer_is_not_quoted(answer: bytes) -> None:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with speaks(reply, reply) as (client, _):
        users = client.cluster(CLUSTER, engine="pg").users
        for call in (users.get, users.create):
            with pytest.raises(errors.DatabaseClientError) as caught:
                await call("alice")
            assert told(caught.value, "hunter2", "secret-token") == []


PRINTS_LOCALS: dict[str, Callable[[], DatabaseClient]] = {
    "token with a newline": lambda: DatabaseClient(f"{TOKEN}\n"),
    "token of the environment": DatabaseClient,
    "another invalid option": lambda: DatabaseClient(TOKEN, timeout=-1),
    "an unencrypted address": lambda: DatabaseClient(TOKEN, base_url="http://h"),
    "a password in base_url": lambda: DatabaseClient("token", base_url=f"https://me:{TOKEN}@api.example"),
    "a header": lambda: DatabaseClient("token").with_options(headers={"X-Key": f"{TOKEN}\n"}),
    "a header with another name": lambda: DatabaseClient("token").with_options(headers={"X Y": TOKEN}),
    "another option beside a header": lambda: DatabaseClient("token").with_options(headers={"X-Key": TOKEN}, timeout=0),
    "a proxy's password": lambda: DatabaseClient("token", base_url="https://api.example", trust_env=True),
}


@pytest.mark.parametrize("case", PRINTS_LOCALS)
def test_refused_option_traceback_locals(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that prints local variables with a traceback shows no token, no header and no password."""
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", f"{TOKEN}\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{TOKEN}@host/path")

    with pytest.raises(errors.DatabaseClientError) as caught:
        PRINTS_LOCALS[case]()

    assert leaked(caught.value) == []


@pytest.mark.parametrize("status", [None, 400])
async def test_request_traceback_locals(status: int | None, server: Server, make_client: MakeClient) -> None:
    """The same for a token in the path, the params or the body of a request, refused by us or by the API."""
    client = make_client(TOKEN)
    server.otherwise = fails(status or 200, message=f"no {TOKEN}")
    path = f"/v2/databases/{TOKEN}" if status else f"/v2/databases?token={TOKEN}"

    with pytest.raises(errors.DatabaseClientError) as caught:
        await client.request("GET", path, params={"t": TOKEN}, json={"t": TOKEN})

    assert leaked(caught.value) == []
    assert told(caught.value, TOKEN) == []


def leaked(error: BaseException) -> list[str]:
    """The secrets in the local variables of our frames."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    assert ours
    shown = "".join(str(frame.locals) for frame in ours)
    return [secret for secret in (TOKEN, PROVIDERS, "hunter2") if secret in shown]


def told(error: Exception, *secrets: str) -> list[str]:
    """The secrets in the message, the attributes and the traceback of an error."""
    attributes = repr(vars(error)) + "".join(map(str, vars(error).values()))
    return found("".join(traceback.format_exception(error)) + attributes, *secrets)


def found(text: str, *secrets: str) -> list[str]:
    return [secret for secret in secrets if secret.lower() in text.lower()]
