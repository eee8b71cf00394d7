"""A program with a tenant's credential, or once for each of several: ``tenants exec``."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from aiodbclient._cli.tenants import exec as exec_command

from ..proc import is_alive
from ..waiting import settle, wait_until
from .conftest import Command

# It fails for the tenants in $FAIL, and says who it is.
PROGRAM = """
import os, sys
name = os.environ["PGDATABASE"]
print("I am", name)
if name in os.environ.get("FAIL", "").split():
    print("one\\n\\ntwo\\nthree", os.getpid(), file=sys.stderr)
    raise SystemExit(3)
"""
RUN = ["--", sys.executable, "-c", PROGRAM]
# It ignores SIGTERM, and so does what it started.
STUBBORN = """
trap "" TERM
sleep 60 &
echo $$ $! > "$FOLDER/$PGDATABASE"
wait
"""
SAY_WHO = """
import os, psycopg
secrets = {"AIODBCLIENT_STORE_KEY", "AIODBCLIENT_CLUSTER", "DIGITALOCEAN_TOKEN"} & set(os.environ)
with psycopg.connect("") as c:
    print(c.execute("select current_database()").fetchone()[0], os.environ["PGSSLMODE"], sorted(secrets))
raise SystemExit(7)
"""


def test_program_has_the_credential(secure: Command, names: list[str]) -> None:
    """The environment has the credential and verifies the server; our secrets are not in it."""
    command, a = secure, names[0]
    command.provision(a)
    command.environment["AIODBCLIENT_CLUSTER"] = command.cluster
    closed = command.folder / "closed"  # only root may search it
    closed.mkdir(mode=0)
    command.environment["PATH"] = f"{closed}:{os.environ['PATH']}"
    ran = command.process("tenants", "exec", a, *command.place, "--", sys.executable, "-c", SAY_WHO)
    assert (ran.code, ran.out, ran.err) == (7, f"{a} verify-full []\n", "")
    for arguments, code, said in (
        ([names[1], *command.place, "--", "true"], 1, f"not on record. Did you mean {a}?"),
        ([a, *command.place, "--", "no-such-program"], 127, "no-such-program: no such program"),
        (["--all", *command.place, "--", "no-such-program"], 127, "no-such-program: no such program"),
        ([a, *command.place, "--", "/"], 126, "/: Permission denied"),
    ):
        command("tenants", "exec", *arguments).fails(code, said)


def test_output_option_is_the_programs(command: Command, names: list[str]) -> None:
    """What comes after ``--`` is not ours: ``-o json`` there belongs to the program."""
    command.provision(names[0])
    ran = command.process("tenants", "exec", names[0], *command.place, "--", "echo", "-o", "json", "--yes")
    assert (ran.code, ran.out) == (0, "-o json --yes\n")
    missing = command("tenants", "exec", "nobody", *command.place, "--", "kubectl", "-o", "json")
    assert missing.err.startswith("aiodbclient: ")


def test_each_prints_and_failures_are_named(command: Command, names: list[str]) -> None:
    """The standard output has the lines of programs that succeed alone; those that failed are named."""
    a, b, c = names[:3]
    command.provision(a, b, c)
    command.environment["FAIL"] = f"{b} {c}"
    done = command.process("tenants", "exec", "--all", *command.place, *RUN)
    assert (done.code, done.out) == (1, f"{a}: I am {a}\n")
    assert re.search(rf"^aiodbclient: {a}: \d+\.\d s$", done.err, re.MULTILINE)
    assert "aiodbclient: 1 done, 2 failed\n" in done.err
    assert re.search(rf"^aiodbclient: failed: {b} {c}$", done.err, re.MULTILINE)
    for name in (b, c):
        lines = [line for line in done.err.splitlines() if line.startswith(f"{name}: ")]
        assert [*lines[-5:-2]] == [f"{name}: {each}" for each in (f"I am {name}", "one", "two")]
        assert re.match(rf"{name}: exit code 3 after \d+\.\d", lines[-1])
    objects = {
        each["name"]: each for each in command("tenants", "exec", a, b, "-o", "json", *command.place, *RUN).objects()
    }
    assert (objects[a]["exit_code"], objects[a]["output"], objects[a]["errors"]) == (0, f"I am {a}\n", "")
    assert objects[b]["exit_code"] == 3
    assert objects[b]["errors"].startswith("one\n\ntwo\nthree ")
    # No hint repeats the program's arguments.
    assert "sys.argv" not in done.err
    assert "PGDATABASE" not in done.err


def test_first_spares_the_others(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]
    command.provision(a, b, c)
    run = ["tenants", "exec", "--all", "--first", "1", *command.place]
    ended = command(*run, "--", "sh", "-c", f'test "$PGDATABASE" != {a}')
    assert (ended.code, ended.out) == (1, "")
    said = re.search(
        r"0 done, 1 failed, 2 left. To go on: run the same command with (--from \S+) in place of", ended.err
    )
    assert said, ended.err
    left = command("tenants", "exec", *said[1].split(), *command.place, "--", "true")
    assert (left.code, "2 done\n" in left.err) == (0, True)
    Path(said[1].split()[1]).unlink()


def test_version_is_stored_and_skipped(command: Command, names: list[str]) -> None:
    """Where the program fails, the next command runs it again. Without names it is for all tenants."""
    a, b = names[:2]
    command.provision(a, b)
    command.environment["FAIL"] = b
    migrate = ["tenants", "exec", *command.place, "--version", "0042"]
    first = command(*migrate, *RUN)
    assert (first.code, first.out, "1 done, 1 failed\n" in first.err) == (1, f"{a}: I am {a}\n", True)
    assert versions_of(command) == {a: "0042", b: None}
    command.environment["FAIL"] = ""
    second = command(*migrate, *RUN)
    assert (second.code, second.out, "1 done, 1 skipped\n" in second.err) == (0, f"{b}: I am {b}\n", True)
    assert versions_of(command) == {a: "0042", b: "0042"}
    [skipped] = command(*migrate, a, "-o", "json", *RUN).objects()
    assert skipped == {"name": a, "action": "skipped", "role": "owner"}
    table = [line.split() for line in command("tenants", "list", *command.place).out.splitlines()]
    assert [line[table[0].index("version")] for line in table] == ["version", "0042", "0042"]
    rows = [*csv.DictReader(command("tenants", "list", "-o", "csv", *command.place).out.splitlines())]
    assert [row["version"] for row in rows] == ["0042", "0042"]
    command(*migrate[:-1], "", *RUN).fails(2, "version must be a printable string")


def versions_of(command: Command) -> dict[str, str | None]:
    return {
        each["name"]: each["version"] for each in command("tenants", "list", "-o", "json", *command.place).objects()
    }


def test_as_many_run_as_asked(command: Command, names: list[str]) -> None:
    """Each waits for a file of another: with one at a time, nobody comes."""
    command.provision(*names[:3])
    command.environment |= {"FOLDER": str(command.folder), "TRIES": "5000"}
    count = 'test $(ls "$FOLDER" | grep -c here) -ge 3'
    meet = f'touch "$FOLDER/$PGDATABASE.here"; for i in $(seq $TRIES); do {count} && exit; sleep 0.02; done; exit 1'
    assert command("tenants", "exec", "--all", *command.place, "--", "sh", "-c", meet).code == 0
    command.environment["TRIES"] = "10"
    alone = f'rm -f "$FOLDER"/*.here; {meet}'
    command("tenants", "exec", "--all", "--concurrency", "1", *command.place, "--", "sh", "-c", alone).fails(
        1, "aiodbclient: 3 failed\n"
    )


def test_suspended_are_left_out(command: Command, names: list[str]) -> None:
    """``--all`` leaves out suspended tenants, and names them."""
    a, b = names[:2]
    command.provision(a, b)
    assert command("tenants", "suspend", a, *command.place, "--yes").code == 0
    done = command("tenants", "exec", "--all", *command.place, "--", "true")
    assert (done.code, f"1 done ({a}: suspended, left out)" in done.err) == (0, True)
    command("tenants", "exec", a, b, *command.place, "--", "true").fails(
        1, f"to give the login back: aiodbclient tenants resume {a} "
    )


def test_no_terminal_acts_on_output(command: Command, names: list[str]) -> None:
    """What a program prints is shown with its tenant, and control characters are escaped."""
    command.provision(names[0])
    run = ["tenants", "exec", "--all", *command.place, "--", "printf", "\\033[31mred\\n"]
    assert command(*run).out == f"{names[0]}: \\x1b[31mred\n"


def test_full_temporary_folder_is_named(secure: Command, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the temporary folder is not one of the standard output."""
    secure.provision(names[0])

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    done = secure("tenants", "exec", names[0], *secure.place, "--", "true")
    assert done.code == 2
    assert re.fullmatch(r"aiodbclient: /.+/ca\.pem: No space left on device\n", done.err), done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_is_passed_on(secure: Command, names: list[str], number: signal.Signals) -> None:
    """One program gets the signals of this process, and no file is left."""
    command, a = secure, names[0]
    command.provision(a)
    # Python handles a signal between two statements: it would begin a long sleep nevertheless.
    sleep = "print(os.environ['PGSSLROOTCERT'], flush=True)\nwhile True: time.sleep(0.05)"
    program = f"import os, time\n{sleep}"
    process = command.start("tenants", "exec", a, *command.place, "--", sys.executable, "-c", program)
    assert process.stdout is not None
    ca_file = Path(process.stdout.readline().strip())
    assert ca_file.exists()
    process.send_signal(number)
    assert process.wait(100) == 128 + number
    assert not ca_file.exists()
    process.communicate()


def test_signal_at_start_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes as the program starts is the program's, too."""
    create = asyncio.create_subprocess_exec

    async def start(*program: str, **options: Any) -> Any:
        process = await create(*program, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        await settle()  # the event loop handles it
        return process

    monkeypatch.setattr(exec_command, "create_subprocess_exec", start)
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert asyncio.run(exec_command._run(program, dict(os.environ))) == 128 + signal.SIGTERM


def test_timeout_ends_the_program(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    run = ["tenants", "exec", names[0], *command.place, "--timeout", "1s", "--", "sleep", "60"]
    command(*run).fails(3, "aiodbclient: --timeout has ended the program\n")


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_all_programs(command: Command, names: list[str], number: signal.Signals) -> None:
    """A signal ends all programs and what they started, and names the tenants whose program had begun."""
    command.provision(*names[:3])
    command.environment["FOLDER"] = str(command.folder)
    run = ["tenants", "exec", "--all", "--concurrency", "2", *command.place, "--", "sh", "-c", STUBBORN]
    process = command.start(*run)
    files = [command.folder / name for name in names[:3]]
    wait_until(lambda: sum(file.exists() and file.read_text().endswith("\n") for file in files) == 2)
    begun = [file for file in files if file.exists()]
    running = [int(each) for file in begun for each in file.read_text().split()]
    assert (len(running), all(map(is_alive, running))) == (4, True)
    process.send_signal(number)
    said = f"2 begun and not finished ({begun[0].name}, {begun[1].name}), 1 left"
    command.end(process).fails(3, f"stopped early: 0 done, {said}")
    assert not any(map(is_alive, running))


def test_nohup_goes_on(command: Command, names: list[str]) -> None:
    """With nohup, a closed terminal ends nothing."""
    command.provision(names[0])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hang_up = ["/bin/sh", "-c", "kill -HUP $PPID; sleep 0.2"]
    assert command.process("tenants", "exec", "--all", *command.place, "--", *hang_up).code == 0
