"""Answers that do not match the API description."""

from __future__ import annotations

import pickle
import traceback
from contextlib import suppress
from typing import Any

import pytest

from aiodbclient import Cluster, RequestEvent, RetryPolicy, errors

from .conftest import MakeClient, MakeCluster
from .server import Server, says

SHAPES = {
    "html": "<html>hello</html>",
    "nothing": "",
    "cut": '{"user": {"name": "alice", "password": "hunter2',
    "list": "[]",
    "nested without end": "[" * 100_000,
    "null": "null",
    "no key": '{"usr": {}}',
    "null user": '{"user": null}',
    "list user": '{"user": []}',
    "no name": '{"user": {"password": "hunter2"}}',
    "number name": '{"user": {"name": 5, "password": "hunter2"}}',
    "list password": '{"user": {"name": "alice", "password": ["hunter2"]}}',
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES.keys())
async def test_success_of_another_shape_is_invalid(text: str, server: Server, cluster: Cluster) -> None:
    """The error shows no secret."""
    server.will(says(201, text=text))

    with pytest.raises(errors.InvalidResponseError) as caught:
        await cluster.users.create("alice")

    error = caught.value
    assert (error.status, error.tries) == (201, 1)
    assert error.may_have_applied
    assert "hunter2" not in "".join(traceback.format_exception(error)) + repr(error.__dict__)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\ud83d\\ud83d", "\\uD83D"])
async def test_password_with_half_a_character_is_invalid(half: str, server: Server, cluster: Cluster) -> None:
    users = cluster.users
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
    status: int, error_type: type[errors.APIError], text: str, server: Server, make_cluster: MakeCluster
) -> None:
    server.will(says(status, text=text, x_request_id="from-header"))

    with pytest.raises(error_type, match=str(status)) as caught:
        await make_cluster(retry=RetryPolicy(max_tries=1)).dbs.list()

    assert caught.value.request_id == "from-header"


@pytest.mark.parametrize(
    ("status", "location", "said"),
    [
        (301, "https://elsewhere.example/a/b?next=https://other.example/c", "a redirect to elsewhere.example"),
        (302, "https://alice:hunter2@elsewhere.example:8443/login", "a redirect to elsewhere.example:8443"),
        (307, "https://elsewhere.example", "a redirect to elsewhere.example"),
        (308, "/login", "a redirect to another path"),
        (302, f"https://{'e' * 300}/a", f"a redirect to {'e' * 200}"),
        (304, None, "which is not documented"),
    ],
)
async def test_redirect_is_not_followed(
    status: int, location: str | None, said: str, server: Server, make_client: MakeClient
) -> None:
    """Its error names only the host."""
    server.will(says(status, text="<html>moved</html>", **({} if location is None else {"location": location})))

    with pytest.raises(errors.InvalidResponseError) as caught:
        await make_client().clusters.list()

    followed = ", not followed because the token is only for base_url" if location else ""
    assert str(caught.value).endswith(f"answered {status}, {said}{followed}")
    assert caught.value.status == status
    assert len(server.requests) == 1


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
        (400, {"id": "bad", "message": "x" * (1 << 16)}, "400 Bad Request"),  # more than 64 KiB are not decoded
    ],
)
async def test_an_error_says_what_the_server_said(
    status: int, body: Any, said: str, server: Server, make_client: MakeClient
) -> None:
    server.will(says(status, body) if body is not None else says(status, text=""))

    with pytest.raises(errors.APIError) as caught:
        await make_client().clusters.list()

    sent = body if body and len(str(body)) < 1 << 16 else {}
    error = caught.value
    assert str(error).split(": ", 1)[1] == said
    assert (error.status, error.id, error.message) == (status, sent.get("id", ""), sent.get("message", "")[:500])
    assert error.request_id is None


@pytest.mark.parametrize("status", [200, 400])
async def test_long_request_id_is_cut(status: int, server: Server, make_client: MakeClient) -> None:
    server.will(says(status, {"databases": []}, x_request_id="r" * 600))
    events: list[RequestEvent] = []

    with suppress(errors.BadRequestError):
        await make_client(on_event=events.append).clusters.list()

    assert [event.request_id for event in events] == ["r" * 500]


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
