"""What the command says after a mishap is so: what is on record, what is left on the server, and what to do next."""

from __future__ import annotations

import os

import pytest

from .conftest import Command

_used = iter(range(10**6))


@pytest.fixture
def names() -> list[str]:
    """The test's own tenants on the shared server."""
    test = next(_used)
    return [f"tr-{os.environ.get('PYTEST_XDIST_WORKER', 'w')}-{test}-{n}" for n in range(40)]


SAID = {"the name is on record for": True, "nothing is on record for": False}


def on_record(command: Command) -> set[str]:
    return {each["name"] for each in command("store", "list", command.store, "--json").objects()}


def test_after_an_outage_only_what_is_on_record_is_called_that(command: Command, names: list[str]) -> None:
    """The server goes away at each statement of a creation: before anything is stored, and after."""
    said = dict[str, bool]()
    for nth, name in enumerate(names, start=1):
        fault = command.sandbox.faults.add("sql.statement", cut=True, name="doadmin", nth=nth, lasts=60.0)
        done = command("tenants", "provision", name, *command.place)
        command.sandbox.faults.remove(fault)
        said |= {name: is_there for text, is_there in SAID.items() if text in done.err}
        if done.code == 0:
            break
    there = on_record(command)
    assert said == {name: name in there for name in said}
    assert set(said.values()) == {True, False}
    assert "SELECT" not in "".join(command.printed)  # the statement is for --verbose


def test_what_is_said_of_one_name_after_an_outage_is_not_said_of_others(
    command: Command, second: str, names: list[str]
) -> None:
    """Each name is tried on both clusters, and one that is away is not asked again for a while."""
    command.provision(*names[:4])
    command.sandbox.faults.add("sql.statement", cut=True, name="doadmin", nth=30)
    command.sandbox.faults.add("sql.statement", cut=True, name="doadmin", nth=31, lasts=60.0)
    done = command("tenants", "provision", *names, *command.place, "--cluster", second, "--json")
    failed = {each["name"]: each["error"] for each in done.objects() if each["action"] == "failed"}
    said = {name: there for name, error in failed.items() for text, there in SAID.items() if text in error}
    there = on_record(command)
    assert said
    assert said == {name: name in there for name in said}
    assert [name for name, error in failed.items() if "nothing was changed on" in error and name in there] == []
