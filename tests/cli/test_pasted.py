"""Each command that another one prints is pasted into a shell, in the state in which it was printed, and helps."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aiodbclient.tenants import OperationKind

from .conftest import COMMAND, Command, Terminal


def printed(text: str, begins: str = "aiodbclient [a-z]+ ") -> str:
    """The command at the end of a line."""
    [line] = {each for each in re.findall(rf"{begins}.*$", text, re.MULTILINE) if not each.startswith("aiodbclient: ")}
    return str(line)


def paste(command: Command, line: str, code: int = 0) -> str:
    """Run a line in a shell on a terminal, and answer yes. Return what it printed."""
    terminal = Terminal(["sh", "-c", line], command.environment | {"TERM": "xterm"}, columns=300)
    answered = 0
    while terminal.process.poll() is None and terminal._read():
        while terminal.seen.count("[y/N]") > answered:
            terminal.type("y\n")
            answered += 1
    ended, seen = terminal.end()
    assert ended == code, seen
    return seen


@pytest.fixture
def stale(command: Command, names: list[str]) -> list[str]:
    """The options of a copy of the store, after which two tenants were rotated."""
    command.environment["PATH"] = f"{Path(COMMAND).parent}:{command.environment['PATH']}"
    command.provision(*names[:2])
    stale = ["--cluster", command.cluster, "--store", str(command.folder / "a stale copy.db")]
    assert command("store", "copy", command.store, stale[-1]).code == 0
    assert command("tenants", "rotate", *names[:2], *command.place).code == 0
    return stale


def test_stale_store_is_replaced(command: Command, names: list[str], stale: list[str]) -> None:
    """The logins are taken over from the server: first the stale records are forgotten."""
    found = command("tenants", "check", *stale)
    assert (found.code, f"{names[0]}, {names[1]}: another store knows the tenant" in found.err) == (5, True)
    seen = paste(command, printed(found.err))
    assert "2 adopted" in seen
    assert command("tenants", "check", *stale).out == "2 checked: all well\n"


def test_adopting_before_forgetting_fails(command: Command, names: list[str], stale: list[str]) -> None:
    """The stored logins are older, and what helps is two commands away. Other commands say the same."""
    for words in (["provision", "--adopt"], ["rotate"], ["suspend", "--yes"]):
        early = command("tenants", words[0], names[0], *words[1:], *stale)
        assert (early.code, early.out, "is newer than those on record" in early.err) == (1, "1 failed\n", True), early
    checked = paste(command, printed(early.err), code=5)
    assert "1 adopted" in paste(command, printed(checked, r"aiodbclient store forget ").strip())
    assert command("tenants", "provision", names[0], "--adopt", *stale).out == "1 kept\n"


def test_prefix_is_repeated(command: Command, names: list[str], stale: list[str]) -> None:
    """Or the command would be about other tenants."""
    own = [*command.place, "--prefix", f"{names[2].replace('-', '_')}_"]
    assert command("tenants", "provision", names[3], *own).code == 0
    assert command("tenants", "rotate", names[3], *own).code == 0
    refused = command("tenants", "rotate", names[3], *own)
    assert "1 revoked" in paste(command, printed(refused.err))
    assert command("tenants", "rotate", names[3], *own).out == "1 rotated\n"


def test_unfinished_and_suspended_are_helped(command: Command, names: list[str], stale: list[str]) -> None:
    a, b = names[:2]
    command.leave(a, OperationKind.SUSPEND)
    checked = command("tenants", "check", a, *command.place)
    assert "1 suspended" in paste(command, printed(checked.err)), checked
    assert command("tenants", "check", a, *command.place).code == 0
    assert command("tenants", "suspend", b, "--yes", *command.place).code == 0
    refused = command("tenants", "show", b, *command.place)
    assert "1 resumed" in paste(command, printed(refused.err)), refused


def test_damaged_record_is_forgotten(command: Command, names: list[str], stale: list[str]) -> None:
    with closing(sqlite3.connect(command.store)) as database, database:
        database.execute("UPDATE credentials SET record = 'nonsense' WHERE name = ?", (names[0],))
    listed = command("tenants", "list", *command.place)
    assert listed.code == 4
    assert "forgotten" in paste(command, printed(listed.err))
    assert command("tenants", "list", *command.place).code == 0


def test_look_after_lost_change(command: Command, stale: list[str]) -> None:
    command.sandbox.faults.add("users.create", cut=True, after=True, times=1)
    done = command("users", "create", "lost", *command.on)
    assert "lost" in paste(command, printed(done.err))


def test_each_hint_of_a_failure_helps(command: Command, names: list[str], stale: list[str]) -> None:
    """What a failure prints is pasted right after it, and then the failed command works."""
    a, b, c = names[:3]
    place = command.place

    def helped(code: int, *words: str, says: str, begins: str = "aiodbclient [a-z]+ ") -> None:
        failed = command("tenants", *words)
        assert failed.code == code, failed
        assert says in paste(command, printed(failed.err, begins)), failed
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
    assert command.cluster in paste(command, printed(full.err))


def test_stale_suspension_is_repeated(command: Command, names: list[str], stale: list[str]) -> None:
    """A tenant that was suspended after the store was copied is suspended in the copy too."""
    fresh = [*stale[:-1], str(command.folder / "fresh.db")]
    assert command("store", "copy", command.store, fresh[-1]).code == 0
    assert command("tenants", "suspend", names[0], "--yes", *command.place).code == 0
    checked = command("tenants", "check", names[0], *fresh)
    assert checked.code == 5
    assert "1 suspended" in paste(command, printed(checked.err))
    assert command("tenants", "check", names[0], *fresh).code == 0
