"""Each command that another one prints is pasted into a shell, in the state in which it was printed, and helps."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from aiodbclient.tenants import OperationKind

from .conftest import Command


@pytest.fixture
def stale(command: Command, names: list[str]) -> list[str]:
    """The options of a copy of the store, after which two tenants were rotated."""
    command.provision(*names[:2])
    stale = ["--cluster", command.cluster, "--store", str(command.folder / "a stale copy.db")]
    assert command("store", "copy", command.store, stale[-1]).code == 0
    assert command("tenants", "rotate", *names[:2], *command.place).code == 0
    return stale


def test_stale_store_is_replaced(command: Command, names: list[str], stale: list[str]) -> None:
    """The logins are taken over from the server: first the stale records are forgotten, and with them their cluster."""
    found = command("tenants", "check", *stale[2:])
    assert (found.code, f"{names[0]}, {names[1]}: another store knows the tenant" in found.err) == (5, True)
    seen = command.paste(found.err)
    assert "2 adopted" in seen
    assert command("tenants", "check", *stale).out == "2 checked: all well\n"


def test_adopting_before_forgetting_fails(command: Command, names: list[str], stale: list[str]) -> None:
    """The stored logins are older, and what helps is two commands away. Other commands say the same."""
    for words in (["provision", "--adopt"], ["rotate"], ["suspend", "--yes"]):
        early = command("tenants", words[0], names[0], *words[1:], *stale)
        assert (early.code, early.out, "is newer than those on record" in early.err) == (1, "1 failed\n", True), early
    checked = command.paste(early.err, code=5)
    assert "1 adopted" in command.paste(checked, begins="aiodbclient store forget ")
    assert command("tenants", "provision", names[0], "--adopt", *stale).out == "1 kept\n"


def test_prefix_is_repeated(command: Command, names: list[str], stale: list[str]) -> None:
    """Or the command would be about other tenants."""
    own = [*command.place, "--prefix", f"{names[2].replace('-', '_')}_"]
    assert command("tenants", "provision", names[3], *own).code == 0
    assert command("tenants", "rotate", names[3], *own).code == 0
    refused = command("tenants", "rotate", names[3], *own)
    assert "1 revoked" in command.paste(refused.err)
    assert command("tenants", "rotate", names[3], *own).out == "1 rotated\n"


def test_unfinished_and_suspended_are_helped(command: Command, names: list[str], stale: list[str]) -> None:
    a, b = names[:2]
    command.leave(a, OperationKind.SUSPEND)
    checked = command("tenants", "check", a, *command.place)
    assert "1 suspended" in command.paste(checked.err), checked
    assert command("tenants", "check", a, *command.place).code == 0
    assert command("tenants", "suspend", b, "--yes", *command.place).code == 0
    refused = command("tenants", "show", b, *command.place)
    assert "1 resumed" in command.paste(refused.err), refused


def test_damaged_record_is_forgotten(command: Command, names: list[str], stale: list[str]) -> None:
    with closing(sqlite3.connect(command.store)) as database, database:
        database.execute("UPDATE credentials SET record = 'nonsense' WHERE name = ?", (names[0],))
    listed = command("tenants", "list", *command.place)
    assert listed.code == 4
    assert "forgotten" in command.paste(listed.err)
    assert command("tenants", "list", *command.place).code == 0


def test_look_after_lost_change(command: Command, stale: list[str]) -> None:
    command.sandbox.faults.add("users.create", cut=True, after=True, times=1)
    done = command("users", "create", "lost", *command.on)
    assert "lost" in command.paste(done.err)


def test_each_hint_of_a_failure_helps(command: Command, names: list[str], stale: list[str]) -> None:
    """What a failure prints is pasted right after it, and then the failed command works."""
    a, b, c = names[:3]
    place = command.place

    def helped(code: int, *words: str, says: str) -> None:
        failed = command("tenants", *words)
        assert failed.code == code, failed
        assert says in command.paste(failed.err), failed
        assert command("tenants", *words).code == 0

    assert command("tenants", "suspend", a, "--yes", *place).code == 0
    helped(1, "provision", a, *place, says="1 resumed")
    helped(1, "rotate", b, "--role", "reader", *place, says="1 created")
    command.leave(a, OperationKind.ROTATE)
    helped(5, "check", a, *place, says="1 rotated")
    command.leave(a, OperationKind.REPAIR)
    helped(5, "check", a, *place, says="1 repaired")
    other = ["--cluster", command.cluster, "--store", str(command.folder / "other.db")]
    assert command("tenants", "provision", c, *other).code == 0
    helped(1, "provision", a, *other, says="1 adopted")
    full = command("tenants", "provision", names[3], *other, "--max-tenants", "1")
    assert command.cluster in command.paste(full.err)


def test_stale_suspension_is_repeated(command: Command, names: list[str], stale: list[str]) -> None:
    """A tenant that was suspended after the store was copied is suspended in the copy too."""
    fresh = [*stale[:-1], str(command.folder / "fresh.db")]
    assert command("store", "copy", command.store, fresh[-1]).code == 0
    assert command("tenants", "suspend", names[0], "--yes", *command.place).code == 0
    checked = command("tenants", "check", names[0], *fresh)
    assert checked.code == 5
    assert "1 suspended" in command.paste(checked.err)
    assert command("tenants", "check", names[0], *fresh).code == 0


def test_many_names_are_in_a_file(command: Command, names: list[str]) -> None:
    """Not on the line, and no others: ``--all`` would revoke what a program still uses."""
    command.provision(*names)
    assert command("tenants", "rotate", *names, *command.place).code == 0
    refused = command("tenants", "rotate", *names[1:], *command.place)
    assert (refused.code, "revoke-previous --from " in refused.err) == (1, True)
    assert "11 revoked" in command.paste(refused.err)
    pending = command("tenants", "list", *command.place, "-o", "json").objects()
    assert [each["name"] for each in pending if each["pending"]] == [names[0]]
