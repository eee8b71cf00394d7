"""What a progress bar prints."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

pytest.importorskip("typer", reason="needs the cli extra")

from aiodbclient import Action, RateLimiter, RequestEvent, Window
from aiodbclient._cli.following import Heard
from aiodbclient._cli.progress import LINE_EVERY, Bar

from .conftest import Command


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_nothing_made_has_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar(400, 305, RateLimiter(), clock) as bar:
        for _ in range(95):
            bar.advance(Action.KEPT)
        clock.now += LINE_EVERY
        while "done" not in (printed := capsys.readouterr().err):  # noqa: ASYNC110 - its timer is no event
            await asyncio.sleep(0.01)

    assert printed == "aiodbclient: 95 of 400 done, 95 kept\n"


async def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar(10, 8, RateLimiter(), clock) as bar:
        for _ in range(2):
            bar.advance(Action.KEPT)
        for _ in range(4):
            clock.now += LINE_EVERY / 4
            bar.advance(Action.CREATED)
        while "done" not in (printed := capsys.readouterr().err):  # noqa: ASYNC110 - its timer is no event
            await asyncio.sleep(0.01)
        clock.now += LINE_EVERY / 2
        bar.fail("e", ["refused"])

    assert printed == "aiodbclient: 6 of 10 done, 2 kept, 8/min, 30s left\n"
    assert capsys.readouterr().err == "e: refused\n"


async def test_what_was_left_alone_is_called_as_in_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Bar(10, 10, RateLimiter(), clock) as bar:
        bar.advance(Action.ABSENT)
        clock.now += LINE_EVERY
        bar._draw()
    assert capsys.readouterr().err == "aiodbclient: 1 of 10 done, 1 absent\n"


async def test_the_rate_limit_stays_visible_while_no_request_waits_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    budget = RateLimiter([Window(1, 60.0)])
    await budget.acquire()
    budget.release(sent=True)
    with Bar(10, 10, budget, clock) as bar:
        clock.now += LINE_EVERY
        bar._draw()
    assert re.fullmatch(r"aiodbclient: 0 of 10 done, rate limit: (5\d|60)s\n", capsys.readouterr().err)


async def test_a_line_says_what_a_run_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    class Paused:
        waiting: str | None = None

    run: Any = Paused()
    with Bar(10, 10, RateLimiter(), Clock()) as bar:
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
    file = command.folder / "users.yaml"
    file.write_text("- wait-a\n- wait-b\n")

    process = command.start("users", "apply", "--from", "--cluster", command.cluster, str(file), "--show")
    while not any(status == 412 for _, status in command.sandbox.counts) and process.poll() is None:
        time.sleep(0.02)
    assert process.stderr is not None
    while "waiting: the cluster is resizing" not in (said := process.stderr.readline()):
        assert said
    command.sandbox.set_status(cluster_id, "online")
    done = command.end(process, shows=True)

    assert (done.code, "waiting: the cluster is resizing" in done.err) == (0, False)  # it was said once
    for name in ("wait-a", "wait-b"):
        assert command("users", "delete", name, "--cluster", command.cluster, "--yes").code == 0


def test_the_cause_of_a_stop_is_not_hidden_by_the_rate_limit() -> None:
    heard = Heard()
    for status in (200, 429, 503, 429, 200):
        heard(RequestEvent("users.create", "POST", status, None, 1, 0.0, 0.1))
    assert heard.last is not None
    assert heard.last.status == 503
