"""How a lost create is settled, rule by rule of aiodbclient/_bulk/settle.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from aiodbclient import RetryPolicy, errors
from aiodbclient._bulk import settle
from aiodbclient._bulk.settle import create_and_settle, send_until_readable
from aiodbclient._http.waits import waits

RETRY = RetryPolicy(max_tries=3, base_delay=0.0001)


class ScriptedName:
    """Answers creates and reads of one name as scripted, and repeats the last answer."""

    def __init__(self, creates: list[Any], reads: list[Any]) -> None:
        self._answers = {"create": creates, "read": reads}
        self.requests: list[str] = []

    def request(self, kind: str) -> Callable[[], Any]:
        async def send() -> str:
            self.requests.append(kind)
            answers = self._answers[kind]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        return send

    async def settled(self) -> tuple[bool, str]:
        return await create_and_settle(self.request("create"), self.request("read"), RETRY)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "LOOK", 0.01)
    monkeypatch.setattr(settle, "FRESH", 0.05)


def lost(text: str = "the answer was lost") -> errors.DatabaseClientError:
    return errors.ConnectionLostError(text, may_have_applied=True)


def taken() -> errors.APIError:
    return errors.NameTakenError("409", status=409)


def refused() -> errors.APIError:
    return errors.UnprocessableEntityError("422", status=422, id="unprocessable_entity", message="too long")


NOT_FOUND = errors.NotFoundError("404", status=404)
UNREADABLE = errors.InvalidResponseError("HTML", status=200)


async def test_created_name_is_ours() -> None:
    server = ScriptedName(["made"], [])
    assert await server.settled() == (True, "made")
    assert server.requests == ["create"]


async def test_taken_name_is_read_until_visible() -> None:
    server = ScriptedName([taken()], [NOT_FOUND, NOT_FOUND, UNREADABLE, "theirs"])
    assert await server.settled() == (False, "theirs")
    assert server.requests == ["create", "read", "read", "read", "read"]


async def test_taken_name_never_visible() -> None:
    refusal = taken()
    server = ScriptedName([refusal], [NOT_FOUND])
    with pytest.raises(errors.NameTakenError) as caught:
        await server.settled()
    assert caught.value is refusal
    assert not refusal.may_have_applied


async def test_other_refusal_reads_once() -> None:
    server = ScriptedName([refused()], ["theirs"])
    assert await server.settled() == (False, "theirs")
    assert server.requests == ["create", "read"]

    refusal = refused()
    server = ScriptedName([refusal], [UNREADABLE, NOT_FOUND, "too late"])
    with pytest.raises(errors.UnprocessableEntityError) as caught:
        await server.settled()
    assert caught.value is refusal
    assert caught.value.__suppress_context__
    assert not refusal.may_have_applied
    assert server.requests == ["create", "read", "read"]


async def test_unapplied_error_is_raised() -> None:
    error = errors.PermissionDeniedError("403", status=403)
    server = ScriptedName([error], ["theirs"])
    with pytest.raises(errors.PermissionDeniedError) as caught:
        await server.settled()
    assert caught.value is error
    assert not error.may_have_applied
    assert server.requests == ["create"]


@pytest.mark.parametrize("status", [501, 505, 507, 508, 599])
async def test_status_of_no_lost_answer_is_raised(status: int) -> None:
    error = errors.ServerError(str(status), status=status, may_have_applied=True)
    server = ScriptedName([error], ["theirs"])
    with pytest.raises(errors.ServerError) as caught:
        await server.settled()
    assert caught.value is error
    assert server.requests == ["create"]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524])
async def test_status_of_lost_answer_is_settled(status: int) -> None:
    error = errors.ServerError(str(status), status=status, may_have_applied=True)
    server = ScriptedName([error], ["ours"])
    assert await server.settled() == (True, "ours")
    assert server.requests == ["create", "read"]


async def test_lost_create_visible_is_ours() -> None:
    server = ScriptedName([lost()], [UNREADABLE, "ours"])
    assert await server.settled() == (True, "ours")
    assert server.requests == ["create", "read", "read"]


async def test_lost_create_missing_is_sent_again() -> None:
    server = ScriptedName([lost(), lost(), "made"], [NOT_FOUND])
    assert await server.settled() == (True, "made")
    assert server.requests == ["create", "read", "create", "read", "create"]


@pytest.mark.parametrize("refusal", [taken, refused])
async def test_lost_create_refused_next_time_is_ours(refusal: Callable[[], errors.APIError]) -> None:
    server = ScriptedName([lost(), refusal()], [NOT_FOUND, NOT_FOUND, "ours"])
    assert await server.settled() == (True, "ours")
    assert server.requests == ["create", "read", "create", "read", "read"]


async def test_create_lost_each_time_is_unsettled() -> None:
    server = ScriptedName([lost(), lost(), lost(), lost("the last one was lost")], [NOT_FOUND])
    with pytest.raises(errors.ConnectionLostError) as caught:
        await server.settled()
    assert str(caught.value) == "it is unknown whether it was created: the last one was lost"
    assert caught.value.may_have_applied
    assert server.requests == ["create", *["read", "create"] * RETRY.max_tries]


@pytest.mark.parametrize(
    ("creates", "reads"),
    [
        ([lost()], [errors.AuthenticationError("the end", status=401)]),
        ([lost(), errors.PermissionDeniedError("the end", status=403)], [NOT_FOUND]),
        ([lost(), errors.ConflictError("the end", status=409)], [NOT_FOUND]),
        ([lost()], [errors.InvalidResponseError("the end")]),
    ],
    ids=["the read fails", "the second create fails", "it is refused and never seen", "the read cannot be read"],
)
async def test_unsettled_create_may_have_applied(creates: list[Any], reads: list[Any]) -> None:
    with pytest.raises(errors.DatabaseClientError, match="it is unknown whether it was created: the end") as caught:
        await ScriptedName(creates, reads).settled()
    assert caught.value.may_have_applied


async def test_unreadable_answer_is_sent_again() -> None:
    server = ScriptedName([], [UNREADABLE, UNREADABLE, "there"])
    assert await send_until_readable(server.request("read"), RETRY) == "there"

    server = ScriptedName([], [UNREADABLE])
    with pytest.raises(errors.InvalidResponseError):
        await send_until_readable(server.request("read"), RETRY)
    assert len(server.requests) == RETRY.max_tries

    server = ScriptedName([], [NOT_FOUND])
    with pytest.raises(errors.NotFoundError):
        await send_until_readable(server.request("read"), RETRY)
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", [refused(), errors.ConnectError("no connection, nothing was sent")])
async def test_refusal_after_unreadable_answer(
    end: errors.DatabaseClientError,
) -> None:
    unreadable = errors.InvalidResponseError("HTML", may_have_applied=True)
    server = ScriptedName([], [unreadable, end])

    with pytest.raises(type(end), match="an earlier answer was unreadable; the last try: ") as caught:
        await send_until_readable(server.request("read"), RETRY)

    assert caught.value.may_have_applied


async def test_wait_before_read_back() -> None:
    server = ScriptedName([lost()], ["ours"])
    slow = RetryPolicy(max_tries=2, base_delay=1000.0, max_delay=1000.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(create_and_settle(server.request("create"), server.request("read"), slow), 0.05)
    assert server.requests == ["create"]


async def test_retry_after_before_read_back() -> None:
    asking = errors.ServerError("503", status=503, may_have_applied=True)
    asking.retry_after = 30.0
    server = ScriptedName([asking], ["ours"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.settled(), 0.05)
    assert server.requests == ["create"]


def test_waits_double_to_their_total() -> None:
    assert list(waits(0.0)) == [0.0]
    assert list(waits(1.0)) == [0.0, 0.25, 0.5, 0.25]
    assert list(waits(1.5, first=0.5)) == [0.0, 0.5, 1.0]
    assert list(islice(waits(first=1.0, longest=3.0), 6)) == [0.0, 1.0, 2.0, 3.0, 3.0, 3.0]
