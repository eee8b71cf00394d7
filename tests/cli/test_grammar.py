"""The command line: groups, variables, help, and errors for bad usage."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import COMMAND, Command

pytest.importorskip("typer", reason="needs the cli extra")

import typer

from aiodbclient import _cli as cli
from aiodbclient._cli.app import app

GROUPS = ("clusters", "users", "dbs", "tenants")


@pytest.fixture
def sandbox(sandbox_with_tls: Sandbox) -> Sandbox:
    return sandbox_with_tls


def commands() -> dict[str, Any]:
    """Each command by its full name, such as ``users list``."""
    found: dict[str, Any] = {}
    everything: Any = typer.main.get_command(app)
    for name, command in everything.commands.items():
        subcommands = getattr(command, "commands", {"": command})
        found |= {f"{name} {each}".strip(): subcommand for each, subcommand in subcommands.items()}
    return found


def examples() -> list[str]:
    """The examples of all help pages, in an order in which they work."""
    found = [
        line.removeprefix("Example: ").strip()
        for name, command in commands().items()
        if name not in ("sandbox", "tenants move")  # it needs two clusters
        for line in command.help.splitlines()
        if line.strip().startswith("Example: ")
    ]
    order = [
        "clusters",
        "dbs create",
        "dbs",
        "users create",
        "users",
        "tenants plan",
        "tenants provision",
        "store copy",
    ]
    last = [
        "tenants dump",
        "tenants load",
        "store forget",
        "dbs delete",
        "users delete",
        "tenants rotate",
        "tenants retire",
    ]
    last += ["tenants suspend", "tenants resume", "tenants remove", "store copy copy.db"]  # this replaces tenants.db

    def place(example: str) -> tuple[int, int]:
        late = [at for at, verb in enumerate(last) if example.startswith(f"aiodbclient {verb}")]
        early = [at for at, verb in enumerate(order) if example.startswith(f"aiodbclient {verb}")]
        return (late[0] + 1 if late else 0, early[0] if early else len(order))

    return sorted(found, key=place)


def test_every_group_has_a_list_and_every_command_an_example() -> None:
    for group in GROUPS:
        assert f"{group} list" in commands()
    for name, command in commands().items():
        assert f"Example: aiodbclient {name}" in command.help, name


def test_the_examples_work(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(command.folder)
    Path("names.csv").write_text("name\nalpha\nbeta\ngamma\n")
    Path("users.yaml").write_text("users:\n- name: reporting\n  settings: {pg_allow_replication: true}\n")
    old, new = (command("store", "keygen", shows=True).out.strip() for _ in range(2))
    command.environment["AIODBCLIENT_STORE_KEY"] = old
    as_python = {"psql": sys.executable, "SELECT 1": "pass"}  # psql may be missing
    for line in examples():
        if "store rekey" in line:
            command.environment["AIODBCLIENT_STORE_KEY"] = f"{new},{old}"
        words = [as_python.get(word, word) for word in shlex.split(line)[1:]]
        done = command(*words, shows="--output" in line or "keygen" in line)
        assert done.code == (5 if " plan " in line else 0), (line, done.err)
    assert len(examples()) > 12


@pytest.mark.parametrize("width", [50, 80, 120])
def test_help_is_plain_and_fits(command: Command, width: int) -> None:
    command.environment["COLUMNS"] = str(width)
    for name in ["", *GROUPS, *commands()]:
        if name == "sandbox":
            continue
        for flag in ("-h", "--help") if width == 80 else ("--help",):
            done = command(*name.split(), flag)
            assert (done.code, done.err) == (0, "")
        assert done.out.startswith("Usage: aiodbclient")
        assert re.search(r"<(bool|str|list|int|path)|\{[A-Z]|[│╭╰]", done.out) is None
        to_copy = [line for line in done.out.splitlines() if line.startswith("  aiodbclient ")]
        assert name not in commands() or len(to_copy) == commands()[name].help.count("Example: ")
        assert all(len(line) <= width for line in done.out.splitlines()), (name, done.out)
        copied = re.findall(r"^  (aiodbclient (?:.*\\\n)*.*)$", done.out, re.MULTILINE)
        assert not to_copy or [shlex.split(each.replace("\\\n", "")) for each in copied] == [
            shlex.split(each) for each in re.findall("Example: (.*)", commands()[name].help)
        ]


def test_the_options_of_a_command_come_before_those_of_all(command: Command) -> None:
    command.environment["COLUMNS"] = "80"
    for verb, option in (("rotate", "--older-than"), ("remove", "--keep-database"), ("exec", "--most-failed")):
        own, title, common = command("tenants", verb, "--help").out.partition("\nCommon options:\n")
        assert (option in own, option in common, bool(title)) == (True, False, True)
        assert len(common.splitlines()) < len(own.splitlines())
        assert common.lstrip().startswith("--cluster CLUSTER ")
        assert (
            common.index("--store")
            < common.index("--output")
            < common.index("--budget")
            < common.index("Put a password")
        )


def test_a_group_alone_explains_itself_and_clusters_lists(command: Command) -> None:
    for arguments in ([], ["users"], ["dbs"], ["tenants"]):
        done = command(*arguments)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("Usage: ")
    assert command("clusters").out == command("clusters", "list").out
    assert command("clusters", "-o", "json").out == command("clusters", "list", "-o", "json").out


def test_get_and_show_and_delete_and_remove_are_the_same(command: Command) -> None:
    place = ["--cluster", command.cluster, "--store", command.store]
    assert command("users", "create", "twice", "--cluster", command.cluster, "--show").code == 0
    assert (
        command("users", "show", "twice", "--cluster", command.cluster).out == command("users", "get", "twice", "--cluster", command.cluster).out
    )
    assert command("users", "remove", "twice", "--cluster", command.cluster, "--yes").code == 0
    assert command("clusters", "show", command.cluster).code == 0
    assert command("tenants", "provision", "twice", *place).code == 0
    assert command("tenants", "get", "twice", *place).out == command("tenants", "show", "twice", *place).out
    assert command("tenants", "delete", "twice", *place, "--yes").out == "twice: deleted\n1 deleted\n"


def test_a_synonym_of_a_command_is_refused_with_the_right_word(command: Command) -> None:
    for line, word in (
        ("tenants create a", "provision"),
        ("users add a", "create"),
        ("dbs ls", "list"),
        ("users rm a", "delete"),
        ("tenant list", "tenants"),
        ("provision a", "tenants provision"),
    ):
        done = command(*line.split())
        assert (done.code, f"Did you mean {word!r}? See `aiodbclient" in done.err) == (2, True), done.err
    assert "Did you mean 'users delete' or 'dbs delete'?" in command("delete", "a").err


def test_of_a_mistyped_option_the_one_that_was_meant_is_named(command: Command) -> None:
    for line, hint in (
        ("tenants show a --shwo", ". Did you mean --show?"),
        ("tenants list --clutser a", ". Did you mean --cluster?"),
        ("tenants rotate a --max 3", "."),
    ):
        verb, option = line.split()[1], line[line.index("--") :].split()[0]
        done = command(*line.split())
        assert done.code == 2
        assert done.err == f"aiodbclient: no such option: {option}{hint} See `aiodbclient tenants {verb} --help`\n"


def test_variables_stand_for_the_cluster_and_the_store(command: Command) -> None:
    command.environment |= {"AIODBCLIENT_CLUSTER": command.cluster, "AIODBCLIENT_STORE": command.store}

    assert "doadmin" in command("users", "list").out
    assert "doadmin" in command("users", "get", "doadmin").out
    assert "doadmin" in command("users", "get", "doadmin", "--cluster", command.cluster).out
    assert "defaultdb" in command("dbs", "list").out
    assert command("clusters", "get").code == 0
    assert command("tenants", "provision", "short").code == 0
    assert "short" in command("tenants", "list").out
    assert command("tenants", "remove", "short", "--yes").code == 0
    before = len(command.sent())
    nobody = command("users", "delete", "--yes")
    assert (nobody.code, nobody.err) == (2, "aiodbclient: NAME is missing; nothing was sent\n")
    assert len(command.sent()) == before


def test_errors_are_objects_for_programs(command: Command) -> None:
    place = ["--cluster", command.cluster, "--store", command.store]
    for arguments, code, error in (
        (["users", "get", "nobody", "--cluster", command.cluster, "-o", "json"], 1, "no user nobody on tenants-prod"),
        (["users", "list", "nowhere", "-o", "json"], 2, "no cluster is called 'nowhere'"),
        (["users", "list", "--jsn", "--cluster", command.cluster, "-o", "json"], 2, "no such option: --jsn"),
        (["users", "delete", "a", "--cluster", command.cluster, "-o", "json"], 2, "--yes"),
        (["tenants", "show", *place, "-o", "json"], 4, "does not exist: check --store"),
        (["tenants", "show", *place, "-o", "json"], 4, "does not exist: check --store"),
    ):
        done = command(*arguments)
        report = json.loads(done.err)
        assert (done.code, done.out, report["exit_code"]) == (code, "", code)
        assert error in report["error"]


def test_a_typo_in_the_store_is_an_error_and_makes_no_file(command: Command) -> None:
    place = ["--cluster", command.cluster, "--store", command.store]
    for arguments in (["list"], ["show"], ["show", "a"], ["rotate", "a"], ["revoke-previous", "a"], ["remove", "a", "--yes"]):
        done = command("tenants", *arguments, *place)
        assert (done.code, done.out) == (4, "")
        assert "check --store" in done.err
    planned = command("tenants", "plan", "a", *place)
    assert (planned.code, planned.out.splitlines()[0]) == (5, "+ a")
    assert not Path(command.store).exists()


def test_a_store_of_an_unknown_scheme_is_bad_usage(command: Command) -> None:
    done = command("tenants", "list", "--cluster", command.cluster, "--store", "vault://secret/tenants")

    assert (done.code, done.out) == (2, "")
    assert "entry points of the group aiodbclient.stores" in done.err


def test_without_a_token_the_variable_is_named(command: Command) -> None:
    del command.environment["DIGITALOCEAN_TOKEN"]
    done = command("clusters")
    assert (done.code, done.err) == (
        2,
        "aiodbclient: there is no API token: set DIGITALOCEAN_TOKEN (or DIGITALOCEAN_ACCESS_TOKEN). Nothing was sent\n",
    )


def test_a_stored_credential_is_shown_without_a_token(command: Command) -> None:
    [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == command.cluster]
    place = ["--cluster", cluster_id, "--store", command.store]
    assert command("tenants", "provision", "offline", *place).code == 0
    del command.environment["DIGITALOCEAN_TOKEN"]

    assert "offline" in command("tenants", "show", "offline", *place).out
    assert "offline" in command("tenants", "list", *place).out


def test_more_removals_than_expected_are_refused(command: Command) -> None:
    place = ["--cluster", command.cluster, "--store", command.store]
    names = ["many-a", "many-b", "many-c"]
    assert command("tenants", "provision", *names, *place).code == 0
    for arguments in (["remove", *names], ["provision", "many-a", "--prune"]):
        done = command("tenants", *arguments, *place, "--max", "1", "--yes")
        assert (done.code, done.out) == (2, "")
        assert "would be removed, which is more than --max 1" in done.err
    assert command("tenants", "provision", "many-a", "--prune", *place, "--max", "2", "--yes").out.endswith(
        "\n2 deleted\n"
    )
    assert command("tenants", "remove", "many-a", *place, "--yes").code == 0


@pytest.mark.thorough
def test_a_full_disk_is_4_also_without_a_buffer(command: Command) -> None:
    place = ["--cluster", command.cluster, "--store", command.store]
    assert command("tenants", "provision", "full", *place).code == 0
    for unbuffered in ("1", ""):
        command.environment["PYTHONUNBUFFERED"] = unbuffered
        for arguments in (
            ["--help"],
            ["--version"],
            ["users"],
            ["users", "list", "--help"],
            ["clusters", "-o", "json"],
            ["tenants", "show", *place, "--show"],
            ["users", "create", f"full-{unbuffered}", "--cluster", command.cluster, "--show"],
        ):
            with Path("/dev/full").open("w") as full:
                done = command.end(command.start(*arguments, stdout=full))
            assert done.code == 4, (arguments, done.err)
            assert "the standard output cannot be written: No space left on device" in done.err
            assert ("Make another one: aiodbclient users reset" in done.err) == ("create" in arguments)
    for name in ("full-1", "full-"):
        assert command("users", "delete", name, "--cluster", command.cluster, "--yes").code == 0


def test_help_for_a_reader_that_has_gone_is_3(command: Command) -> None:
    for unbuffered in ("1", ""):
        command.environment["PYTHONUNBUFFERED"] = unbuffered
        for arguments in (["--help"], ["users"], ["tenants", "plan", "--help"]):
            reader, writer = os.pipe()
            os.close(reader)
            done = command.end(command.start(*arguments, stdout=writer))
            os.close(writer)
            assert (done.code, done.err) == (3, "")


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def __init__(self, text: str | None) -> None:
            self.text = text

        def read_text(self, _: str) -> str | None:
            return self.text

    for text, advice in (
        (None, "'aiodbclient[cli]'"),
        ('{"url": "file:///src/it", "dir_info": {"editable": true}}', "'aiodbclient[cli] @ file:///src/it'"),
        (
            '{"url": "https://host/it.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "'aiodbclient[cli] @ git+https://host/it.git@abc'",
        ),
    ):
        monkeypatch.setattr("importlib.metadata.distribution", lambda _, text=text: Installed(text))
        assert cli._extra() == advice
    assert COMMAND


@pytest.mark.parametrize("verb", ["users delete", "users reset", "dbs delete"])
def test_what_is_deleted_unasked_is_named_with_its_cluster(command: Command, verb: str) -> None:
    """In ``dbs delete one $DB --yes``, with DB empty, ``one`` would be the database of the environment's cluster."""
    command.environment["AIODBCLIENT_CLUSTER"] = command.cluster
    kind, _ = verb.split()
    assert command(kind, "create", "one-of-a-script", "--show" if kind == "users" else "-o", "json").code == 0
    before, options = len(command.sandbox.requests), [*(["--show"] if "reset" in verb else [])]

    short = command(*verb.split(), "one-of-a-script", *options, "--yes")

    assert (short.code, short.out, len(command.sandbox.requests)) == (2, "", before)
    assert "--yes needs CLUSTER and NAME here, and only 'one-of-a-script' is given" in short.err
    asks = command(*verb.split(), "one-of-a-script", *options)
    for done in (short, asks):  # both name a command that works
        [line] = re.findall(r": (aiodbclient .*?)\. Nothing", done.err)
        words = shlex.split(line)[1:]
        assert words[-2:] == ["--cluster", command.cluster]
        assert "--yes" in words
        assert command(*words).code == 0 or done is asks, words  # which is gone by then
    if "reset" in verb:
        assert command(*verb.split(), command.cluster, "one-of-a-script", *options, "--yes").code == 0
        assert command("users", "delete", "one-of-a-script", "--cluster", command.cluster, "--yes").code == 0
