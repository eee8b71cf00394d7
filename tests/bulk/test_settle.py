"""How a lost create is settled, rule by rule of aiodbclient/_bulk/settle.py, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aiodbclient import RetryPolicy, errors
from aiodbclient._backoff import poll_waits
from aiodbclient._bulk.settle import create_and_settle, send_until_readable

from ..pacing.world import live

RETRY = RetryPolicy(max_tries=3, base_delay=0.0001)


class ScriptedName:
    """Answers creates and reads of one name as scripted, and repeats the last answer. ``sent`` has a letter each."""

    def __init__(self, creates: list[Any], reads: list[Any]) -> None:
        self._answers = {"c": creates, "r": reads}
        self.sent = ""

    def request(self, kind: str) -> Callable[[], Any]:
        async def send() -> str:
            self.sent += kind
            answers = self._answers[kind]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        return send

    def settled(self, retry: RetryPolicy = RETRY) -> tuple[bool, str]:
        return live(lambda _: create_and_settle(self.request("c"), self.request("r"), retry))

    def read(self) -> str:
        return str(live(lambda _: send_until_readable(self.request("r"), RETRY)))


def lost(text: str = "the answer was lost") -> errors.DatabaseClientError:
    return errors.ConnectionLostError(text, may_have_applied=True)


def taken() -> errors.APIError:
    return errors.NameTakenError("409", status=409)


def refused() -> errors.APIError:
    return errors.UnprocessableEntityError("422", status=422, id="unprocessable_entity", message="too long")


def failed(status: int) -> errors.ServerError:
    return errors.ServerError(str(status), status=status, may_have_applied=True)


NOT_FOUND = errors.NotFoundError("404", status=404)
UNREADABLE = errors.InvalidResponseError("HTML", status=200)

# The answers to creates and reads, whether the name is ours, and what is sent.
SETTLED: dict[str, tuple[list[Any], list[Any], bool, str]] = {
    "created": (["it"], [], True, "c"),
    "taken, visible later": ([taken()], [NOT_FOUND, NOT_FOUND, UNREADABLE, "it"], False, "crrrr"),
    "refused, and it exists": ([refused()], ["it"], False, "cr"),
    "lost, unreadable, visible": ([lost()], [UNREADABLE, "it"], True, "crr"),
    "lost twice, missing": ([lost(), lost(), "it"], [NOT_FOUND], True, "crcrc"),
    "lost, then taken": ([lost(), taken()], [NOT_FOUND, NOT_FOUND, "it"], True, "crcrr"),
    "lost, then refused": ([lost(), refused()], [NOT_FOUND, NOT_FOUND, "it"], True, "crcrr"),
    **{str(status): ([failed(status)], ["it"], True, "cr") for status in (500, 502, 503, 504, 520, 524)},
}


@pytest.mark.parametrize(("creates", "reads", "ours", "sent"), SETTLED.values(), ids=SETTLED)
def test_create_is_settled(creates: list[Any], reads: list[Any], ours: bool, sent: str) -> None:
    server = ScriptedName([*creates], [*reads])
    assert server.settled() == (ours, "it")
    assert server.sent == sent


# The same, where the create's own error is raised: nothing was applied, or nothing shows whether it was.
RAISED: dict[str, tuple[errors.DatabaseClientError, list[Any], str]] = {
    "refused, and missing": (refused(), [UNREADABLE, NOT_FOUND, "too late"], "crr"),
    "not permitted": (errors.PermissionDeniedError("403", status=403), ["theirs"], "c"),
    **{str(status): (failed(status), ["theirs"], "c") for status in (501, 505, 507, 508, 599)},
}


@pytest.mark.parametrize(("error", "reads", "sent"), RAISED.values(), ids=RAISED)
def test_error_of_create_is_raised(error: errors.DatabaseClientError, reads: list[Any], sent: str) -> None:
    may_have_applied = error.may_have_applied
    server = ScriptedName([error], [*reads])
    with pytest.raises(type(error)) as caught:
        server.settled()
    assert caught.value is error
    assert caught.value.may_have_applied is may_have_applied
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert server.sent == sent


def test_create_lost_each_time_is_unsettled() -> None:
    server = ScriptedName([lost(), lost(), lost(), lost("the last one was lost")], [NOT_FOUND])
    with pytest.raises(errors.ConnectionLostError) as caught:
        server.settled()
    assert str(caught.value) == "it is unknown whether it was created: the last one was lost"
    assert caught.value.may_have_applied
    assert server.sent == "c" + "rc" * RETRY.max_tries


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
def test_unsettled_create_may_have_applied(creates: list[Any], reads: list[Any]) -> None:
    with pytest.raises(errors.DatabaseClientError, match="it is unknown whether it was created: the end") as caught:
        ScriptedName(creates, reads).settled()
    assert caught.value.may_have_applied


def test_unreadable_answer_is_sent_again() -> None:
    assert ScriptedName([], [UNREADABLE, UNREADABLE, "there"]).read() == "there"
    for answer, sent in ((UNREADABLE, "r" * RETRY.max_tries), (NOT_FOUND, "r")):
        server = ScriptedName([], [answer])
        with pytest.raises(type(answer)):
            server.read()
        assert server.sent == sent


@pytest.mark.parametrize("end", [refused(), errors.ConnectError("no connection, nothing was sent")])
def test_refusal_after_unreadable_answer(end: errors.DatabaseClientError) -> None:
    server = ScriptedName([], [errors.InvalidResponseError("HTML", may_have_applied=True), end])

    with pytest.raises(type(end), match="an earlier answer was unreadable; the last try: ") as caught:
        server.read()

    assert caught.value.may_have_applied


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, 10.0), (0.0, 10.0), (30.0, 30.0)])
def test_wait_before_read_back(retry_after: float | None, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost create is read back after the wait of the retry policy, or a longer one that the answer names."""
    monkeypatch.setattr("random.uniform", lambda _, longest: longest)
    error = failed(503)
    error.retry_after = retry_after
    server = ScriptedName([error], ["ours"])
    slow = RetryPolicy(max_tries=2, base_delay=10.0, max_delay=10.0)

    async def main(loop: asyncio.AbstractEventLoop) -> float:
        started = loop.time()
        await create_and_settle(server.request("c"), server.request("r"), slow)
        return loop.time() - started

    assert live(main) == pytest.approx(seconds)


def test_waits_double_to_their_total() -> None:
    assert list(poll_waits(0.0)) == [0.0]
    assert list(poll_waits(1.0)) == [0.0, 0.25, 0.5, 0.25]
    assert list(poll_waits(1.5, first=0.5)) == [0.0, 0.5, 1.0]
    assert list(poll_waits(9.0, first=1.0, longest=3.0)) == [0.0, 1.0, 2.0, 3.0, 3.0]
