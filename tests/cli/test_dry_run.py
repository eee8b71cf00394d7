"""``--dry-run`` says what a command would do, and changes nothing; ``-o csv`` is what ``--from`` reads."""

from __future__ import annotations

import csv
import io
import signal
from pathlib import Path
from typing import Any

import pytest

from ..waiting import wait_until
from .conftest import Command

READS = {"clusters.list", "clusters.get", "clusters.ca", "users.list", "users.get", "dbs.list", None}


def would(command: Command, *words: str, place: list[str]) -> dict[str, str]:
    """What a command would do, by name. It sends nothing that changes something, and exits with 0."""
    before = len(command.sent())
    done = command(*words, "--dry-run", *place, "-o", "json")
    assert done.code == 0, done
    assert done.err.endswith("--dry-run: nothing was changed\n")
    assert {operation for operation, _ in command.sent()[before:]} <= READS
    return {row["name"]: row["would"] for row in done.objects()}


def test_dry_run_says_what_a_run_then_does(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]

    def listed() -> list[dict[str, Any]]:
        return command("tenants", "list", *command.place, "-o", "json").objects()

    def tenants(*words: str) -> dict[str, str]:
        before = listed() if Path(command.store).exists() else []
        found = would(command, "tenants", *words, place=command.place)
        assert (listed() if before else []) == before
        return found

    assert tenants("provision", a, b) == {a: "create", b: "create"}
    assert not Path(command.store).exists()
    command.provision(a, b)
    assert tenants("provision", a, c) == {a: "keep", c: "create"}
    assert tenants("provision", a, c, "--adopt") == {a: "keep", c: "adopt, or create"}
    assert tenants("rotate", "--all") == {a: "rotate", b: "rotate"}
    assert command("tenants", "rotate", a, *command.place).code == 0
    assert tenants("revoke-previous", "--all") == {a: "revoke", b: "keep"}
    assert tenants("repair", a) == {a: "repair"}
    assert tenants("suspend", a, b) == {a: "suspend", b: "suspend"}
    assert tenants("remove", "--all") == {a: "remove", b: "remove"}
    assert command("tenants", "check", *command.place).out == "2 checked: all well\n"
    # The command itself would fail.
    assert tenants("remove", a, c) == {a: "nothing: another name fails", c: "fail: not on record"}
    assert tenants("rotate", "--role", "reader", a, b)[a].startswith("fail: it has no reader")
    assert tenants("remove", a, c, "--ignore-absent") == {a: "remove"}


def test_dry_run_of_users(command: Command) -> None:
    command.in_memory("pg", "memory")
    assert would(command, "users", "provision", "ann", "bob", place=command.on) == {"ann": "create", "bob": "create"}
    assert command("users", "provision", "ann", *command.on).code == 0
    assert would(command, "users", "provision", "ann", "bob", place=command.on) == {"ann": "keep", "bob": "create"}
    found = would(command, "users", "delete", "ann", "bob", place=command.on)
    assert found == {"ann": "delete", "bob": "nothing: it is absent"}


def test_csv_of_a_list_is_read_by_from(command: Command, tmp_path: Path) -> None:
    command.in_memory("pg", "memory")
    many = [f"u{number}" for number in range(12)]
    assert command("users", "provision", *many, *command.on).code == 0
    listed = command("users", "list", "-o", "csv", *command.on).out
    rows = [row for row in csv.DictReader(io.StringIO(listed)) if row["name"] in many]
    assert [row["name"] for row in rows] == many
    file = tmp_path / "users.csv"
    file.write_text("\n".join(["name", *many]))
    line = ["users", "delete", "--from", str(file), *command.on]
    command(*line).fails(2, "Delete 12 users of memory? There is no terminal to ask on")
    command(*line, "--yes").fails(2, "--yes needs --max N")
    assert command(*line, "--yes", "--max", "12").out == "12 deleted\n"
    assert command(*line, "--yes", "--max", "12").code == 1  # they are absent


@pytest.mark.parametrize(
    "words", ["tenants list", "tenants capacity", "store list", "clusters list", "dbs list", "users list"]
)
def test_each_list_has_csv(command: Command, names: list[str], words: str) -> None:
    command.provision(names[0])
    place = {"tenants": command.place, "store": [command.store], "clusters": []}.get(words.split()[0], command.on)
    [first, *rows] = csv.reader(io.StringIO(command(*words.split(), *place, "-o", "csv").out))
    objects = command(*words.split(), *place, "-o", "json").objects()
    assert rows
    assert len(rows) == len(objects)
    assert set(first) == {title for each in objects for title in each}


def test_operation_of_another_group_is_suggested(command: Command) -> None:
    command("users", "remove", "ann", *command.on).fails(2, "No such command 'remove'. Did you mean 'delete'?")
    command("tenants", "delete", "ann", *command.on).fails(2, "Did you mean 'remove'?")


def test_users_are_provisioned_before_the_store_exists(command: Command) -> None:
    """As docs/how-to/operate.md exports the variable first. A reset could hit a tenant, so it is refused."""
    command.in_memory("pg", "memory")
    command.environment["AIODBCLIENT_STORE"] = str(command.folder / "later.db")
    assert command("users", "provision", "ann", *command.on).code == 0
    command("users", "provision", "ann", "--if-exists", "reset", *command.on, "--yes").fails(4, "does not exist")


def test_interrupted_removal_goes_on(command: Command, names: list[str]) -> None:
    """What it prints after Ctrl-C is pasted, and removes the rest."""
    command.provision(*names)
    line = ["tenants", "remove", *names, "--yes", *command.place]
    process = command.start(*line)
    wait_until(lambda: len(command("tenants", "list", *command.place, "-o", "json").objects()) < len(names))
    process.send_signal(signal.SIGINT)
    stopped = command.end(process)
    if stopped.code == 0:
        return  # it was faster
    assert stopped.code == 3
    said = "To go on: run the same command again, with --ignore-absent\n"
    assert stopped.err.endswith(said), stopped.err
    assert command(*line, "--ignore-absent").code == 0
    assert command("tenants", "list", *command.place, "-o", "json").out == ""
