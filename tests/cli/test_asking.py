"""What ends something asks first, and needs a bound where nobody typed the names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from aiodbclient.tenants import OperationKind

from ..proc import state_of
from ..waiting import wait_until
from .conftest import Command

# Sends itself Ctrl-C while the package is imported.
INTERRUPTED = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell, it is ignored
class Finder:
    def find_spec(self, name, *_):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from aiodbclient.__main__ import main
main()
"""


@pytest.fixture
def three(command: Command, names: list[str]) -> list[str]:
    """Three tenants, on record, of which the first two are rotated."""
    command.provision(*names[:3])
    assert command("tenants", "rotate", *names[:2], *command.place).code == 0
    return names[:3]


def listed(command: Command) -> list[dict[str, Any]]:
    return command("tenants", "list", *command.place, "-o", "json").objects()


def test_all_with_yes_needs_max(command: Command, three: list[str]) -> None:
    """With --all and --from, each operation that ends something needs --max beside --yes, and refuses more."""
    file = command.folder / "names.csv"
    file.write_text("\n".join(["name", *three]))
    for operation, number, done in (
        ("rotate --force", 2, "3 rotated"),
        ("revoke-previous", 3, "3 revoked"),
        ("suspend", 3, "3 suspended"),
        ("remove", 3, "3 deleted"),
    ):
        before = listed(command)
        for which in (["--all"], ["--from", str(file)]):
            line = ["tenants", *operation.split(), *which, *command.place]
            for options, said in (
                ([], "There is no terminal to ask on: add --yes"),
                (["--yes"], f"--yes needs --max N with --all or --from: {number} are selected"),
                (["--yes", "--max", str(number - 1)], f"{number} are selected, more than --max {number - 1}"),
            ):
                refused = command(*line, *options)
                refused.fails(2, said)
                assert "Nothing was changed\n" in refused.err
        assert listed(command) == before
        assert command(*line, "--yes", "--max", str(number)).out.endswith(f"{done}\n")


def test_typed_names_need_a_y(command: Command, three: list[str]) -> None:
    """Names on the command line need a y, or --yes alone."""
    for answer, code in (("n", 3), ("", 3), ("y", 0)):
        terminal = command.terminal("tenants", "suspend", three[0], *command.place, columns=300)
        screen = terminal.expect("[y/N]")
        assert f"Suspend {three[0]} (1) on {command.cluster}, and end their sessions?" in screen
        terminal.type(f"{answer}\n")
        ended, screen = terminal.end()
        assert (ended, "nothing was changed" in screen) == (code, code == 3)
    assert command("tenants", "remove", *three, *command.place, "--yes").out.endswith("3 deleted\n")


def test_typed_ahead_is_no_answer(command: Command, three: list[str]) -> None:
    """What was typed before a question does not answer it, and Ctrl-C at it changes nothing."""
    terminal = command.terminal("tenants", "remove", three[0], *command.place, columns=300)
    terminal.type("y\n")
    terminal.expect("[y/N]")
    for _ in range(3):  # Python notices a signal right before it waits for input with the next one
        terminal.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            terminal.process.wait(5)
            break
    code, screen = terminal.end()
    assert (code, screen.endswith("aiodbclient: stopped: nothing was changed\r\n")) == (3, True), screen
    assert [each["name"] for each in listed(command)] == three


def test_unfinished_removal_is_asked_for(command: Command, three: list[str]) -> None:
    """``repair`` and ``provision`` ask before they finish a removal, which deletes the data."""
    a, b = three[0].upper(), three[1]
    command.provision(a)
    command.leave(a, OperationKind.REMOVE)
    checked = command("tenants", "check", *command.place)
    assert f"{a}: a removal that began is not finished" in checked.err
    assert "tenants repair" not in checked.err.replace("`tenants repair`", "")  # no command to copy deletes data
    for operation in ("repair", "provision"):
        refused = command("tenants", operation, a, b, *command.place)
        assert (refused.code, refused.out) == (2, "")
        assert f"Finish the removal of {a} (1) on {command.cluster}, which deletes all data?" in refused.err
    assert command("tenants", "repair", a, *command.place, "--yes").out.endswith("1 deleted\n")


def test_adoption_is_asked_for(command: Command, names: list[str]) -> None:
    """A store that is named by mistake has no tenants, so each tenant of the right store could be taken over."""
    a = names[0]
    command.provision(a)
    other = ["--cluster", command.cluster, "--store", str(command.folder / "other.db")]
    refused = command("tenants", "provision", a, *other)
    assert refused.code == 1
    assert "the store is empty, and 1 of the 1 names have a database already" in refused.err
    asked = command("tenants", "provision", a, "--adopt", *other)
    assert (asked.code, f"Take over {a} (1): the logins, and the databases with all data?" in asked.err) == (2, True)
    assert f"They are not on record in the store {other[-1]}, and may be in another store." in asked.err
    assert command("tenants", "check", a, *command.place).out == "1 checked: all well\n"
    assert command("tenants", "provision", a, "--adopt", *other, "--yes").out == "1 adopted\n"
    assert command("tenants", "provision", a, "--adopt", *other).out == "1 kept\n"  # on record: no question


def test_stop_while_reading_names(command: Command) -> None:
    """Ctrl-C while a pipe of names is read says that nothing was changed."""
    pipe = command.folder / "names"
    os.mkfifo(pipe)
    process = command.start("tenants", "remove", "--from", str(pipe), *command.place)
    writer = os.open(pipe, os.O_WRONLY)  # waits until the command opens it
    wait_until(lambda: state_of(process.pid)[0] == "S")
    process.send_signal(signal.SIGINT)
    done = command.end(process)
    os.close(writer)
    assert (done.code, done.err.strip()) == (3, "aiodbclient: stopped: nothing was changed")


@pytest.mark.parametrize("module", ["aiodbclient._cli", "aiodbclient._cli.app"])
def test_ctrl_c_while_importing(module: str) -> None:
    """Until the command handles signals itself, nothing is begun, and Ctrl-C ends it as a shell expects."""
    code = INTERRUPTED.format(module=module)
    done = subprocess.run([sys.executable, "-c", code, "clusters"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")
