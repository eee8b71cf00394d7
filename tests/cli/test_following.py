"""A bulk run: its outcomes, its progress, and how it is stopped. ``users provision`` shows it without a database."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiodbclient import RateLimiter
from aiodbclient._bulk.outcomes import Action, Done, Failed
from aiodbclient._bulk.run import Job, Run
from aiodbclient._cli.plumbing import running
from aiodbclient._cli.plumbing.output import Output
from aiodbclient._cli.plumbing.progress import Bar, Report, follow
from aiodbclient._http.call import RequestStats

from ..pacing.world import VirtualLoop, virtual
from ..thorough import first_of
from ..waiting import wait_until
from .conftest import COMMAND, PATIENCE, Command, Terminal

# Makes a process wait for a signal after it has called a function.
LINGER = """\
import asyncio, atexit, sys, time
run = asyncio.run
def linger(*work):
    ended = run(*work) if asyncio.iscoroutine(work[0]) else None
    print("ended", file=sys.stderr, flush=True)
    while True:  # a signal right before one long sleep would only be handled after it
        time.sleep(0.02)
"""
MANY = [f"u{number}" for number in range(120)]  # many more than are begun at once


@pytest.fixture
def memory(command: Command) -> Command:
    """The command with a cluster in memory, which has no users."""
    command.in_memory("pg", "memory")
    command.environment["AIODBCLIENT_CLUSTER"] = "memory"
    return command


def users(command: Command) -> set[str]:
    return {each["name"] for each in command("users", "list", "-o", "json").objects()} - {"doadmin"}


@pytest.mark.parametrize("number", first_of([signal.SIGINT, signal.SIGTERM]))
def test_signal_finishes_what_is_in_flight(memory: Command, number: signal.Signals) -> None:
    """The first signal begins no more names, says how to go on, and the next run continues."""
    slow = memory.sandbox.faults.add("users.create", delay=0.5, times=len(MANY))
    process = memory.start("users", "provision", *MANY, "-o", "json")
    wait_until(lambda: slow.fired)
    process.send_signal(number)
    stopped = memory.end(process)
    printed = {each["name"] for each in stopped.objects() if each["action"] == "created"}
    assert (stopped.code, 0 < len(printed) < len(MANY)) == (3, True)
    assert printed == users(memory)
    left = len(MANY) - len(printed)
    said = f"stopped early: {len(printed)} done, {left} left. To go on: run the same command again\n"
    assert stopped.err.endswith(said), stopped.err
    memory.sandbox.faults.clear()
    assert memory("users", "provision", *MANY).out == f"{left} created, {len(printed)} kept\n"


@pytest.mark.parametrize("words", [["provision", "--if-exists", "reset"], ["delete"]])
def test_nothing_is_done_twice(memory: Command, words: list[str]) -> None:
    """What is printed goes on with the names that are left: no password is reset again after it was printed."""
    assert memory("users", "provision", *MANY).code == 0
    operation = "users.delete" if words == ["delete"] else "users.reset_auth"
    slow = memory.sandbox.faults.add(operation, delay=0.5, times=len(MANY))
    process = memory.start("users", *words, *MANY, "--yes")
    wait_until(lambda: slow.fired)
    process.send_signal(signal.SIGINT)
    stopped = memory.end(process)
    memory.sandbox.faults.clear()
    said = re.search(r"To go on: run the same command with --from (\S+) in place of the names\n", stopped.err)
    assert said is not None, stopped.err
    assert memory("users", *words, "--from", said[1], "--yes", "--max", str(len(MANY))).code == 0
    Path(said[1]).unlink()
    done = [request.name for request in memory.sandbox.requests if request.operation == operation]
    assert sorted(filter(None, done)) == sorted(MANY)


def test_second_signal_ends_at_once(memory: Command) -> None:
    hanging = memory.sandbox.faults.add("users.create", delay=300.0, times=len(MANY))
    process = memory.start("users", "provision", *MANY)
    wait_until(lambda: hanging.fired)
    memory.interrupt_twice(process).fails(3, "0 done, 16 begun and not finished (u0, u1, ")


def test_lost_password_is_named(command: Command) -> None:
    """MongoDB returns a password once. A second Ctrl-C names the user, and the next run the command that resets it."""
    command.in_memory("mongodb", "mongo")
    command.environment["AIODBCLIENT_CLUSTER"] = "mongo"
    provision = ["users", "provision", *MANY[:4], "--show"]
    hanging = command.sandbox.faults.add("users.create", delay=300.0, after=True, nth=3)
    process = command.start(*provision)
    wait_until(lambda: hanging.fired)
    first = command.interrupt_twice(process, shows=True)
    assert re.search(r"2 done, 1 begun and not finished \(u\d\), 1 left", first.err), first
    command.sandbox.faults.clear()
    second = command(*provision)
    assert "1 created, 3 kept" in second.out
    assert (first.out + second.out).count("password: ") == 3
    assert ": the API does not return the password again. If it is lost: " in second.err
    assert "3 reset" in command.paste(second.err)


async def test_outcome_that_came_with_the_signal_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a password."""
    task = asyncio.current_task()
    assert task is not None
    interrupt = task.cancel

    class Signalled(Job[str, Done, Failed]):
        def parse(self, given: object) -> str:
            return str(given)

        async def prepare(self) -> int:
            return 1

        async def do(self, spec: str, stats: RequestStats) -> Done:
            interrupt()
            return Done(name=spec, action=Action.CREATED)

        def failed(self, name: str, error: Exception, tries: int) -> Failed:
            return Failed(name=name, error=error)

    run = Run(["a"], Signalled())
    code = await follow([("", run)], Report(Output(form="json")), names=["a"], limiter=RateLimiter())
    assert (code, json.loads(capsys.readouterr().out)["name"]) == (0, "a")


def test_closed_terminal_stops(memory: Command) -> None:
    """When the terminal is closed, no more names are begun, although nothing can be printed."""
    slow = memory.sandbox.faults.add("users.create", delay=0.5, times=len(MANY))
    terminal = memory.terminal("users", "provision", *MANY)
    wait_until(lambda: slow.fired)
    terminal.close()
    assert terminal.process.wait(PATIENCE) != 0
    assert 0 < len(users(memory)) < len(MANY)


@pytest.mark.parametrize("moment", ["asyncio.run = linger", "atexit.register(linger, lambda: None)"])
def test_signal_after_the_end(memory: Command, moment: str) -> None:
    """Ctrl-C after the work has ended ends the process at once with 130, as shells have it."""
    (memory.folder / "sitecustomize.py").write_text(f"{LINGER}{moment}\n")
    memory.environment["PYTHONPATH"] = f"{memory.folder}:{memory.environment.get('PYTHONPATH', '')}"
    process = memory.start("users", "list")
    assert process.stderr is not None
    assert process.stderr.readline() == "ended\n"
    process.send_signal(signal.SIGINT)
    ended = memory.end(process)
    assert (ended.code, ended.err) == (130, "")


def test_timeout_finishes_what_is_in_flight(memory: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of --timeout no name is begun, and what is in flight is cancelled after a while."""
    monkeypatch.setattr(running, "TIMEOUT_GRACE", 0.5)
    memory.sandbox.faults.add("users.create", delay=300.0, times=len(MANY))
    stopped = memory("users", "provision", *MANY, "--timeout", "1s")
    assert (stopped.code, "stopping: --timeout is over" in stopped.err) == (3, True)
    assert "stopped early: 0 done, 16 begun and not finished (u0, u1, " in stopped.err


def test_rate_limit_is_named_at_stop(memory: Command) -> None:
    """A run that is stopped while it waits for the rate limit says when it goes on."""
    memory.sandbox.faults.add("users.create", status=429, headers={"retry-after": "600"}, nth=3, times=len(MANY))
    terminal = memory.terminal("users", "provision", *MANY)
    terminal.expect("rate limit: ")
    terminal.process.send_signal(signal.SIGINT)
    code, screen = terminal.end()
    assert code == 3
    assert re.search(r"the rate limit allows the next request in \d+[ms]\r\n", screen), screen


def test_alike_failures_are_counted(memory: Command) -> None:
    """Names that fail for one reason are one line, and the exit code is 1."""
    assert memory("users", "provision", *MANY[:20]).code == 0
    done = memory("users", "provision", *MANY[:20], "--if-exists", "error")
    first, others = done.err.splitlines()
    assert (done.code, done.out) == (1, "20 failed\n")
    assert re.fullmatch(r"u\d+: .+", first)
    assert re.match(rf"aiodbclient: 19 more failed as {first.partition(':')[0]} did: u\d+, .+ and 9 more", others)


def test_reader_that_has_gone_stops(memory: Command) -> None:
    """A pipe whose reader has gone ends the run without a message."""
    memory.sandbox.faults.add("users.create", delay=0.2, times=len(MANY))
    process = memory.start("users", "provision", *MANY, "-o", "json")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    ended = memory.end(process)
    assert (ended.code != 0, ended.err) == (True, "")
    assert len(users(memory)) < len(MANY)


def test_terminal_shows_bar(memory: Command) -> None:
    """A terminal shows how many are done. Elsewhere nothing is printed but the outcomes."""
    memory.sandbox.faults.add("users.create", delay=0.2, times=len(MANY))
    code, screen = memory.terminal("users", "provision", *MANY, columns=90).end()
    assert (code, "120/120" in screen, "120 created" in screen) == (0, True, True)
    assert memory("users", "provision", *MANY).err == ""


def test_bar_changes_no_output(memory: Command) -> None:
    """What is redirected is not on the terminal, and a long line is not folded there."""
    make = ["users", "provision", *MANY[:20], "--show", "-o", "json"]
    file = memory.folder / "made"
    code, screen = Terminal(["sh", "-c", f'"$0" "$@" > {file}', COMMAND, *make], memory.environment, columns=60).end()
    made = file.read_text().splitlines()
    assert (code, "AVNS_" in screen, len(made)) == (0, False, 20)
    again = [*make, "--if-exists", "reset", "--yes"]
    _, screen = memory.terminal(*again, columns=60).end()
    assert len(re.findall(r'\{"name": .+\}\r\n', screen)) == 20, screen


@pytest.mark.parametrize(
    ("total", "done", "wait", "seconds", "lines"),
    [
        (3, 1, 0.0, 9, []),
        (3, 2, 0.0, 25, ["2 of 3 done, 2 failed, no answer for 1[01]s from east", "2 of 3 .+ 2[01]s from east"]),
        (3, 1, 40.0, 31, ["1 of 3 done, 1 failed, rate limit: 40s"]),  # of runs: a single call has a slot
        (9, 2, 40.0, 31, ["2 of 9 done, 2 failed, 40s left, rate limit: 40s"]),  # the time left is not shorter
        (2, 5, 0.0, 31, ["5 of 5 done, 5 failed"]),  # more outcomes than names raise the total
    ],
)
@virtual
async def test_lines_without_terminal(
    loop: VirtualLoop, total: int, done: int, wait: float, seconds: int, lines: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Every 30 s. After ten without an outcome, a line says what does not answer, in place of the time left."""
    limiter: Any = SimpleNamespace(estimate_wait=lambda ahead, *, bulk: wait if bulk else 0.0)
    with Bar(total, limiter) as bar:
        bar.where = lambda: "east"
        for _ in range(done):
            bar.advance(is_failed=True)
        await asyncio.sleep(seconds)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == len(lines), printed
    assert all(re.fullmatch(f"aiodbclient: {line}", each) for line, each in zip(lines, printed, strict=True)), printed
