"""A rotation that was killed is run again, and what it advises ends nothing else."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest

from aiodbclient._cli import tenants_verbs

from .conftest import Command

QUESTION = "Give 1 login on tenants-prod new credentials? The old ones keep working."


def half_rotate(command: Command, names: list[str]) -> None:
    """Rotate all tenants but the last, and retire none."""
    command.provision(*names)
    assert command("tenants", "rotate", *names[:-1], *command.place).code == 0


def test_a_rotation_that_was_killed_is_run_again(command: Command, names: list[str]) -> None:
    half_rotate(command, names[:4])
    file = command.folder / "names.csv"
    file.write_text("\n".join(["name", *names[:4]]))
    terminal = command.terminal("tenants", "rotate", "--all", *command.place, columns=200)
    assert f"{QUESTION} [y/N]" in terminal.expect("[y/N]")
    terminal.type("n\n")
    terminal.end()

    for number, done in ((3, "1 rotated"), (4, "nothing to do")):
        again = command("tenants", "rotate", "--from", str(file), *command.place)
        assert (again.code, again.out) == (0, f"{done}\n")
        assert again.err == f"aiodbclient: rotated within the last hour, and left alone until `retire`: {number}\n"


def test_those_that_wait_for_retire_are_retired_alone(
    command: Command, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    half_rotate(command, names)  # more than a suggested command lists
    monkeypatch.setattr(tenants_verbs, "_RUN_AGAIN", timedelta(0))  # an hour later
    old, [late] = names[:-1], names[-1:]

    done = command("tenants", "rotate", "--all", *command.place, "--yes")
    assert (done.code, done.out) == (1, "11 failed, 1 rotated\n")
    asked = command("tenants", "rotate", "--all", *command.place, "--older-than", "0s")
    assert (asked.code, "There is no terminal" in asked.err) == (2, True)
    retire, force = [shlex.split(each)[1:] for each in re.findall(r": (aiodbclient .*)", done.err)]
    assert (retire[:3], force[:3]) == (["tenants", "revoke-previous", "--from"], ["tenants", "rotate", "--from"])
    file = Path(retire[3])
    assert file.stat().st_mode & 0o77 == 0
    assert sorted(file.read_text().split()) == sorted(["name", *old])
    assert command(*retire, "--yes").out == "11 revoked\n"
    pending = {each["name"]: each["pending"] for each in command("tenants", "list", *command.place, "-o", "json").objects()}
    assert {name for name, what in pending.items() if what == "revoke-previous"} == {late}
    file.unlink()


def test_without_a_terminal_it_needs_yes_also_while_nothing_is_due(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    line = ["tenants", "rotate", "--all", "--older-than", "90d", *command.place]
    refused = command(*line)
    assert (refused.code, "There is no terminal" in refused.err) == (2, True)
    assert command(*line, "--yes").out == "1 kept\n"


def test_retire_counts_logins_and_tenants(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    command.provision(a, b)
    assert command("tenants", "provision", a, "--role", "reader", *command.place).code == 0
    assert command("tenants", "rotate", "--all", "--role", "all", "--yes", *command.place).out == "3 rotated\n"
    asked = command("tenants", "revoke-previous", "--all", "--role", "all", *command.place)
    assert f"Retire the previous logins of {a}, {b} (3 logins of 2 tenants) on tenants-prod, and end" in asked.err
    assert (
        command("tenants", "revoke-previous", "--all", "--role", "all", "--older-than", "1h", "--yes", *command.place).out
        == "3 kept\n"
    )
