"""The estimates of a progress bar, compared with runs of known duration; and its output."""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_right
from typing import Any

import pytest

pytest.importorskip("typer", reason="needs the cli extra")

from aiodbclient import Action, RateBudget, RequestEvent, Window
from aiodbclient._cli.following import Heard
from aiodbclient._cli.progress import LINE_EVERY, Bar, Pace

from .conftest import Command

MINUTE, HOUR = Window(250, 60.0), Window(5000, 3600.0)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(requests: int, latency: float) -> list[float]:
    """The time of each answer, if requests are sent one by one, as early as the documented windows allow."""
    sent: list[float] = []
    now = 0.0
    for number in range(requests):
        for window in (MINUTE, HOUR):
            if number >= window.limit:
                now = max(now, sent[number - window.limit] + window.seconds)
        sent.append(now)
        now += latency
    return [at + latency for at in sent]


@pytest.mark.parametrize(
    ("names", "latency"),
    [(100, 0.02), (1000, 0.02), (1000, 0.3), (1000, 1.0), (4875, 0.02), (8000, 0.02)],
    ids=["one burst", "bursts", "slower bursts", "slower than the limit", "79 minutes", "three hours"],
)
def test_the_end_is_promised_within_two_minutes(names: int, latency: float) -> None:
    answered = paced(2 * names, latency)
    clock = Clock()
    pace = Pace(names, clock=clock)
    for done in range(1, names):
        before, clock.now = clock.now, answered[2 * done - 1]
        pace.count(2)
        pace.active += min(clock.now - before, 2 * latency)
        if done % 7 == 1:
            used = [(each, 2 * done - bisect_right(answered, clock.now - each.seconds)) for each in (MINUTE, HOUR)]
            left = pace.left(used)
            assert left is not None
            assert abs(clock.now + left - answered[-1]) <= 120.0, (done, clock.now, left, answered[-1])


@pytest.mark.parametrize(("requests", "windows"), [(0, [(MINUTE, 250), (HOUR, 5000)]), (2, [])])
def test_names_without_requests_or_limits_are_promised_by_their_pace(
    requests: int, windows: list[tuple[Window, int]]
) -> None:
    pace = Pace(51, clock=Clock())
    pace.count(requests)
    assert pace.left(windows) is None
    pace.active = 0.1
    assert pace.left(windows) == pytest.approx(5.0)


def test_what_no_rate_limit_bounds_is_promised_by_its_pace() -> None:
    """A check logs in. Only its first name lists the cluster, by requests."""
    clock = Clock()
    pace = Pace(1000, clock=clock)
    for requests in [3, *[0] * 99]:
        clock.now += 0.1
        pace.active += 0.1
        pace.count(requests)
    assert pace.left(()) == pytest.approx(90.0)


async def test_nothing_made_has_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar(400, 305, RateBudget(), clock) as bar:
        for _ in range(95):
            bar.advance(Action.KEPT, 0)
        clock.now += LINE_EVERY
        while "done" not in (printed := capsys.readouterr().err):  # noqa: ASYNC110 - its timer is no event
            await asyncio.sleep(0.01)

    assert printed == "aiodbclient: 95 of 400 done, 95 kept\n"


async def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar(10, 8, RateBudget(), clock) as bar:
        for _ in range(2):
            bar.advance(Action.KEPT, 0)
        for _ in range(4):
            clock.now += LINE_EVERY / 4
            bar.advance(Action.CREATED, 3)
        while "done" not in (printed := capsys.readouterr().err):  # noqa: ASYNC110 - its timer is no event
            await asyncio.sleep(0.01)
        clock.now += LINE_EVERY / 2
        bar.fail("e", ["refused"])

    assert printed == "aiodbclient: 6 of 10 done, 2 kept, 8/min, 30s left\n"
    assert capsys.readouterr().err == "e: refused\n"


async def test_what_was_left_alone_is_called_as_in_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar(10, 10, RateBudget(), clock) as bar:
        bar.advance(Action.ABSENT, 1)
        clock.now += LINE_EVERY
        bar._draw()
    assert capsys.readouterr().err == "aiodbclient: 1 of 10 done, 1 absent\n"


async def test_the_rate_limit_stays_visible_while_no_request_waits_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    budget = RateBudget([Window(1, 60.0)])
    await budget.acquire()
    budget.release(sent=True)
    with Bar(10, 10, budget, clock) as bar:
        clock.now += LINE_EVERY
        bar._draw()
    assert re.fullmatch(r"aiodbclient: 0 of 10 done, rate limit: (59|60)s\n", capsys.readouterr().err)


async def test_a_line_says_what_a_run_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    class Paused:
        waiting: str | None = None

    run: Any = Paused()
    with Bar(10, 10, RateBudget(), Clock()) as bar:
        bar.run = run
        for run.waiting in (
            None,
            "the cluster is resizing",
            "the cluster is resizing",
            None,
            "the cluster is resizing",
        ):
            bar._draw()

    assert capsys.readouterr().err.count("waiting: the cluster is resizing\n") == 2


def test_a_command_says_that_its_cluster_is_resized(command: Command) -> None:
    [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == command.cluster]
    command.sandbox.set_status(cluster_id, "resizing")
    place = ["--cluster", command.cluster, "--store", command.store, "--prefix", "wait-"]

    process = command.start("tenants", "provision", "a", "b", *place)
    while not any(status == 412 for _, status in command.sandbox.counts) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)  # for the timer of the progress line
    command.sandbox.set_status(cluster_id, "online")
    done = command.end(process)

    assert (done.code, done.err.count("waiting: the cluster is resizing\n")) == (0, 1)
    assert command("tenants", "remove", "a", "b", *place, "--yes").code == 0


def test_the_cause_of_a_stop_is_not_hidden_by_the_rate_limit() -> None:
    heard = Heard()
    for status in (200, 429, 503, 429, 200):
        heard(RequestEvent("users.create", "POST", status, None, 1, 0.0, 0.1))
    assert heard.last is not None
    assert heard.last.status == 503
