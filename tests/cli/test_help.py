"""The command line: help, completion, and errors for bad usage."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from aiodbclient import __version__
from aiodbclient import _cli as cli
from aiodbclient._cli.app import app
from aiodbclient._cli.plumbing.failures import EXIT_CODES

from .conftest import Command

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "command.md"


def commands() -> dict[str, Any]:
    """Each command by its full name, such as ``users list``."""
    found: dict[str, Any] = {}
    everything: Any = typer.main.get_command(app)
    for name in everything.commands:
        command = everything.commands[name]
        below = getattr(command, "commands", None)
        found |= {name: command} if below is None else {f"{name} {each}": below[each] for each in below}
    return found


def help_of(command: Command, *words: str) -> str:
    command.environment["COLUMNS"] = "80"
    done = command(*words, "--help")
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def test_help_fits_one_screen(command: Command) -> None:
    """The help of each operation fits 40 lines of 80 columns, and ends with an example to copy."""
    for name, found in commands().items():
        if name == "sandbox":
            continue
        printed = help_of(command, *name.split())
        lines = printed.splitlines()
        assert len(lines) <= 40, (name, len(lines))
        assert all(len(line) <= 80 for line in lines), name
        assert lines[-1] == found.epilog, name
        assert found.epilog.startswith(f"Example: aiodbclient {name}"), name


def test_help_has_common_panel(command: Command) -> None:
    """The options of most commands stand together, the most needed ones first."""
    own, title, common = help_of(command, "tenants", "remove").partition("\nCommon options:\n")
    assert ("--older-than" in own, "--older-than" in common, bool(title)) == (True, False, True)
    assert common.index("--cluster") < common.index("--store") < common.index("--output") < common.index("--timeout")


def test_help_ends_with_exit_codes(command: Command) -> None:
    """``aiodbclient --help`` and a bare group explain what there is."""
    assert " ".join(help_of(command).split()).endswith(EXIT_CODES)
    assert command().out == help_of(command)
    bare = command("tenants")
    assert (bare.code, "revoke-previous  Revoke the credentials" in bare.out) == (2, True)


@pytest.mark.thorough
def test_help_examples_work(secure: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of each command does what it says, in an order in which they build on each other."""
    command = secure
    monkeypatch.chdir(command.folder)
    Path("names.csv").write_text("name\nalpha\nbeta\ngamma\n")
    Path("users.yaml").write_text("users:\n- name: replica\n  settings: {pg_allow_replication: true}\n")
    old, new = (command("store", "keygen", shows=True).out.strip() for _ in range(2))
    command.environment |= {
        "AIODBCLIENT_STORE_KEY": old,
        "AIODBCLIENT_STORE": "tenants.db",
        "AIODBCLIENT_CLUSTER": command.cluster,
    }
    as_python = {"psql": sys.executable, "SELECT 1": "pass"}  # psql may be missing
    order = ["clusters", "users create", "dbs create", "tenants provision", "tenants rotate", ""]
    order += ["tenants revoke-previous", "tenants suspend", "tenants resume", "tenants remove"]
    order += ["store", "store forget", "users delete", "dbs delete"]

    def place(name: str) -> int:
        return max((at for at, each in enumerate(order) if each and name.startswith(each)), default=order.index(""))

    ran = 0
    for name in sorted(commands(), key=place):
        if name in ("sandbox", "tenants move"):  # it needs two clusters
            continue
        if name == "store rekey":
            command.environment["AIODBCLIENT_STORE_KEY"] = f"{new},{old}"
        words = [as_python.get(word, word) for word in shlex.split(commands()[name].epilog)[2:]]
        asks = name.split()[-1] in ("delete", "reset", "suspend", "remove", "forget") and "--yes" not in words
        done = command(*words, *(["--yes"] if asks else []), shows=True)
        assert done.code == 0, (name, done.err)
        ran += 1
    assert ran > 25


def test_reference_is_generated() -> None:
    """The page of commands in the repository is what ``typer ... utils docs`` prints."""
    program = ["-m", "typer", "aiodbclient._cli.app", "utils", "docs", "--name", "aiodbclient"]
    environment = os.environ | {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}
    printed = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, check=True)
    assert REFERENCE.read_text().strip() == printed.stdout.strip()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tenants show a --shwo", "No such option: --shwo"),
        ("tenant list", "No such command 'tenant'. Did you mean 'tenants'? See `aiodbclient --help`"),
        ("users lst", "No such command 'lst'. Did you mean 'list'? See `aiodbclient users --help`"),
        ("tenants show -o xml --store s", "'xml' is not one of 'table', 'json', 'env', 'uri', 'k8s'. See"),
        ("tenants rotate", "Missing option '--store'"),
        ("tenants rotate a --older-than 30 --store s", "takes a duration such as 30d"),
        ("tenants list --cluster= --store s", "it is empty"),
        ("users list", "Missing option '--cluster'"),
        ("store forget a", "Missing option '--store'"),
        ("users plan", "No such command 'plan'"),
        ("users delete a --not-a-tenant --cluster c", "No such option: --not-a-tenant"),
    ],
)
def test_bad_usage_sends_nothing(command: Command, line: str, said: str) -> None:
    """What Typer refuses ends with 2 and one line, before anything is sent. ``golden/usage.txt`` has ours."""
    command(*line.split()).fails(2, said)
    assert command.sent() == []


def test_output_form_is_one_setting(command: Command) -> None:
    """``-o json``, ``-ojson`` and ``--output=json`` are the same. Errors are text on the standard error."""
    for form in (["-o", "json"], ["-ojson"], ["--output=json"], ["--output", "json"]):
        [cluster] = [each for each in command("clusters", "list", *form).objects() if each["name"] == command.cluster]
        assert cluster["engine"] == "pg"
        done = command("users", "get", "nobody", *command.on, *form)
        assert (done.code, done.out, done.err) == (1, "", f"aiodbclient: no user nobody on {command.cluster}\n")
    assert command("clusters", "list", "--json").code == 2


def test_version_is_printed(command: Command) -> None:
    assert command("--version").out == f"aiodbclient {__version__}\n"


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the command says how to install it."""
    monkeypatch.delitem(sys.modules, "aiodbclient._cli.app")
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r"the command needs its extra: pip install 'aiodbclient\[cli\]'$"):
        cli.main()


@pytest.mark.parametrize("line", ["--help", "tenants --help", "tenants rotate --help"])
def test_help_is_quick(command: Command, line: str) -> None:
    """Help imports no driver, and not pydantic, with which Typer checks values."""
    command.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    imported = command.end(command.start(*line.split(), stdout=subprocess.DEVNULL), shows=True)
    slow = "aiohttp|psycopg|pymysql|aiomysql|cattrs|cryptography|yaml|rich|pydantic"
    assert re.findall(rf"\| +({slow})$", imported.err, re.MULTILINE) == []
    assert re.search(r"\| +typer$", imported.err, re.MULTILINE)


def test_sandbox_command_is_its_program(command: Command) -> None:
    """``aiodbclient sandbox`` passes its arguments on."""
    process = command.start("sandbox", "--cluster", "kafka=events", "--json")
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    assert '"name": "events"' in line
    assert command.end(process, shows=True).code == 0
    wrong = command.process("sandbox", "--port", "70000")
    assert (wrong.code, wrong.err.startswith("usage: aiodbclient sandbox")) == (2, True)
