"""What ends something asks first, and needs a bound where nobody typed the names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

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
