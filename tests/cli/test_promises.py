"""What an operator relies on: a wrong file deletes nothing, and what the command advises works when it is typed."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from aiodbclient._cli.output import wrapped
from aiodbclient.tenants._record import Verb

from .conftest import Command


def advised(text: str, start: str) -> list[str]:
    """The arguments of the command in ``text`` that begins with ``start``."""
    [line] = re.findall(rf"aiodbclient {start}.*?(?=\. [A-Z]|$)", text, re.MULTILINE)
    return shlex.split(line)[1:]


def test_a_failed_rotation_advises_what_was_typed(command: Command, names: list[str]) -> None:
    command.provision(*names[:2])
    for which in ([names[0]], ["--all", "--yes"]):
        before = credentials(command)
        command.proxy.add("login", sqlstate="53300")
        failed = command("tenants", "rotate", *which, *command.place)
        command.proxy.rules.clear()
        assert (failed.code, "--older-than" in failed.err) == (4, False), failed.err
        again = advised(failed.err, "tenants rotate") if "aiodbclient tenants rotate" in failed.err else []
        assert not again or again[2:] == [*which, *command.place]
        assert command("tenants", "rotate", *which, *command.place).code == 0
        after = credentials(command)
        assert any(before[name] != after[name] for name in names[:2])


def credentials(command: Command) -> dict[str, str]:
    shown = command("tenants", "show", *command.place, "--json", "--show").objects()
    return {each["name"]: each["password"] for each in shown}


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_all_readers_are_rotated(command: Command, names: list[str], role: str) -> None:
    command.provision(names[0])
    assert command("tenants", "provision", names[0], "--role", role, *command.place).code == 0
    done = command("tenants", "rotate", "--all", "--role", role, "--yes", *command.place)
    assert (done.code, done.out) == (0, "1 rotated\n")


def test_a_check_that_failed_is_not_all_well(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    checked = command("tenants", "check", names[0], names[9], *command.place)
    assert (checked.code, checked.out.splitlines()[-1]) == (1, "1 checked, 1 failed")


def test_a_store_that_was_copied_refuses_changes(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a, names[1])
    target = str(command.folder / "moved.db")
    moved = command("store", "copy", command.store, target)
    assert (moved.code, moved.out) == (0, "2 records copied\n")
    for verb in (["rotate", a], ["remove", a, "--yes"], ["suspend", a, "--yes"], ["provision", names[2]]):
        refused = command("tenants", *verb, *command.place)
        assert (refused.code, refused.out) == (4, "")
        assert refused.err.endswith(f"was moved to the store {target}: use that one. Nothing was changed\n")
    assert command("store", "forget", command.store, a, "--yes").code == 4
    read = command("tenants", "list", *command.place)
    assert (read.code, f"was moved to the store {target}: use that one" in read.err) == (0, True)
    assert command("store", "copy", command.store, target, "--json").out == '{"copied": 0}\n'
    there = ["--cluster", command.cluster, "--store", target]
    assert command("tenants", "check", *there).out == "2 checked: all well\n"
    assert command("tenants", "remove", "--all", *there, "--yes", "--max", "2").code == 0


def test_more_than_a_few_typed_names_need_their_number(command: Command, names: list[str]) -> None:
    command.provision(*names[:6])
    for verb in ("remove", "suspend"):
        refused = command("tenants", verb, *names[:6], *command.place, "--yes")
        assert (refused.code, "--yes needs --max N here. 6 would be" in refused.err) == (2, True)
    terminal = command.terminal("tenants", "remove", *names[:6], *command.place, columns=300)
    assert f"Type 6 or {command.cluster} to go on" in terminal.expect("to go on: ")
    terminal.type("6\n")
    assert terminal.end()[0] == 0


def test_a_new_password_is_announced(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)
    assert command("users", "reset", command.cluster, a, "--yes", "--not-a-tenant").code == 0
    repaired = command("tenants", "repair", a, *command.place)
    assert repaired.out.startswith(f"{a}: repaired: password_refused (new credential: deliver it)\n")
    assert command("tenants", "suspend", a, *command.place, "--yes").code == 0
    assert f"{a}: resumed (new credential: deliver it)\n" in command("tenants", "resume", a, *command.place).out
    [kept] = command("tenants", "repair", a, *command.place, "--json").objects()
    assert (kept["action"], kept["credential_changed"]) == ("kept", False)
    assert command("users", "reset", command.cluster, a, "--yes", "--not-a-tenant").code == 0
    [changed] = command("tenants", "repair", a, *command.place, "--json").objects()
    assert (changed["action"], changed["credential_changed"]) == ("repaired", True)


def test_a_store_that_others_could_read_is_reported(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    Path(command.store).chmod(0o644)
    seen = command("tenants", "list", *command.place)
    assert "could read" in seen.err
    assert stat.S_IMODE(Path(command.store).stat().st_mode) == 0o600
    assert command(*advised(seen.err, "tenants rotate"), "--yes").out == "1 rotated\n"
    assert "could read" not in command("tenants", "list", *command.place).err


def test_a_positional_of_tenants_is_a_name(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    store = ["--store", command.store]
    assert names[0] in command("tenants", "show", names[0], *store).out
    refused = command("tenants", "rotate", command.cluster, *store)
    assert (refused.code, "which cluster? Give its name or id as --cluster" in refused.err) == (2, True)
    missing = command("tenants", "show", command.cluster, *store)
    assert (missing.code, f"{command.cluster}: not on record" in missing.err) == (1, True)
    before = len(command.sent())
    assert names[0] in command("tenants", "list", *store).out
    assert command("tenants", "capacity", *store).out.splitlines()[1].split()[1:3] == ["1", "-"]
    assert len(command.sent()) == before  # it asks for no cluster


def test_a_credential_is_delivered_as_programs_take_it(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)

    def shown(*options: str) -> str:
        done = command("tenants", "show", a, *command.place, *options, shows=True)
        assert done.code == 0, done.err
        return done.out

    plain, shell = shown("-o", "env").splitlines(), shown("-o", "sh").splitlines()
    assert [f"export {line}" for line in plain] == [line.replace("'", "") for line in shell]
    secret = shown("-o", "k8s", "--secret-name", "alpha-db", "--namespace", "prod")
    assert "metadata:\n  name: alpha-db\n  namespace: prod\n" in secret
    assert command("tenants", "show", a, *command.place, "-o", "k8s", "--namespace", "a: b").code == 2


def test_what_programs_print_is_shown_with_the_tenant(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    command.provision(a, b)
    script = "echo one; printf '\\033[31mred\\n'; echo two >&2; test $PGUSER != " + b
    done = command("tenants", "exec", "--all", *command.place, "--", "sh", "-c", script)
    assert done.code == 1
    assert [line for line in done.out.splitlines() if line.startswith(f"{a}: ")][:3] == [
        f"{a}: one",
        f"{a}: \\x1b[31mred",
        f"{a}: two",
    ]
    assert [f"{b}: {line}" in done.err for line in ("one", "\\x1b[31mred", "two", "exit code 1")] == [True] * 4


def test_a_suspension_that_is_going_on_is_called_that(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)
    command.leave(a, Verb.SUSPEND)
    [row] = command("tenants", "list", *command.place).out.splitlines()[1:]
    assert row.split()[:5] == [a, "owner", "suspending", row.split()[3], "suspend"]
    for line in (["show", a], ["exec", a], ["exec", a, "--json"]):
        refused = command("tenants", *line, *command.place, *(["--", "true"] if line[0] == "exec" else []))
        assert (refused.code, "is being suspended" in refused.out + refused.err) == (1, True)
    assert command("tenants", "suspend", a, *command.place, "--yes").out == "1 suspended\n"


@pytest.mark.parametrize(
    ("line", "completes"),
    [(["--help"], False), (["tenants", "list"], False), (["tenants", "show"], False), (["tenants", "show"], True)],
)
def test_what_needs_no_cluster_imports_no_client(
    command: Command, names: list[str], line: list[str], completes: bool
) -> None:
    """A TAB, a help and a list are felt: importing these takes longer than all the rest."""
    command.provision(names[0])
    slow = {"aiohttp", "psycopg", "yaml", "cryptography", *(["rich"] if completes else [])}  # rich prints tables
    place = ["--store", command.store] if "--help" not in line else []
    words = f"aiodbclient {' '.join([*line, *place])} t"
    completing = {"_AIODBCLIENT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    script = (
        "import sys\nfrom aiodbclient._cli import main\n"
        f"try: main()\nfinally: sys.stderr.write('imported: ' + ' '.join({slow} & set(sys.modules)) + '.')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *line, *place],
        env=command.environment | (completing if completes else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "imported: ."


def test_a_timeout_holds_for_a_locked_store_too(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    with closing(sqlite3.connect(command.store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        late = command("tenants", "list", *command.place, "--timeout", "0.5s")  # the store waits for 10 s, then fails
        assert (late.code, "no answer within --timeout 0.5s" in late.err) == (4, True)
    wrong = command("tenants", "list", *command.place, "--timeout", "soon")
    assert (wrong.code, "0.5s" in wrong.err) == (2, True)


def test_the_store_is_named_if_it_is_empty(command: Command) -> None:
    refused = command("tenants", "list", "--cluster", command.cluster, "--store", "")
    assert (refused.code, "--store is empty" in refused.err) == (2, True)


def test_text_of_the_width_of_the_terminal_leaves_no_blank_line(command: Command) -> None:
    terminal = command.terminal("tenants", "show", "x", "--cluster", command.cluster, "--store", "no.db", columns=60)
    _, text = terminal.end()
    assert "\n\r\n" not in text.replace("\r\r", "\r")
    assert all(len(line) <= 60 for line in text.splitlines())
    assert wrapped("a b", None) == "a b"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_is_printed(command: Command, shell: str) -> None:
    printed = command("--show-completion", shell)
    assert printed.code == 0
    mark = {"bash": "complete -o", "zsh": "#compdef aiodbclient", "fish": "complete --command aiodbclient"}[shell]
    assert mark in printed.out


def test_the_question_names_the_cluster_of_the_tenant(command: Command, second: str, names: list[str]) -> None:
    command.provision(names[0])
    asked = command("tenants", "remove", names[0], *command.place, "--cluster", second)
    assert f"Remove {names[0]} from {command.cluster}: " in asked.err
    assert (
        json.loads(command("tenants", "remove", names[0], *command.place, "--cluster", second, "--yes", "--json").out)[
            "action"
        ]
        == "deleted"
    )
