"""How the command ends where it cannot print, and on Ctrl-C before it has begun."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aiodbclient._cli.output import command_line

from .conftest import Command

# Sends itself Ctrl-C while the package is imported.
INTERRUPTED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from aiodbclient.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["aiodbclient._cli", "aiodbclient._cli.app"])
def test_ctrl_c_while_it_is_imported_is_130(module: str) -> None:
    code = INTERRUPTED.format(module=module)
    done = subprocess.run([sys.executable, "-c", code, "clusters"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["clusters"], ["clusters", "-o", "json"], ["clusters", "get", "nowhere"]]
)
def test_where_nothing_can_be_printed_the_exit_code_says_so(command: Command, arguments: list[str]) -> None:
    code = 2 if "nowhere" in arguments else 4
    with Path("/dev/full").open("w") as full:
        process = command.start(*arguments, stdout=full)
        done = command.end(process)
        assert (done.code, done.err.count("\n")) == (code, 1)
        if "-o", "json" in arguments:
            assert json.loads(done.err)["exit_code"] == code
        if "get" in arguments:
            both = command.start(*arguments, stdout=full, stderr=full)
            assert both.wait(60) == code


def test_notes_are_not_printed_on_the_standard_output(command: Command) -> None:
    """A process that starts without a standard error has None there, which ``print`` takes for the standard output."""
    process = subprocess.run(
        ["sh", "-c", f"exec {shlex.quote(sys.executable)} -m aiodbclient clusters get nowhere 2>&-"],
        env=command.environment,
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, b"")


def test_a_command_to_be_copied_has_no_control_characters() -> None:
    arguments = [
        "tenants",
        "rotate",
        "plain",
        "a b",
        "$(a)`",
        "\\",
        "it's",
        "a\x1b[31m'\\",
        "line\nfeed",
        "\x85\u202e",
        "\udcff",
    ]
    line = command_line(arguments)

    assert line.isprintable()
    assert line.startswith("aiodbclient tenants rotate plain 'a b' '$(a)`' '\\' ")
    echo = ["bash", "-c", f"printf '%s\\0' {line}"]
    printed = subprocess.run(echo, env={"LC_ALL": "C"}, capture_output=True, check=True).stdout
    assert [each.decode(errors="surrogateescape") for each in printed.split(b"\0")[1:-1]] == arguments


def test_problems_are_not_counted_where_nothing_can_be_printed(command: Command) -> None:
    """``check`` says on the standard error how many have problems, but not below why it ended."""
    assert command("tenants", "provision", "unprinted", *command.place).code == 0
    assert command("users", "delete", "unprinted", "--cluster", command.cluster, "--yes").code == 0
    with Path("/dev/full").open("w") as full:
        done = command.end(command.start("tenants", "check", *command.place, "-o", "json", stdout=full))
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert command("tenants", "remove", "unprinted", *command.place, "--yes").code == 0
