"""What a TAB offers: names of tenants and clusters, and the values of options."""

from __future__ import annotations

import re
import subprocess

import pytest

from .conftest import COMMAND, Command


def completing(command: Command, line: str, shell: str = "bash") -> dict[str, str]:
    """The environment in which the command completes a line."""
    return command.environment | {
        "_AIODBCLIENT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


def completed(command: Command, line: str, shell: str = "bash") -> list[str]:
    """The words that a TAB offers. It gives up after two seconds, so on a busy machine one presses it again."""
    for _ in range(20):
        done = subprocess.run([COMMAND], env=completing(command, line, shell), capture_output=True, text=True)
        assert done.stderr == ""
        if done.stdout.strip():
            break
    return done.stdout.split()


def test_tenants_are_completed(command: Command, names: list[str]) -> None:
    """Each name of the store is offered once, also as the second word, and nothing is sent."""
    a, b = names[:2]
    command.provision(a, b)
    command.environment |= {"AIODBCLIENT_STORE": command.store, "AIODBCLIENT_CLUSTER": command.cluster}
    before = len(command.sent())
    stem = a[:-1]
    assert completed(command, f"aiodbclient tenants show {stem}") == [a, b]
    assert completed(command, f"aiodbclient tenants exec {stem}") == [a, b]
    assert completed(command, f"aiodbclient tenants rotate {a} {stem}") == [b]
    assert completed(command, "aiodbclient users list --cluster ") == [command.cluster]
    assert completed(command, "aiodbclient tenants move --to ") == [command.cluster]
    assert completed(command, "aiodbclient tenants rot") == ["rotate"]
    command.environment["AIODBCLIENT_CLUSTER"] = ""
    assert completed(command, "aiodbclient users list --cluster ten") == [command.cluster]  # of the store
    assert len(command.sent()) == before


def test_values_of_options_are_completed(command: Command) -> None:
    """``-o``, ``--role`` and ``--if-exists`` offer what they take."""
    assert completed(command, "aiodbclient tenants show -o ") == ["table", "json", "env", "uri", "k8s"]
    assert completed(command, "aiodbclient tenants list -o j") == ["json"]
    assert completed(command, "aiodbclient tenants rotate --role ") == ["owner", "writer", "reader", "all"]
    assert completed(command, "aiodbclient tenants show --role r") == ["reader"]
    assert completed(command, "aiodbclient users provision --if-exists ") == ["keep", "reset", "error", "update"]


@pytest.mark.parametrize("line", ["aiodbclient tenants rot", "aiodbclient tenants rotate ", "aiodbclient tenants --"])
def test_tab_is_quick(command: Command, line: str) -> None:
    """A TAB imports neither pydantic, with which Typer checks values, nor a client of HTTP."""
    command.provision("t")
    environment = completing(command, line) | {"PYTHONPROFILEIMPORTTIME": "1", "AIODBCLIENT_STORE": command.store}
    done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"\| +typer$", done.stderr, re.MULTILINE)
    assert re.findall(r"\| +(pydantic|aiohttp|psycopg|rich)$", done.stderr, re.MULTILINE) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(command: Command, shell: str) -> None:
    """``--show-completion SHELL`` prints the script of that shell, which completes names."""
    printed = command("--show-completion", shell)
    assert printed.code == 0
    mark = {"bash": "complete -o", "zsh": "#compdef aiodbclient", "fish": "complete --command aiodbclient"}[shell]
    assert mark in printed.out
    assert "rotate" in " ".join(completed(command, "aiodbclient tenants rot", shell))


def test_completion_offers_safe_names(command: Command) -> None:
    """A name that a shell would run is not put on the command line."""
    command.environment["AIODBCLIENT_CLUSTER"] = "fine,$(reboot),a`b`"
    assert completed(command, "aiodbclient users list --cluster ") == ["fine"]
