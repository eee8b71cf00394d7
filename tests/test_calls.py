"""The life of a call: its requests, its failures, and what follows them."""

from __future__ import annotations

import aiohttp
import pytest

from aiodbclient import RetryPolicy, UserSettings, errors
from aiodbclient._http.call import Call, Options, RequestStats
from aiodbclient._http.failures import FAILURES, BodyError, no_slot, refused, without_answer
from aiodbclient._http.operations import (
    CREATE_DB,
    CREATE_USER,
    DELETE_USER,
    GET_USER,
    RESET_AUTH,
    UPDATE_USER,
    Operation,
)
from aiodbclient._http.response import Response
from aiodbclient._http.retry import Failure, Pauses, RetryDecision
from aiodbclient._json.masking import Secrets

LIST = "users.create (POST /p)"


def call_of(
    operation: Operation = CREATE_USER, max_wait: float | None = None, meter: RequestStats | None = None
) -> Call:
    return Call(operation, "/p", Options(max_wait=max_wait, timeout=2.5, meter=meter))


def secrets() -> Secrets:
    known = Secrets()
    known.learn_token("dop_v1_secret_token")
    return known


def answered(call: Call, status: int, body: bytes = b"", **headers: str) -> errors.DatabaseClientError:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return refused(call, Response(call, status, sent, body, secrets(), lambda: None))


# Requests.


def test_each_request_counts_and_takes_of_the_calls_patience() -> None:
    meter = RequestStats()
    call = call_of(max_wait=3.0, meter=meter)
    assert (call.requests, call.sent, call.patience, meter.requests, meter.seconds) == (0, 0, 3.0, 0, 0.0)

    call.begin(1.0)
    assert (call.requests, call.sent, call.patience, meter.requests) == (1, 1, 2.0, 1)
    call.begin(5.0)
    assert (call.requests, call.sent, call.patience, meter.requests) == (2, 2, 0.0, 2)

    patient = call_of()
    patient.begin(100.0)
    assert patient.patience is None


def test_a_body_is_json_and_none_is_none() -> None:
    call = Call(CREATE_USER, "/p", Options(), body={"name": "ä", "settings": {"acl": [1, None]}})
    assert call.body == b'{"name": "\\u00e4", "settings": {"acl": [1, null]}}'
    assert Call(CREATE_USER, "/p", Options(), body={}).body == b"{}"
    assert call_of().body is None
    for value in ({1}, UserSettings()):
        with pytest.raises(
            errors.InvalidArgumentError, match=r"^users\.create: JSON cannot represent the arguments: .*nothing was"
        ):
            Call(CREATE_USER, "/p", Options(), body={"name": value})


# Failures without an answer.


def test_a_request_that_never_left_does_not_count_as_sent() -> None:
    call = call_of()
    call.begin(0.0)
    failure = without_answer(call, "api.example", aiohttp.ConnectionTimeoutError("dop_v1_secret_token"), secrets())

    assert isinstance(failure, errors.ConnectError)
    assert str(failure) == f"{LIST}: no connection, nothing was sent: ConnectionTimeoutError: ***"
    assert (call.failure, call.then, call.sent, call.lost) == (Failure.NOT_SENT, RetryDecision.RETRY, 0, False)

    call.begin(0.0)
    without_answer(call, "api.example", TimeoutError(), secrets())
    call.begin(0.0)
    failure = without_answer(call, "api.example", aiohttp.ConnectionTimeoutError("again"), secrets())
    assert str(failure) == f"{LIST}: no connection: ConnectionTimeoutError: again"


@pytest.mark.parametrize(
    ("error", "kind", "text", "failure", "lost"),
    [
        (
            TimeoutError(),
            errors.RequestTimeoutError,
            "no whole answer within 2.5 s from api.example",
            Failure.LOST,
            True,
        ),
        (
            aiohttp.ServerDisconnectedError("gone with dop_v1_secret_token"),
            errors.ConnectionLostError,
            "the connection broke before the whole answer: ServerDisconnectedError: gone with ***",
            Failure.LOST,
            True,
        ),
        (
            ConnectionResetError("reset"),
            errors.ConnectionLostError,
            "the connection broke before the whole answer: ConnectionResetError: reset",
            Failure.LOST,
            True,
        ),
        (BodyError("is too long"), errors.InvalidResponseError, "the answer (200) is too long", Failure.REFUSED, False),
        (MemoryError(), errors.InvalidResponseError, "the answer does not fit into memory", Failure.REFUSED, False),
        (
            ValueError("dop_v1_secret_token"),
            errors.ConfigurationError,
            "aiohttp refused the request or the answer (ValueError); a session of yours must not find credentials of "
            "its own, as trust_env=True does in a netrc file",
            Failure.REFUSED,
            False,
        ),
    ],
)
def test_the_error_of_an_incomplete_answer_says_what_broke(
    error: Exception, kind: type[errors.DatabaseClientError], text: str, failure: Failure, lost: bool
) -> None:
    call = call_of()
    call.begin(0.0)
    assert isinstance(error, FAILURES)

    call.status = 200
    raised = without_answer(call, "api.example", error, secrets())
    call.complete(raised)

    assert type(raised) is kind
    assert str(raised).startswith(f"{LIST}: {text}; it may have been applied: read the name back")
    assert (call.failure, call.sent, call.lost) == (failure, 1, lost)
    assert call.timed_out is isinstance(error, TimeoutError)
    assert raised.may_have_applied
    if isinstance(raised, errors.InvalidResponseError):
        assert raised.status == 200


@pytest.mark.parametrize("error", [aiohttp.ConnectionTimeoutError, aiohttp.ServerDisconnectedError])
def test_the_text_of_a_broken_connection_is_cut(error: type[Exception]) -> None:
    call = call_of()
    call.begin(0.0)

    text = str(without_answer(call, "api.example", error("x" * 2000), secrets()))

    assert 450 < text.count("x") < 501


def test_a_read_is_never_applied() -> None:
    for error in (TimeoutError(), BodyError("is too long"), ValueError()):
        call = call_of(GET_USER)
        call.begin(0.0)
        raised = without_answer(call, "api.example", error, secrets())
        call.complete(raised)
        assert not raised.may_have_applied
        assert "applied" not in str(raised)


# Refusals.


def test_a_429_says_how_long_to_wait() -> None:
    call = call_of()
    call.closed_for = 7.0
    raised = answered(call, 429, x_request_id="r1")
    assert isinstance(raised, errors.RateLimitError)
    assert (raised.retry_after, call.failure, call.request_id) == (7.0, Failure.THROTTLED, "r1")

    raised = answered(call, 429, retry_after="3")
    assert isinstance(raised, errors.RateLimitError)
    assert raised.retry_after == 3.0
    assert (call.lost, call.timed_out) == (False, False)


@pytest.mark.parametrize(
    ("status", "lost", "timed_out"),
    [
        (400, False, False),
        (501, False, False),
        (500, True, False),
        (503, True, False),
        (504, True, True),
        (522, True, True),
        (524, True, True),
    ],
)
def test_some_answers_leave_the_request_lost(status: int, lost: bool, timed_out: bool) -> None:
    call = call_of()
    answered(call, status)
    assert (call.lost, call.timed_out) == (lost, timed_out)
    assert call.failure is (Failure.LOST if lost else Failure.REFUSED)
    answered(call, 500)
    assert call.timed_out is timed_out  # whatever follows


# What an error says about the whole call.


@pytest.mark.parametrize(
    ("operation", "advice"),
    [
        (
            CREATE_USER,
            "it may have been applied: read the name back; if it is there without a password that you know, reset_auth "
            "it, else create it again",
        ),
        (CREATE_DB, "it may have been applied: read the name back, and create it again if it is not there"),
        (RESET_AUTH, "it may have been applied: the old password may be revoked, so reset_auth it again"),
        (UPDATE_USER, "it may have been applied"),
    ],
)
def test_the_error_of_a_lost_write_says_what_to_do(operation: Operation, advice: str) -> None:
    call = call_of(operation)
    call.begin(0.0)
    call.begin(0.0)
    error = answered(call, 503, x_request_id="r1")
    text = str(error.args[0])
    call.complete(error)
    assert str(error) == f"{text}; {advice} (after 2 tries)"
    assert (error.tries, error.may_have_applied) == (2, True)

    later = errors.PermissionDeniedError("403", status=403)
    call.failure = Failure.REFUSED
    call.complete(later)
    assert (later.may_have_applied, later.request_id) == (True, "r1")


def test_an_error_without_a_request_says_so_once() -> None:
    error = errors.ConfigurationError("the client is closed")
    call_of().complete(error)
    assert str(error) == "the client is closed; nothing was sent"
    call_of().complete(error)
    assert str(error) == "the client is closed; nothing was sent"
    assert (error.may_have_applied, error.tries) == (False, 0)

    call = call_of()
    call.begin(0.0)
    refusal = errors.BadRequestError("400", status=400, request_id="its own")
    call.request_id = "another"
    call.complete(refusal)
    assert (str(refusal), refusal.request_id) == ("400", "its own")


def test_a_call_without_a_slot_says_how_long_it_would_wait() -> None:
    call = call_of()
    refusal = no_slot(call, 12.34)
    assert str(refusal) == f"{LIST}: the rate budget has no slot for another 12.3 s, longer than max_wait allows"
    assert refusal.retry_after == 12.34

    refusal = no_slot(call, 0.0)
    assert (
        str(refusal)
        == f"{LIST}: the rate budget has no slot within max_wait: other calls have it until they are answered"
    )

    call.request_id = "r1"
    refusal = no_slot(call, None)
    assert str(refusal) == f"{LIST}: the rate budget has no slot within max_wait (request id r1)"
    assert refusal.retry_after is None


# What follows.


def test_only_a_delete_that_was_lost_is_done_by_a_404() -> None:
    operations = (GET_USER, UPDATE_USER, DELETE_USER, RESET_AUTH, CREATE_USER)
    assert [call_of(operation).not_found_is_success for operation in operations] == [False, False, True, False, False]

    def then(failure: Failure) -> list[RetryDecision]:
        calls = [call_of(operation) for operation in operations]
        for call in calls:
            call.failure = failure
        return [call.then for call in calls]

    assert then(Failure.NOT_SENT) == then(Failure.THROTTLED) == [RetryDecision.RETRY] * 5
    assert then(Failure.LOST) == [
        RetryDecision.RETRY,
        RetryDecision.RETRY,
        RetryDecision.RETRY_NOT_FOUND_IS_SUCCESS,
        RetryDecision.RETRY,
        RetryDecision.RAISE,
    ]
    assert then(Failure.REFUSED) == [RetryDecision.RAISE] * 5


def test_the_waits_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    pauses = Pauses(RetryPolicy(base_delay=0.5, max_delay=3.0))
    lost = errors.ConnectionLostError("lost")
    assert [pauses.after(lost) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    asked = errors.ServerError("503", status=503)
    asked.retry_after = 61.0
    assert pauses.after(asked) == 60.0
