"""What the command says after a mishap is so: what is on record, what is left on the server, and what to do next."""

from __future__ import annotations

import os
import re
import shlex

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from aiodbclient.sandbox._postgres import PostgresBackend
from aiodbclient.tenants._record import Verb

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
        fault = command.proxy.add(cut=True, login="doadmin", nth=nth, lasts=60.0)
        done = command("tenants", "provision", name, *command.place)
        command.proxy.rules.remove(fault)
        for text, is_there in SAID.items():
            if text in done.err:
                said[name] = is_there
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
    command.proxy.add(cut=True, login="doadmin", nth=30, times=1)
    command.proxy.add(cut=True, login="doadmin", nth=31, lasts=60.0)
    done = command("tenants", "provision", *names, *command.place, "--cluster", second, "--json")
    failed = {each["name"]: each["error"] for each in done.objects() if each["action"] == "failed"}
    said = {name: there for name, error in failed.items() for text, there in SAID.items() if text in error}
    there = on_record(command)
    assert said
    assert said == {name: name in there for name in said}
    assert [name for name, error in failed.items() if "nothing was changed on" in error and name in there] == []


def test_the_record_of_a_half_removed_tenant_is_not_forgotten_silently(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]
    command.provision(a, b, c)
    fault = command.proxy.add(cut=True, login="doadmin", nth=12, lasts=60.0)
    assert command("tenants", "remove", a, *command.place, "--yes").code == 1
    command.proxy.rules.remove(fault)
    command.leave(b, Verb.ROTATE)

    asked = command.terminal("store", "forget", command.store, a, columns=400)
    assert f"{a} is half removed: its database or logins may still be on tenants-prod" in asked.expect("[y/N]")
    [finish] = re.findall(r"To finish instead: aiodbclient (.*?)\. Remove the record", asked.seen)
    asked.type("n\n")
    assert asked.end()[0] == 3
    assert command(*shlex.split(finish), "--yes").out == f"{a}: deleted\n1 deleted\n"

    # PostgreSQL leaves such a database when it dies in a DROP DATABASE.
    command.provision(a)
    command.leave(a, Verb.REMOVE)
    [cluster] = command.sandbox._clusters.values()
    assert isinstance(cluster.backend, PostgresBackend)
    with psycopg.connect(cluster.backend._dsn, autocommit=True) as superuser:
        superuser.execute(
            SQL(
                "ALTER DATABASE {} OWNER TO doadmin; UPDATE pg_database SET datconnlimit = -2 WHERE datname = {}"
            ).format(Identifier(a), a)
        )
    assert command("store", "forget", command.store, a, "--yes").code == 0
    assert command("tenants", "provision", a, "--adopt", "--yes", *command.place).out == "1 adopted\n"
    assert command("tenants", "check", a, *command.place).out == "1 checked: all well\n"

    for name, note in ((b, f"{b} is waiting for `tenants rotate` to finish it: "), (c, "")):
        done = command("store", "forget", command.store, name, "--yes")
        assert (done.code, note in done.err, bool(done.err)) == (0, True, bool(note))
        assert command("tenants", "provision", name, "--adopt", "--yes", *command.place).out == "1 adopted\n"


def test_a_typo_among_several_names_changes_nothing(command: Command, names: list[str]) -> None:
    """Half of a command that was mistyped is the worse half: what is done is not seen among what is not."""
    a, b, typo = names[0], names[1], names[9]
    command.provision(a, b)
    before = command("tenants", "show", *command.place, "--show", "--json").objects()
    file = command.folder / "names.csv"
    file.write_text(f"name\n{a}\n{typo}\n")
    failed = command.folder / "failed.csv"
    for verb, *options in (
        ["rotate"],
        ["rotate", "--role", "all"],
        ["revoke-previous", "--yes"],
        ["suspend", "--yes"],
        ["resume"],
        ["repair"],
        ["remove", "--yes"],
        ["exec", "--failed", str(failed)],
    ):
        for which in ([a, b, typo], ["--from", str(file)] if verb not in ("suspend", "remove") else [typo, a]):
            program = ["--", "touch", str(command.folder / "ran")] if verb == "exec" else []
            done = command("tenants", verb, *which, *options, *command.place, *program)
            assert done.code == 1, (verb, done.out, done.err)
            assert f"{typo}: not on record" in done.err
            assert "nothing was done for the other names either\n" in done.err
            assert "1 failed\n" in done.out + done.err
            [object] = command("tenants", verb, *which, *options, "--json", *command.place, *program).objects()
            assert (object["name"], object["action"]) == (typo, "failed")
    assert command("tenants", "show", *command.place, "--show", "--json").objects() == before
    assert not (command.folder / "ran").exists()
    assert failed.read_text().split() == ["name", a, typo]

    # What only looks says what there is.
    assert a in command("tenants", "show", a, typo, *command.place).out
    assert command("tenants", "check", a, typo, *command.place).out == "1 checked, 1 failed\n"
