"""The exit codes, which scripts rely on."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from aiodbclient import errors
from aiodbclient._cli.plumbing.failures import EXIT_CODES, Exit, code_of, message_of
from aiodbclient.tenants import OperationKind
from aiodbclient.tenants.errors import StoreError

from .conftest import COMMAND, PATIENCE, Command

DOWN: dict[str, Any] = {"status": 503, "headers": {"retry-after": "0"}}

# What is wrong, the commands on two tenants of which the first one works, and their exit code.
TABLE: list[tuple[str, list[str], Exit]] = [
    ("nothing", ["check A B", "list", "provision A B"], Exit.DONE),
    ("a name is not on record", ["check A none", "show none", "rotate none"], Exit.SOME_FAILED),
    ("no consent, or no such cluster", ["remove A", "suspend A B", "check A --cluster nowhere"], Exit.BAD_USAGE),
    ("the API is down", ["check A B", "rotate A B"], Exit.UNUSABLE),
    ("the token is wrong", ["check A B", "repair A"], Exit.UNUSABLE),
    ("the store is missing", ["check A", "list"], Exit.UNUSABLE),
    ("B's rotation is not finished", ["check A B", "check B"], Exit.DIFFERENT),
    ("B's rotation is not finished", ["check B none"], Exit.DIFFERENT),
]


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(("wrong", "lines", "code"), TABLE)
def test_table(command: Command, names: list[str], wrong: str, lines: list[str], code: Exit) -> None:
    a, b = names[:2]
    command.provision(a, b)
    place = [*command.place]
    match wrong:
        case "the API is down":
            command.sandbox.faults.add(**DOWN)
        case "the token is wrong":
            command.environment["DIGITALOCEAN_TOKEN"] = "hunter2-wrong"
        case "the store is missing":
            place[-1] = str(command.folder / "none.db")
        case "B's rotation is not finished":
            command.leave(b, OperationKind.ROTATE)
    for line in lines:
        words = [{"A": a, "B": b}.get(word, word) for word in line.split()]
        done = command("tenants", *words, *(place[2:] if "--cluster" in words else place))
        assert done.code == code, (line, done)


def test_rate_limit_that_lasts_is_the_apis_failure() -> None:
    """As when a single call has waited as long as it may."""
    limited = errors.RateLimitError("429", status=429)
    assert (code_of(limited), code_of(errors.MaxWaitError("no slot"))) == (Exit.UNUSABLE, Exit.UNUSABLE)
    assert code_of(errors.NotFoundError("404", status=404)) == Exit.SOME_FAILED


def test_only_a_store_with_another_key_is_about_keys() -> None:
    """To adopt all tenants into a new store is no advice where the disk is full."""
    full = StoreError("the disk is full", advice="run.outcomes has the outcomes so far")
    assert message_of(full) == "the disk is full"
    assert "its key is lost" in message_of(StoreError("encrypted", advice="open the store with its key="))


def test_closed_standard_input_is_no_terminal(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    for line, said in (
        (f"tenants remove {names[0]}", "There is no terminal to ask on: add --yes"),
        ("tenants remove --from -", "the standard input is closed"),
    ):
        ended = subprocess.run(
            ["sh", "-c", f"{COMMAND} {line} --cluster {command.cluster} --store {command.store} <&-"],
            env=command.environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert (ended.returncode, ended.stdout, said in ended.stderr) == (2, "", True), ended.stderr
    assert command("tenants", "check", names[0], *command.place).code == 0


def test_closed_outputs(command: Command, names: list[str]) -> None:
    """Without a standard output nothing is done. Without a standard error, no note is in the output."""
    command.provision(names[0])
    for closed, found in (
        (">&-", (2, "", "aiodbclient: the standard output is closed\n")),
        ("2>&-", (0, "", "")),
    ):
        line = f"{COMMAND} tenants list --store {command.store} --cluster {command.cluster} --prefix none_ {closed}"
        ended = subprocess.run(
            ["sh", "-c", line], env=command.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == found


def test_every_code_is_documented() -> None:
    for code in {*Exit} - {Exit.NOT_RUN, Exit.NOT_FOUND}:  # those of `exec`
        assert f" {code.value} " in EXIT_CODES, code
