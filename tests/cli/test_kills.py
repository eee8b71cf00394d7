"""Provisioning and rotating as an operator: killed at a statement or stopped by a signal, and run again."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from ..proxy import Rule
from ..tenants.processes import expire
from .conftest import Command

pytestmark = pytest.mark.thorough


def uris(command: Command) -> dict[str, str]:
    """The stored credentials, by tenant."""
    shown = command("tenants", "show", *command.place, "-o", "json", "--show").objects()
    return {each["name"]: each["uri"] for each in shown}


def works(uri: str) -> bool:
    try:
        with psycopg.connect(uri) as connection:
            return connection.execute("SELECT has_schema_privilege('public', 'CREATE')").fetchone() == (True,)
    except psycopg.OperationalError:
        return False


def start_held(command: Command, verb: str, names: list[str], statement: int) -> tuple[Rule, subprocess.Popen[str]]:
    """Start the command, until it sends this statement, which the server does not get."""
    held = command.proxy.add(login="doadmin", nth=statement, held=True)
    process = command.start("tenants", verb, *names, *command.place)
    while not held.fired:
        assert process.poll() is None
        time.sleep(0.02)
    return held, process


def count(command: Command, verb: str, name: str) -> int:
    """Run the command, and count the administrator's statements."""
    counted = command.proxy.add(login="doadmin")
    assert command("tenants", verb, name, *command.place).code == 0
    command.proxy.rules.clear()
    return counted.seen


@pytest.mark.parametrize("verb", ["provision", "rotate"])
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_killed_command_loses_no_credential(embedded: Command, names: list[str], verb: str, part: float) -> None:
    """Killed at a statement and run again, it finishes its work. Each credential on record always works."""
    command, (first, *others) = embedded, names[:6]
    command.provision(first, *(others if verb == "rotate" else []))
    statements = count(command, verb, first if verb == "rotate" else others.pop())
    before = uris(command)
    _, process = start_held(command, verb, others, 1 + int(statements * len(others) * part))
    process.kill()
    assert command.end(process).code == -signal.SIGKILL
    command.proxy.rules.clear()
    expire(Path(command.store))  # or the next run waits for the end of the lease
    at_kill = uris(command)
    assert all(map(works, [*before.values(), *at_kill.values()]))
    if verb == "provision":
        assert before.items() <= at_kill.items()

    again = command("tenants", verb, *others, *command.place)

    # Those that were rotated before the kill are refused: they wait for revoke-previous.
    assert again.code in ((0, 1) if verb == "rotate" else (0,)), again
    after = uris(command)
    assert set(after) == {*before, *others}
    assert all(map(works, [*before.values(), *after.values()]))
    if verb == "rotate":
        assert not [name for name in others if before[name] == after[name]]
        assert command("tenants", "revoke-previous", *others, "--yes", *command.place).out == f"{len(others)} revoked\n"
        assert [works(before[name]) for name in others] == [False] * len(others)
        assert all(map(works, after.values()))


def test_sigterm_finishes_what_is_in_flight(embedded: Command, names: list[str]) -> None:
    """What is printed as created is on record, no more and no less."""
    command, first = embedded, names[0]
    many = [f"{first}-{number}" for number in range(100)]  # more than are begun at once
    statements = count(command, "provision", first)
    held, process = start_held(command, "provision", many, statements)
    process.terminate()
    assert process.stderr is not None
    while "to stop at once" not in process.stderr.readline():
        assert process.poll() is None
    held.held = False

    done = command.end(process)

    assert (done.code, "To go on, run the same command again" in done.err) == (3, True)
    made = len(uris(command)) - 1
    assert done.out == f"{made} created\n"
    assert 0 < made < len(many)
