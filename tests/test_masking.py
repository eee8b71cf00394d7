"""Known secrets are masked wherever an answer contains them."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from base64 import b64encode
from pathlib import Path
from time import thread_time
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import aiodbclient
from aiodbclient import RequestEvent, RetryPolicy, errors
from aiodbclient._json import masking
from aiodbclient._json.masking import Secrets

from .conftest import MakeClient
from .server import CLUSTER, Server, breaks_off, fails, hangs_up, returns_the_user, says, stalls

PACKAGE = Path(aiodbclient.__file__).parent
TOKEN = "dop_v1_0123456789abcdef0123456789abcdef"
PROVIDERS = "AVNS_f8Qw-_2kd0Z"

TOKEN_FORMS = {
    "bearer": f"Authorization: Bearer {TOKEN}",
    "bare": f"<p>{TOKEN}</p>",
    "header": f"authorization: {TOKEN}",
    "member": json.dumps({"token": TOKEN}),
    "other member": json.dumps({"seen": {"x": TOKEN}}),
    "quoted twice": json.dumps(json.dumps({"auth": f"Bearer {TOKEN}"})),
    "form": f"a=1&auth={TOKEN}&b=2",
    "url": f"https://{TOKEN}@host/",
    "base64": b64encode(TOKEN.encode()).decode(),
}
PASSWORD_FORMS = {
    "prose": "the password {} is too short",
    "form": "user=alice&password={}&x=1",
    "yaml": "user:\n  name: alice\n  password: {}\n",
    "html": "<td>{}</td>",
    "libpq": "host=h user=alice password={} sslmode=require",
    "the middle of an answer": '{}", "role": "normal"}}}}',
    "uri": "postgres://alice:{}@host/db",
    "xml": "<password>{}</password>",
}


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("status", [200, 201, 302, 400, 500])
async def test_the_token_is_masked_wherever_an_answer_says_it(
    status: int, form: str, server: Server, make_client: MakeClient
) -> None:
    server.will(says(status, text=TOKEN_FORMS[form], x_request_id=TOKEN))

    with pytest.raises(errors.DatabaseClientError) as caught:
        await make_client(TOKEN, retry=RetryPolicy(max_tries=1)).cluster(CLUSTER, engine="pg").users.create("alice")

    assert_untold(caught.value, TOKEN, b64encode(TOKEN.encode()).decode())


@pytest.mark.parametrize("before", [1990, 7950, 7980, 7999, 8001])
async def test_a_token_across_the_end_of_an_excerpt_is_not_shown_in_part(
    before: int, server: Server, make_client: MakeClient
) -> None:
    server.will(says(200, text="x" * before + TOKEN + "y" * 100))

    with pytest.raises(errors.InvalidResponseError) as caught:
        await make_client(TOKEN).cluster(CLUSTER, engine="pg").users.get("alice")

    assert_untold(caught.value, TOKEN[:8])


def test_a_password_across_the_end_of_what_is_searched_is_not_shown_in_part() -> None:
    known = Secrets()
    password = "".join(str(n) for n in range(100, 133))
    known.learn([password])

    # Masked, the text before the cut password is short enough to be shown whole.
    for before in range(8000 - len(password), 8000):
        text = (f"{password} " * 100)[: before - 1] + " " + password + " is weak"
        assert password[:4] not in known.masked(text, 8000)


@pytest.mark.parametrize("password", [PROVIDERS, 'hunt"er 2/ü'])
@pytest.mark.parametrize("form", PASSWORD_FORMS)
@pytest.mark.parametrize("status", [200, 422])
async def test_a_returned_password_is_masked_wherever_an_answer_quotes_it(
    status: int, form: str, password: str, server: Server, make_client: MakeClient
) -> None:
    users = make_client(TOKEN, retry=RetryPolicy(max_tries=1)).cluster(CLUSTER, engine="pg").users
    server.will(returns_the_user(password))
    await users.create("alice")
    server.will(says(status, text=PASSWORD_FORMS[form].format(password)))

    with pytest.raises(errors.DatabaseClientError) as caught:
        await users.get("alice")

    assert_untold(caught.value, password, quote(password, safe=""), json.dumps(password)[1:-1])


@pytest.mark.parametrize(
    "password", ["AVNS_ab!Secret$Tail9876", "AVNS_ab Secret", 'AVNS_ab"Secret', "AVNS_ab\\Secret", "AVNS_'Secret"]
)
def test_no_tail_of_a_provider_s_password_stays(password: str) -> None:
    known = Secrets()
    if not set(password) & set(" '\"\\"):
        assert known.line(f"the password {password} is weak", 100) == "the password *** is weak"
    known.learn([password])
    for text in (password, json.dumps(password), quote(password)):
        assert "Secret" not in known.line(f"the password {text} is weak", 100)


@pytest.mark.parametrize("password", ["pass\tword", "pass\u00a0word", "pass\nword", "pass\x00word", "pass\u2028word"])
def test_a_password_with_odd_white_space_is_masked_in_a_line(password: str) -> None:
    known = Secrets()
    known.learn([password])

    for text in (password, json.dumps(password)[1:-1], quote(password)):
        masked = known.line(f"the {text} is weak", 100)
        assert masked == "the *** is weak"


@pytest.mark.parametrize("password", ["a&b<c>d", "käse/😀 brot", 'q"uö\\te', "per%41cent", "&amp;&lt;"])
def test_a_password_is_masked_however_it_is_escaped(password: str) -> None:
    known = Secrets()
    known.learn([password])
    as_go_does = json.dumps(password).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    forms = [
        password,
        json.dumps(password)[1:-1],
        json.dumps(password, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(password))[3:-3],
        as_go_does[1:-1],
        quote(password),
        quote(password, safe=""),
        b64encode(password.encode()).decode().rstrip("="),
    ]

    assert [known.masked(f"x{form}y") for form in forms] == ["x***y"] * len(forms)


def test_a_password_that_is_no_unicode_is_masked() -> None:
    """JSON may escape one half of a character."""
    known = Secrets()
    known.keep(b'{"password": "half\\ud800one"}')
    forms = ["half\ud800one", "half\\ud800one", "half%3Fone", b64encode(b"half?one").decode()]
    assert [known.masked(f"x {form}") for form in forms] == ["x ***"] * 3 + ["x ***="]


def test_a_password_that_begins_another_leaves_no_tail_of_it() -> None:
    known = Secrets()
    known.learn(["hunter", "hunter2hunter3", "hunter2"])

    assert known.masked("hunter2hunter3, hunter2, hunterhunter, hunter2hunter") == "***, ***, ******, ******"


def test_a_long_secret_is_masked_whole() -> None:
    known = Secrets()
    secret = "".join(str(n) for n in range(400))
    known.learn([secret])

    assert known.masked(f"a {secret} b") == "a *** b"


def test_masking_is_quick_for_any_passwords_of_an_answer() -> None:
    known = Secrets()
    known.learn(f"aaaa{n}" for n in range(4000))
    known.learn("a" * n for n in range(4, 64))
    started = thread_time()  # whatever else the machine does

    for text in ("a" * 8000, "\\u0061" * 2000, "%61" * 3000, "aaaab" * 2000):
        known.masked(text)

    assert thread_time() - started < 2.0


def test_newer_passwords_take_the_place_of_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_MOST", 3)
    known = Secrets()
    known.learn(f"password{n}" for n in range(8))

    masked = [known.masked(f"password{n}") for n in range(8)]

    assert masked[-4:] == ["***"] * 4
    assert masked[0] == "password0"


def test_a_password_too_short_to_mask_pushes_out_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_MOST", 3)
    known = Secrets()
    known.learn(["password1", "password2", "password3", "abc"])

    assert known.masked("password1 abc") == "*** abc"


def test_passwords_of_the_provider_push_out_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_MOST", 3)
    known = Secrets()
    known.keep(listed(["hunter2", *(f"AVNS_{n}" for n in range(20)), *(f"AVNS_-{n}_" for n in range(20))]))

    assert known.masked("hunter2") == "***"


def test_kept_answers_take_a_bounded_memory_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_UNREAD", 2 * len(listed(["password0"])))
    known = Secrets()
    for n in range(6):
        known.keep(listed([f"password{n}"]))

    assert known.masked("password0 password4 password5") == "password0 *** ***"
    known.keep(listed(["a-longer-password" * 10]))
    assert known.masked("a-longer-password" * 10) == "***"


def listed(passwords: list[str | None]) -> bytes:
    return json.dumps({"users": [{"name": "alice", "password": password} for password in passwords]}).encode()


@pytest.mark.parametrize(
    "odd",
    [
        "hunter2",
        "hunter2 is",
        "AVNS_ab Secret",
        'AVNS_ab"Secret',
        "AVNS_ab\nAVNS_Secret",
        "AVNS_ab\tSecret",
        "AVNS_ab\u00a0Secret",
        "AVNS_ab\nSecret",
        "x\nAVNS_Secret",
        None,
        "",
    ],
)
@pytest.mark.parametrize("where", [0, 1, 2, None])
def test_a_password_among_many_of_the_provider_is_masked(odd: str | None, where: int | None) -> None:
    passwords: list[str | None] = ["AVNS_a1", "AVNS_b-2_"]
    if where is None:
        passwords = [odd]
    else:
        passwords.insert(where, odd)
    known = Secrets()

    known.keep(listed(passwords))

    for password in passwords:
        if password:
            assert known.line(f"the {password} is weak", 100) == "the *** is weak"


async def test_passwords_of_lists_and_clusters_are_known_too(server: Server, make_client: MakeClient) -> None:
    connection = {"host": "h", "password": "of-the-cluster"}
    dashboard, registry = ({"host": "h", "password": f"of-the-{of}"} for of in ("dashboard", "registry"))
    listed = [{"name": "a", "password": "of-the-list"}]
    server.will(
        says(200, {"users": listed}),
        says(
            200,
            {
                "database": {"id": CLUSTER, "name": "n", "engine": "pg", "private_connection": connection}
                | {"ui_connection": dashboard, "schema_registry_connection": registry}
            },
        ),
        fails(400, message="of-the-list, of-the-dashboard, of-the-registry and of-the-cluster"),
    )
    cluster = make_client().cluster(CLUSTER, engine="pg")
    await cluster.users.list()
    await cluster.info()

    with pytest.raises(errors.BadRequestError, match=r"\*\*\*, \*\*\*, \*\*\* and \*\*\*"):
        await cluster.dbs.list()


async def test_passwords_of_a_list_of_clusters_are_known_too(server: Server, make_client: MakeClient) -> None:
    listed = {"id": CLUSTER, "name": "n", "engine": "pg", "connection": {"host": "h", "password": "of-the-cluster"}}
    server.will(says(200, {"databases": [listed]}), fails(400, message="of-the-cluster"))
    client = make_client()
    await client.clusters.list()

    with pytest.raises(errors.BadRequestError) as caught:
        await client.cluster(CLUSTER).dbs.list()

    assert caught.value.message == "***"


async def test_exactly_the_credentials_in_any_json_are_known(server: Server, make_client: MakeClient) -> None:
    credentials = {"password": "hunter2", "access_key": "the-key", "nodes": [{"token": "the-token"}, 5, "primary"]}
    server.will(
        says(200, {"name": "alice", "all": [{"secret": "the-secret"}, [credentials]], "passwd": "the-passwd"}),
        fails(400, message="hunter2, the-key, the-token, the-secret and the-passwd of alice on primary"),
    )
    client = make_client()
    await client.request("GET", "/v2/databases")

    with pytest.raises(errors.BadRequestError, match=r"\*\*\*, \*\*\*, \*\*\*, \*\*\* and \*\*\* of alice on primary"):
        await client.request("GET", "/v2/databases")


async def test_a_providers_password_is_masked_before_it_was_ever_returned(
    server: Server, make_client: MakeClient
) -> None:
    server.will(fails(422, message=f"alice has {PROVIDERS} already", id=PROVIDERS))

    with pytest.raises(errors.UnprocessableEntityError, match=r"alice has \*\*\* already") as caught:
        await make_client().cluster(CLUSTER, engine="pg").users.create("alice")

    assert_untold(caught.value, PROVIDERS)


@pytest.mark.parametrize("value", ["8675309", "-86753.09e+1", '"8675309"', '["8675309"]', '{"is": 8675309}'])
async def test_the_value_of_a_credential_member_is_masked_in_any_form(
    value: str, server: Server, make_client: MakeClient
) -> None:
    server.will(says(200, text=f'{{"user": {{"name": 1, "password": {value}, "role": "normal"}}}}'))

    with pytest.raises(errors.InvalidResponseError) as caught:
        await make_client().cluster(CLUSTER, engine="pg").users.get("alice")

    assert "86753" not in caught.value.body
    assert '"role": "normal"' in caught.value.body


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_credential_in_yaml_is_masked_in_a_line_too(end: str) -> None:
    text = f"a: 1{end}password: hunter2{end}b:\x00 2{end}"

    assert Secrets().line(text, 100) == "a: 1 password: *** b: 2"
    assert "hunter2" not in Secrets().masked(text)


async def test_an_error_quotes_an_answer_on_one_line(server: Server, make_client: MakeClient) -> None:
    evil = "x\nCRITICAL root: \x1b[31mfake\r\u2028line\x00"
    server.will(says(400, {"id": evil, "message": evil, "request_id": evil}))

    with pytest.raises(errors.BadRequestError) as caught:
        await make_client().cluster(CLUSTER, engine="pg").dbs.list()

    error = caught.value
    for text in (str(error), error.id, error.message, error.request_id or ""):
        assert text.isprintable()


async def breaks_off_with_headers(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(status=200, headers={"Content-Length": "1000", "X-Seen": TOKEN, "X-Is": PROVIDERS})
    await response.prepare(request)
    await response.write(f'{{"user": {{"password": "{PROVIDERS}'.encode())
    assert request.transport is not None
    request.transport.close()
    return response


async def test_no_frame_of_a_cancelled_call_shows_a_secret(server: Server, make_client: MakeClient) -> None:
    arrived = asyncio.Event()

    async def stops_midway(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers={"X-Seen": TOKEN, "X-Is": PROVIDERS})
        await response.prepare(request)
        await response.write(f'{{"user": {{"password": "{PROVIDERS}'.encode())
        arrived.set()
        await asyncio.sleep(30)
        return response

    server.otherwise = stops_midway
    call = asyncio.create_task(make_client(TOKEN).cluster(CLUSTER, engine="pg").users.create("alice"))
    await arrived.wait()
    await asyncio.sleep(0.05)
    call.cancel()

    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    shown = "".join(str(frame.locals) for frame in frames if Path(frame.filename).is_relative_to(PACKAGE))
    assert [secret for secret in (TOKEN, PROVIDERS) if secret in shown] == []


async def test_no_frame_of_a_traceback_shows_a_secret(server: Server, make_client: MakeClient) -> None:
    """As tools show it that print local variables with a traceback."""
    answer = {"user": {"name": "bob", "password": PROVIDERS}}
    client = make_client(TOKEN, retry=RetryPolicy(max_tries=2, base_delay=0.001), timeout=0.2)
    users = client.cluster(CLUSTER, engine="pg").users
    calls: dict[str, Any] = {
        "another user": (says(200, answer), users.get),
        "another shape": (says(200, {"wrong": answer}), users.create),
        "an error": (says(422, answer), users.create),
        "a lost one": (hangs_up, users.create),
        "a cut one": (breaks_off, users.create),
        "a late one": (stalls(), users.create),
        "one with headers": (breaks_off_with_headers, users.create),
        "a server's": (says(503, answer), users.reset_auth),
        "a redirect": (says(302, answer, location=f"https://{TOKEN}/"), users.create),
    }
    for reply, call in calls.values():
        server.script.clear()
        server.otherwise = reply
        with pytest.raises(errors.DatabaseClientError) as caught:
            await call("alice")
        frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
        ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
        assert ours
        shown = "".join(str(frame.locals) for frame in ours)
        assert [secret for secret in (TOKEN, PROVIDERS, "hunter2") if secret in shown] == []
        assert caught.value.__context__ is None


async def test_an_event_and_its_log_line_have_the_request_id_and_no_secret(
    server: Server, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[RequestEvent] = []
    server.will(
        says(200, {"dbs": []}, x_request_id="from-header"),
        says(400, {"id": "x", "message": "y", "request_id": "from-body"}, x_request_id="from-header"),
        says(200, {"dbs": []}, x_request_id=TOKEN),
        says(200, {"dbs": []}),
    )
    dbs = make_client(TOKEN, on_event=events.append).cluster(CLUSTER, engine="pg").dbs

    with caplog.at_level(logging.DEBUG, "aiodbclient"):
        await dbs.list()
        with pytest.raises(errors.BadRequestError):
            await dbs.list()
        await dbs.list()
        await dbs.list()

    assert [event.request_id for event in events] == ["from-header", "from-body", "***", None]
    assert TOKEN not in repr([vars(record) for record in caplog.records])


@given(
    secrets=st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=4, max_size=30)),
    text=st.text(max_size=200),
    where=st.integers(0, 200),
)
def test_no_known_secret_survives_in_any_text(secrets: list[str], text: str, where: int) -> None:
    known = Secrets()
    known.learn(secrets)
    for secret in secrets:
        masked = known.masked(text[:where] + secret + text[where:])
        assert secret not in masked or secret in "***"


def assert_untold(error: Exception, *secrets: str) -> None:
    shown = "".join(traceback.format_exception(error)) + repr(vars(error)) + "".join(map(str, vars(error).values()))
    assert [secret for secret in secrets if secret.lower() in shown.lower()] == []
