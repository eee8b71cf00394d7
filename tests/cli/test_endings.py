"""What ends or deletes something: one rule for every command, and nothing half done."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shlex
import signal
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from aiodbclient._cli import running, tenants_exec, tenants_place
from aiodbclient._cli.records import Entries, read_entries
from aiodbclient.tenants import Store
from aiodbclient.tenants._record import Verb

from ..thorough import first_of
from .conftest import Command


@pytest.fixture
def three(command: Command, names: list[str]) -> list[str]:
    """Three tenants, on record."""
    command.provision(*names[:3])
    return names[:3]


def listed(command: Command) -> list[str]:
    return [each["name"] for each in command("tenants", "list", *command.place, "--json").objects()]


def states(command: Command) -> set[str]:
    return {each["state"] for each in command("tenants", "list", *command.place, "--json").objects()}


def test_names_of_a_file_are_confirmed_by_their_number(command: Command, three: list[str]) -> None:
    file = command.folder / "names.csv"
    file.write_text(f"name\n{three[0]}\n{three[1]}\n")
    for answer, code in (("y", 3), ("2", 0)):
        terminal = command.terminal("tenants", "remove", "--from", str(file), *command.place, columns=200)
        terminal.expect("Type 2 or tenants-prod to go on: ")
        terminal.type(f"{answer}\n")
        assert terminal.end()[0] == code
    assert listed(command) == three[2:]


def test_typed_names_need_a_y_and_no_bound(command: Command, three: list[str]) -> None:
    terminal = command.terminal("tenants", "suspend", three[0], *command.place, columns=200)
    terminal.expect("end all their logins and sessions? [y/N]")
    terminal.type("n\n")
    assert terminal.end()[0] == 3
    assert command("tenants", "suspend", three[0], *command.place, "--yes").out == "1 suspended\n"
    assert command("tenants", "remove", three[0], *command.place, "--yes").code == 0


def test_what_was_typed_before_a_question_does_not_answer_it(command: Command, three: list[str]) -> None:
    terminal = command.terminal("tenants", "remove", three[0], *command.place, columns=200)
    terminal.type("y\n")
    terminal.expect("[y/N]: ")
    terminal.type("n\n")
    assert terminal.end()[0] == 3
    assert listed(command) == three


@pytest.mark.parametrize(("hangs", "is_unclear"), [("clusters.list", False), ("users.create", True)])
def test_ctrl_c_says_what_may_have_been_applied(command: Command, hangs: str, is_unclear: bool) -> None:
    hanging = command.sandbox.faults.add(hangs, delay=60.0)
    process = command.start("users", "create", command.cluster, "stopped", "--show")
    while not hanging.fired:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    done = command.end(process)
    assert (done.code, "may have been applied" in done.err) == (3, is_unclear), done.err
    command.sandbox.faults.clear()
    if is_unclear:
        command("users", "delete", command.cluster, "stopped", "--yes", "--not-a-tenant")


def test_ctrl_c_at_a_question_says_that_nothing_was_changed(command: Command, three: list[str]) -> None:
    terminal = command.terminal("tenants", "remove", *three, *command.place, columns=200)
    terminal.expect("[y/N]")
    terminal.process.send_signal(signal.SIGINT)
    code, screen = terminal.end()
    assert (code, screen.endswith("aiodbclient: stopped: nothing was changed\r\n")) == (3, True), screen


def test_ctrl_c_while_names_are_read_says_that_nothing_was_changed(command: Command) -> None:
    pipe = command.folder / "names"
    os.mkfifo(pipe)
    process = command.start("tenants", "remove", "--from", str(pipe), *command.place)
    writer = os.open(pipe, os.O_WRONLY)  # waits until the command opens it
    os.write(writer, b"name\n")
    while unread(writer) or state_of(process.pid) != "S":  # no signal ends a read that begins after it
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    done = command.end(process)
    os.close(writer)
    assert (done.code, done.err) == (3, "aiodbclient: stopped: nothing was changed\n")


def unread(pipe: int) -> int:
    """How many bytes of a pipe are still unread."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_one_typo_removes_nothing(command: Command, three: list[str]) -> None:
    typo = f"{three[0]}x"
    refused = command("tenants", "remove", three[0], three[1], typo, *command.place, "--yes")

    assert (refused.code, refused.out) == (1, "1 failed\n")
    assert refused.err.startswith(f"{typo}: not on record")
    assert listed(command) == three
    code, screen = command.terminal("tenants", "remove", typo, *command.place, "--yes").end()
    assert (code, "/min" in screen) == (1, False)  # nothing was done, so it has no progress
    [rest] = re.findall(r": (aiodbclient .*)\n", refused.err)
    assert command(*shlex.split(rest)[1:]).out.endswith("1 absent, 2 deleted\n")


def test_the_name_that_was_meant_is_another_one_than_those_given(command: Command, three: list[str]) -> None:
    typo = f"t{three[0]}"
    assert f"Did you mean {three[0]}?" in command("tenants", "show", typo, *command.place).err
    both = command("tenants", "remove", three[0], typo, *command.place, "--yes")
    assert three[0] not in both.err.partition("Did you mean")[2].partition("?")[0]
    as_near_to_all = f"{three[0][:-1]}9"
    assert "Did you mean" not in command("tenants", "show", as_near_to_all, *command.place).err


def half_remove(command: Command, name: str) -> None:
    command.leave(name, Verb.REMOVE)


def test_at_its_timeout_what_was_begun_is_finished_and_printed(command: Command, names: list[str]) -> None:
    names = [f"{names[0]}-{number}" for number in range(24)]  # more than are begun at once
    command.provision(*names)
    # The command gets going at once. Then each statement takes two seconds, and all names more than twenty.
    slow = command.proxy.add(nth=100, delay=2.0)
    process = command.start("tenants", "remove", "--all", "--yes", "--max", "24", *command.place, "--timeout", "10s")
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "stopping: --timeout is over, and what is in flight gets up to 30s to finish" in said, said
    assert slow.fired
    command.proxy.rules.clear()
    stopped = command.end(process)

    *lines, summary = stopped.out.splitlines()
    gone = set(names).difference(listed(command))
    assert 0 < len(gone) < 24
    assert (stopped.code, {*lines}, summary) == (3, {f"{name}: deleted" for name in gone}, f"{len(gone)} deleted")
    assert f"stopped early: {len(gone)} are done, {24 - len(gone)} are left. To go on, run it again" in stopped.err
    assert states(command) <= {"ready"}


@pytest.mark.parametrize("ending", first_of(["signals", "timeout"]))
def test_what_is_begun_and_cannot_be_finished_is_named(
    command: Command, three: list[str], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["tenants", "remove", *three, *command.place, "--yes"]
    command.proxy.add(nth=15, delay=10.0)
    if ending == "timeout":
        monkeypatch.setattr(running, "TIMEOUT_GRACE", 0.5)
        stopped = command(*line, "--timeout", "8s")
    else:
        process = command.start(*line)
        while "removing" not in states(command):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "again, to end at once" not in (said := process.stderr.readline()):  # two at the same moment are one
            assert said
        process.send_signal(signal.SIGINT)
        stopped = command.end(process)
    command.proxy.rules.clear()

    assert (stopped.code, stopped.out) == (3, "")
    found = re.search(r"0 are done, (\d) are begun and not finished \((.+)\), (\d) are left\. To go on", stopped.err)
    assert found is not None, stopped.err
    begun = found[2].split(", ")
    records = command("tenants", "list", *command.place, "--json").objects()
    assert sorted(begun) == sorted(each["name"] for each in records if each["state"] == "removing")
    assert (int(found[1]), int(found[3])) == (len(begun), 3 - len(begun))
    assert command(*line).out.endswith("3 deleted\n")


@pytest.mark.parametrize("interrupted", first_of([False, True]))
def test_in_json_what_was_not_done_is_named(
    command: Command, three: list[str], interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a second Ctrl-C comes while the store is asked what is begun. Then it counts as left."""
    line = ["tenants", "remove", *three, *command.place, "--yes"]
    command.proxy.add(nth=15, delay=10.0)
    monkeypatch.setattr(running, "TIMEOUT_GRACE", 0.5)
    reads = list[Store]()

    async def read(store: Store) -> Entries:
        reads.append(store)
        if interrupted and len(reads) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        return await read_entries(store)

    monkeypatch.setattr(tenants_place, "read_entries", read)
    stopped = command(*line, "--timeout", "8s", "-o", "json")
    command.proxy.rules.clear()

    assert (stopped.code, stopped.out, len(reads)) == (3, "", 2)
    *_, end = map(json.loads, stopped.err.splitlines())
    assert (end["exit_code"], sorted([*end["begun"], *end["left"]])) == (3, three)
    assert bool(end["begun"]) is not interrupted
    assert f"{len(end['left'])} are left. To go on, run it again: aiodbclient tenants remove" in end["error"]
    assert command(*line).out.endswith("3 deleted\n")


def test_check_says_what_it_did_not_check(command: Command, three: list[str]) -> None:
    a = three[0]
    assert command("tenants", "provision", a, *command.place, "--role", "reader").code == 0
    alone = command("tenants", "check", *command.place)
    assert (alone.code, alone.out) == (0, "3 checked: all well\n")
    assert "not checked: 1 reader. To check all: aiodbclient tenants check --role all" in alone.err
    assert command("tenants", "check", a, *command.place).err == ""

    everything = command("tenants", "check", *command.place, "--role", "all", "--json")
    assert sorted((each["name"], each["role"]) for each in everything.objects()) == sorted(
        [*((name, "owner") for name in three), (a, "reader")]
    )
    [reader] = command("tenants", "show", a, *command.place, "--role", "reader", "--json").objects()
    assert command("users", "delete", command.cluster, reader["username"], "--yes", "--not-a-tenant").code == 0
    broken = command("tenants", "check", *command.place, "--role", "all")
    assert (broken.code, broken.out) == (5, f"{a} (reader): login_missing\n4 checked\n")
    assert f"1 reader with problems. To repair them: aiodbclient tenants repair {a} --role reader" in broken.err
    repaired = command("tenants", "repair", "--all", "--role", "all", *command.place)
    assert (repaired.code, repaired.out) == (
        0,
        f"{a} (reader): repaired: login_missing (new credential: deliver it)\n3 kept, 1 repaired\n",
    )


def test_many_failures_for_one_reason_are_counted(command: Command, three: list[str]) -> None:
    new = [f"{three[0]}-{n}" for n in range(12)]
    command.provision(*new)
    other = ["--cluster", command.cluster, "--store", str(command.folder / "other.db")]

    done = command("tenants", "provision", *new, *other)

    assert (done.code, done.out) == (1, "12 failed\n")
    lines = done.err.splitlines()
    assert sum(line.startswith(f"{new[0][:-1]}") for line in lines) == 1
    assert sum("11 more failed as" in line for line in lines) == 1
    assert len(lines) == 4  # the first is about the new store, the last about --adopt
    assert command("tenants", "remove", "--all", *command.place, "--yes", "--max", "15").code == 0


def test_a_signal_in_the_moment_of_the_start_is_the_programs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    create = asyncio.create_subprocess_exec

    async def start(*program: str, **options: Any) -> Any:
        process = await create(*program, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):  # the event loop handles it
            await asyncio.sleep(0)
        return process

    monkeypatch.setattr(tenants_exec, "create_subprocess_exec", start)
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert asyncio.run(tenants_exec._run(program, dict(os.environ))) == 128 + signal.SIGTERM
