"""Answers that do not match the API description."""

from __future__ import annotations

import json
import pickle
import traceback
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiodbclient import RequestEvent, RetryPolicy, User, errors
from aiodbclient._headers import retry_after
from aiodbclient._json import UNREADABLE, decode

from .conftest import MakeClient
from .server import CLUSTER, Server, says

SHAPES = {
    "html": "<html>hello</html>",
    "nothing": "",
    "cut": '{"user": {"name": "alice", "password": "hunter2',
    "list": "[]",
    "nested without end": "[" * 100_000,
    "null": "null",
    "number": "7",
    "no key": '{"usr": {}}',
    "null user": '{"user": null}',
    "list user": '{"user": []}',
    "no name": '{"user": {"password": "hunter2"}}',
    "null name": '{"user": {"name": null, "password": "hunter2"}}',
    "number name": '{"user": {"name": 5, "password": "hunter2"}}',
    "object role": '{"user": {"name": "alice", "role": {"a": 1}, "password": "hunter2"}}',
    "list settings": '{"user": {"name": "alice", "settings": [1], "password": "hunter2"}}',
    "list password": '{"user": {"name": "alice", "password": ["hunter2"]}}',
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
async def test_success_of_another_shape_is_invalid(text: str, server: Server, make_client: MakeClient) -> None:
    """The error shows no secret."""
    server.will(says(201, text=text))

    with pytest.raises(errors.InvalidResponseError) as caught:
        await make_client().cluster(CLUSTER, engine="pg").users.create("alice")

    error = caught.value
    assert (error.status, error.tries) == (201, 1)
    assert error.may_have_applied
    assert "hunter2" not in "".join(traceback.format_exception(error)) + repr(error.__dict__)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\ud83d\\ud83d"])
async def test_password_with_half_a_character_is_invalid(half: str, server: Server, make_client: MakeClient) -> None:
    users = make_client().cluster(CLUSTER, engine="pg").users
    server.otherwise = says(201, text=f'{{"user": {{"name": "alice", "role": "normal", "password": "hunter2{half}"}}}}')

    for call in (users.create("alice"), users.get("alice"), users.list()):
        with pytest.raises(errors.InvalidResponseError) as caught:
            await call
        assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))

    server.otherwise = says(201, text='{"user": {"name": "alice", "password": "\\ud83d\\ude00"}}')
    assert (await users.get("alice")).password == "😀"


@pytest.mark.parametrize(
    "text",
    [
        "<html>x</html>",
        "",
        '{"id": "cut',
        "[]",
        '{"error": 5}',
        '{"id": 5, "message": null}',
        '{"message": "half a pair: \\ud800"}',
        pytest.param("[" * 100_000, id="nested without end"),
    ],
)
@pytest.mark.parametrize(("status", "error_type"), [(404, errors.NotFoundError), (500, errors.ServerError)])
async def test_error_with_another_body_keeps_its_type(
    status: int, error_type: type[errors.APIError], text: str, server: Server, make_client: MakeClient
) -> None:
    server.will(says(status, text=text, x_request_id="from-header"))

    with pytest.raises(error_type, match=str(status)) as caught:
        await make_client(retry=RetryPolicy(max_tries=1)).cluster(CLUSTER, engine="pg").dbs.list()

    assert caught.value.request_id == "from-header"


@pytest.mark.parametrize(
    ("status", "location", "where"),
    [
        (301, "https://elsewhere.example/a/b?next=https://other.example/c", "elsewhere.example"),
        (302, "https://alice:hunter2@elsewhere.example:8443/login", "elsewhere.example:8443"),
        (307, "https://elsewhere.example", "elsewhere.example"),
        (308, "/login", "another path"),
        (302, f"https://{'e' * 300}/a", "e" * 200),
    ],
)
async def test_redirect_is_not_followed(
    status: int, location: str, where: str, server: Server, make_client: MakeClient
) -> None:
    """Its error names only the host."""
    server.will(says(status, text="<html>moved</html>", location=location))

    with pytest.raises(errors.InvalidResponseError) as caught:
        await make_client().clusters.list()

    said = f"answered {status}, a redirect to {where}, not followed because the token is only for base_url"
    assert str(caught.value).endswith(said)
    assert caught.value.status == status
    assert "moved" not in str(caught.value)
    assert len(server.requests) == 1


async def test_status_that_is_no_success_is_named(server: Server, make_client: MakeClient) -> None:
    server.will(says(304))

    with pytest.raises(errors.InvalidResponseError, match="answered 304, which is not documented") as caught:
        await make_client().clusters.list()

    assert caught.value.status == 304


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, {"id": "not_found", "message": "no such user"}, "404 not_found: no such user"),
        (404, {"id": "not_found"}, "404 not_found"),
        (404, {"message": "no such user"}, "404 no such user"),
        (404, {}, "404 Not Found"),
        (418, None, "418 I'm a Teapot"),
        (499, None, "499 an unknown status"),
        (400, {"message": "m" * 600}, "400 " + "m" * 500),
    ],
)
async def test_an_error_says_what_the_server_said(
    status: int, body: Any, said: str, server: Server, make_client: MakeClient
) -> None:
    server.will(says(status, body) if body is not None else says(status, text=""))

    with pytest.raises(errors.APIError) as caught:
        await make_client().clusters.list()

    sent = body or {}
    assert str(caught.value).split(": ", 1)[1].startswith(said)
    assert caught.value.id == sent.get("id", "")
    assert caught.value.message == sent.get("message", "")[:500]
    assert str(caught.value).count("m" * 501) == 0
    assert caught.value.status == status


async def test_request_id_of_body_before_headers(server: Server, make_client: MakeClient) -> None:
    server.will(says(400, {"message": "bad", "request_id": "from-body"}, x_request_id="from-header"), says(400, {}))
    clusters = make_client().clusters

    with pytest.raises(errors.BadRequestError, match=r"400 bad \(request id from-body\)$") as caught:
        await clusters.list()
    assert caught.value.request_id == "from-body"

    with pytest.raises(errors.BadRequestError) as caught:
        await clusters.list()
    assert caught.value.request_id is None
    assert str(caught.value).endswith(": 400 Bad Request")


@pytest.mark.parametrize("status", [200, 400])
async def test_long_request_id_is_cut(status: int, server: Server, make_client: MakeClient) -> None:
    server.will(says(status, {"databases": []}, x_request_id="r" * 600))
    events: list[RequestEvent] = []

    with suppress(errors.BadRequestError):
        await make_client(on_event=events.append).clusters.list()

    assert [event.request_id for event in events] == ["r" * 500]


async def test_large_error_is_not_decoded(server: Server, make_client: MakeClient) -> None:
    """It has more than 64 KiB."""
    long = {"id": "bad", "message": "x" * (1 << 16)}
    server.will(says(400, long))

    with pytest.raises(errors.BadRequestError) as caught:
        await make_client().clusters.list()

    assert caught.value.id == ""
    assert len(str(caught.value)) < 300


async def test_page_of_proxy_is_no_deletion(server: Server, make_client: MakeClient) -> None:
    server.will(says(200, text="<html>please log in</html>"))

    with pytest.raises(errors.InvalidResponseError, match="not empty") as caught:
        await make_client().cluster(CLUSTER, engine="pg").users.delete("alice")

    assert caught.value.may_have_applied


async def test_guard_needs_only_the_engine(server: Server, make_client: MakeClient) -> None:
    server.will(says(200, {"database": {"engine": "redis", "created_at": "garbage", "connection": {"port": "x"}}}))

    with pytest.raises(errors.UnsupportedOperationError):
        await make_client().cluster(CLUSTER).dbs.list()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-1", None), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
def test_retry_after_is_seconds_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_can_be_a_date() -> None:
    assert (retry_after({"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"}) or 0) > 1e9
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) is None
    assert retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:49 GMT"}) == 10


ERRORS: list[Any] = [
    errors.ConnectError("m"),
    errors.UnsupportedOperationError("m", engine="redis", operation="users.list"),
    errors.InvalidResponseError("m", status=200, may_have_applied=True),
    errors.MaxWaitError("m", retry_after=2.0),
    errors.RateLimitError("m", retry_after=3.0, request_id="r"),
    errors.ServerError("m", status=500, id="i", message="x"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_travels_between_processes(error: errors.DatabaseClientError) -> None:
    error.tries = 3
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), copy.__dict__) == (type(error), str(error), error.__dict__)


_ANY: st.SearchStrategy[object] = st.sampled_from([None, "", {}, [], 0, "x", "normal", "primary", False])
_MEMBERS: dict[str, st.SearchStrategy[object]] = {
    "role": _ANY,
    "password": _ANY,
    "access_key": _ANY,
    "settings": _ANY | st.fixed_dictionaries({}, optional={"pg_allow_replication": _ANY | st.booleans(), "acl": _ANY}),
}


@example({"name": "alice", "role": "normal", "password": "x", "settings": {}})
@given(st.fixed_dictionaries({"name": st.sampled_from(["alice", None, 5])}, optional=_MEMBERS))
def test_unknown_member_changes_nothing_else(user: dict[str, object]) -> None:
    def read(members: dict[str, object]) -> User | str:
        try:
            return decode(json.dumps({"user": members}).encode(), "user", User)
        except UNREADABLE:
            return "another shape"

    assert read(user) == read(user | {"new": 1})
