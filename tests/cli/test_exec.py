"""A program that runs once for each tenant: ``tenants exec`` of several."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import SIGNALS, Command

_used = iter(range(10**6))
# It fails for the tenants in $FAIL, and says who it is.
PROGRAM = """
import os, sys
name = os.environ["PGUSER"]
print("I am", name)
if name in os.environ.get("FAIL", "").split():
    print("one\\n\\ntwo\\nthree", file=sys.stderr)
    raise SystemExit(3)
"""
RUN = ["--", sys.executable, "-c", PROGRAM]
# It ignores SIGTERM, and so does what it started.
STUBBORN = """
trap "" TERM
sleep 60 &
echo $$ $! > "$FOLDER/$PGUSER"
wait
"""


@pytest.fixture
def tenants(command: Command) -> Iterator[list[str]]:
    """The test's own tenants on the shared server."""
    test = next(_used)
    names = [f"x{os.environ.get('PYTEST_XDIST_WORKER', 'w')}-{test}-{letter}" for letter in "abc"]
    assert command("tenants", "provision", *names, *command.place).code == 0
    yield names
    assert command("tenants", "remove", "--all", "--yes", "--max", "3", *command.place).code == 0


def test_it_prints_a_line_for_each_and_goes_on_with_those_that_failed(command: Command, tenants: list[str]) -> None:
    a, b, c = tenants
    left = command.folder / "left.csv"
    command.environment["FAIL"] = f"{b} {c}"

    done = command.process("tenants", "exec", "--all", "--failed", str(left), *command.place, *RUN)

    assert done.code == 1
    assert done.out == f"{a}: I am {a}\n"  # the program's lines alone
    notes = [line for line in done.err.splitlines() if line.startswith("aiodbclient: ")]
    assert re.fullmatch(rf"aiodbclient: {a}: \d+\.\d s", notes[0])
    assert notes[1] == "aiodbclient: 1 done, 2 failed"
    for name in (b, c):
        lines = [line for line in done.err.splitlines() if line.startswith(f"{name}: ")]
        assert re.match(rf"{name}: exit code 3 after \d+\.\d", lines[-1])
        assert lines[-4:-1] == [f"{name}: one", f"{name}: two", f"{name}: three"]
    assert left.read_text().split() == ["name", b, c]
    assert f"tenants exec --from {left} --failed {left}" in done.err

    command.environment["FAIL"] = c
    again = command.process("tenants", "exec", "--from", str(left), "--failed", str(left), *command.place, *RUN)
    assert (again.code, left.read_text().split()) == (1, ["name", c])
    command.environment["FAIL"] = ""
    assert command.process("tenants", "exec", a, b, *command.place, *RUN).out.count("I am") == 2


def test_objects_have_the_exit_code_and_the_output(command: Command, tenants: list[str]) -> None:
    a, b, _ = tenants
    command.environment["FAIL"] = b

    done = command.process("tenants", "exec", a, b, "-o", "json", *command.place, *RUN)

    found = {each["name"]: each for each in done.objects()}
    assert done.code == 1
    assert {key: found[a][key] for key in ("action", "exit_code", "output", "errors")} == {
        "action": "done",
        "exit_code": 0,
        "output": f"I am {a}\n",
        "errors": "",
    }
    assert found[a]["seconds"] > 0
    assert (found[b]["exit_code"], found[b]["errors"]) == (3, "one\n\ntwo\nthree\n")
    [missing] = command.process("tenants", "exec", a, "nobody", "-o", "json", *command.place, *RUN).objects()
    assert (missing["name"], missing["error"].startswith("not on record")) == ("nobody", True)
    [alone] = command.process("tenants", "exec", a, "-o", "json", *command.place, *RUN).objects()
    assert alone["output"] == f"I am {a}\n"


def test_a_program_or_a_file_that_is_not_there_is_noticed_first(command: Command, tenants: list[str]) -> None:
    missing = command("tenants", "exec", "--all", *command.place, "--", "no-such-program")
    assert (missing.code, missing.out) == (127, "")
    nowhere = command("tenants", "exec", "--all", "--failed", "/no/such/folder/f", *command.place, *RUN)
    assert (nowhere.code, "/no/such/folder/f cannot be written" in nowhere.err) == (2, True)


def test_the_command_that_goes_on_has_the_options_that_were_typed(command: Command, tenants: list[str]) -> None:
    typed = ["--first", "1", *command.place, "--timeout", "3.5s", "--verbose"]
    done = command.process("tenants", "exec", *tenants, *typed, "--", "sleep", "60")
    assert done.code == 3, done.err
    [again] = re.findall(r"To go on, run it again: aiodbclient (.*)\n", done.err)
    assert again.startswith(f"tenants exec {' '.join(tenants)} --first 1 ")
    assert "--timeout 3.5s --verbose" in again
    assert again.endswith(" -- sleep 60")


def test_a_damaged_record_is_named(command: Command, tenants: list[str]) -> None:
    with closing(sqlite3.connect(command.store)) as store:
        [before] = store.execute("SELECT record FROM credentials WHERE name = ?", [tenants[1]]).fetchone()
        store.execute("UPDATE credentials SET record = 'v1.plain.0.{}' WHERE name = ?", [tenants[1]])
        store.commit()

        done = command("tenants", "exec", "--all", *command.place, "--", "true")

        store.execute("UPDATE credentials SET record = ? WHERE name = ?", [before, tenants[1]])
        store.commit()
    assert (done.code, done.out, "aiodbclient: 2 done\n" in done.err) == (4, "", True)
    assert f"{tenants[1]}: its record is damaged" in done.err


def test_as_many_run_at_a_time_as_asked(command: Command, tenants: list[str]) -> None:
    """Each waits for a file of another: with one at a time, nobody comes."""
    command.environment["FOLDER"] = str(command.folder)
    meet = (
        'touch "$FOLDER/$PGUSER.here"; for i in $(seq $TRIES); do test $(ls "$FOLDER" | grep -c here) -ge 3 && exit; '
    )
    meet += "sleep 0.02; done; exit 1"
    command.environment["TRIES"] = "5000"
    assert command("tenants", "exec", "--all", *command.place, "--", "sh", "-c", meet).code == 0
    command.environment["TRIES"] = "20"
    for file in command.folder.glob("*.here"):
        file.unlink()
    alone = f'rm -f "$FOLDER"/*.here; {meet}'
    done = command("tenants", "exec", "--all", "--concurrency", "1", *command.place, "--", "sh", "-c", alone)
    assert (done.code, done.out, "aiodbclient: 3 failed\n" in done.err) == (1, "", True)


def written(file: Path) -> bool:
    """Whether a shell has written its line."""
    return file.exists() and file.read_text().endswith("\n")


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP])
def test_a_signal_ends_all_programs_and_what_they_started(
    command: Command, tenants: list[str], number: signal.Signals
) -> None:
    command.environment["FOLDER"] = str(command.folder)
    left = command.folder / "left.csv"
    process = command.start(
        *("tenants", "exec", "--all", "--failed", str(left), "--concurrency", "2", *command.place),
        *("--", "sh", "-c", STUBBORN),
    )
    deadline = time.monotonic() + 60
    while len(begun := [name for name in tenants if written(command.folder / name)]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running = [int(each) for name in begun for each in (command.folder / name).read_text().split()]
    assert len(running) == 4
    assert all(map(is_running, running))

    process.send_signal(number)
    done = command.end(process)

    assert done.code == 3
    assert "stopped early: 0 are done, 3 are left. To go on, run it again: aiodbclient tenants exec --from" in done.err
    assert not any(map(is_running, running))
    assert left.read_text().split() == ["name", *tenants]


def test_output_that_the_locale_lacks_does_not_end_the_run(command: Command, tenants: list[str]) -> None:
    command.environment |= {"PYTHONIOENCODING": "latin-1"}
    done = command.process("tenants", "exec", "--all", *command.place, "--", "printf", "5 \u20ac")
    assert (done.code, done.out) == (0, "".join(f"{name}: 5 \\u20ac\n" for name in tenants))


def test_nohup_goes_on_when_the_terminal_is_closed(command: Command, tenants: list[str]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hang_up = ["/bin/sh", "-c", "kill -HUP $PPID; sleep 0.2"]
    assert command.process("tenants", "exec", "--all", *command.place, "--", *hang_up).code == 0
