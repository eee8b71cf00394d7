"""How lost creates and resets are settled: rule by rule in virtual time, and resets that the server performs late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count, product
from typing import Any

import pytest
from aiohttp import web

from aiodbclient import RetryPolicy, errors
from aiodbclient._backoff import poll_waits
from aiodbclient._bulk.settle import create_and_settle, send_until_readable
from aiodbclient.bulk import Action

from ..conftest import MakeCluster
from ..pacing.world import live
from ..server import Server, hangs_up
from ..waiting import until

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


LATEST = 0.15  # seconds
# The answer to a reset that the server performs later. None: it performs the reset, and then answers with the user.
ANSWERS = {
    "202": lambda: web.Response(status=202),
    "HTML": lambda: web.Response(text="<html>a gateway</html>"),
    "408": lambda: web.Response(status=408),
    "500": lambda: web.Response(status=500),
    "502": lambda: web.Response(status=502),
    "504": lambda: web.Response(status=504),
    "cut": None,
}
SEQUENCES = [(first,) for first in ANSWERS] + list(product(ANSWERS, repeat=2))


class Api:
    """Answers the n-th reset of each user as the user's sequence says, and then performs each at once."""

    def __init__(self, server: Server, *, returns_passwords: bool, performs: Callable[..., object]) -> None:
        server.otherwise = self.answer
        self.returns_passwords = returns_passwords
        self.performs = performs
        self.passwords = {str(number): "old" for number in range(len(SEQUENCES))}
        self.performing = 0
        self._resets = {name: count() for name in self.passwords}

    def user(self, name: str, *, is_read: bool) -> dict[str, str]:
        hidden = is_read and not self.returns_passwords
        return {"name": name, "role": "normal", "password": "" if hidden else self.passwords[name]}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/users"):
            return web.json_response({"users": [self.user(name, is_read=True) for name in self.passwords]})
        name = request.path.split("/")[5]
        if request.method == "GET":
            return web.json_response({"user": self.user(name, is_read=True)})
        number, sequence = next(self._resets[name]), SEQUENCES[int(name)]
        if number >= len(sequence):
            self.perform(name, number)
            return web.json_response({"user": self.user(name, is_read=False)})
        self.performing += 1
        self.performs(LATEST / (1 + number), self.perform_late, name, number)
        make = ANSWERS[sequence[number]]
        return await hangs_up(request) if make is None else make()

    def perform(self, name: str, number: int) -> None:
        self.passwords[name] = f"password-{number}"

    def perform_late(self, name: str, number: int) -> None:
        self.performing -= 1
        self.perform(name, number)


async def wrong(
    server: Server, make_cluster: MakeCluster, engine: str, retry: RetryPolicy, late: list[Any] | None = None
) -> list[tuple[str, ...]]:
    """Reset each user by a run, and return the sequences after which the reported password is not the valid one.

    The server performs resets some time later, or those in ``late`` when the run has ended.
    """
    later = asyncio.get_running_loop().call_later if late is None else lambda _, *work: late.append(work)
    api = Api(server, returns_passwords=engine == "pg", performs=later)
    names = list(api.passwords)
    outcomes = await make_cluster(engine=engine, retry=retry, timeout=2.0).users.rotate(names, concurrency=len(names))
    for perform, *reset in late or ():
        perform(*reset)
    await until(lambda: not api.performing)
    assert {outcome.action for outcome in outcomes} == {Action.RESET}
    return [
        sequence
        for sequence, outcome in zip(SEQUENCES, outcomes, strict=True)
        if outcome.user is not None and outcome.user.password != api.passwords[outcome.name]
    ]


@pytest.mark.parametrize("engine", ["pg", "mongodb"])
async def test_run_reports_the_valid_password(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr("aiodbclient._bulk.settle.RESET_DELAY", 2 * LATEST)
    assert await wrong(server, make_cluster, engine, RetryPolicy(base_delay=LATEST)) == []


async def test_run_without_waiting_reports_dead_passwords(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: resets are repeated before the server has performed the earlier ones."""
    monkeypatch.setattr("aiodbclient._bulk.settle.RESET_DELAY", 0.0)
    found = await wrong(server, make_cluster, "pg", RetryPolicy(base_delay=LATEST / 8), late=[])
    assert {("202",), ("HTML",)} <= {*found}
