"""What the command says after a mishap is so: what is on record, what is left on the server, and what to do next."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

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
    return {each["name"] for each in command("store", "list", command.store, "-o", "json").objects()}


def test_after_an_outage_only_what_is_on_record_is_called_that(command: Command, names: list[str]) -> None:
    """The server goes away at each statement of a creation: before anything is stored, and after."""
    said = dict[str, bool]()
    for nth, name in enumerate(names, start=1):
        fault = command.sandbox.faults.add("sql.statement", cut=True, name="doadmin", nth=nth, lasts=60.0)
        done = command("tenants", "provision", name, *command.place)
        command.sandbox.faults.remove(fault)
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
    command.sandbox.faults.add("sql.statement", cut=True, name="doadmin", nth=30)
    command.sandbox.faults.add("sql.statement", cut=True, name="doadmin", nth=31, lasts=60.0)
    done = command("tenants", "provision", *names, *command.place, "--cluster", second, "-o", "json")
    failed = {each["name"]: each["error"] for each in done.objects() if each["action"] == "failed"}
    said = {name: there for name, error in failed.items() for text, there in SAID.items() if text in error}
    there = on_record(command)
    assert said
    assert said == {name: name in there for name in said}
    assert [name for name, error in failed.items() if "nothing was changed on" in error and name in there] == []


def test_the_record_of_a_half_removed_tenant_is_not_forgotten_silently(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]
    command.provision(a, b, c)
    fault = command.sandbox.faults.add("sql.statement", cut=True, name="doadmin", nth=12, lasts=60.0)
    assert command("tenants", "remove", a, *command.place, "--yes").code == 1
    command.sandbox.faults.remove(fault)
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


def test_the_store_that_a_backup_replaces_takes_no_change(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)
    backup, restored = (str(command.folder / f"{each}.db") for each in ("backup", "restored"))
    assert command("store", "copy", command.store, backup, "--backup").code == 0

    done = command("store", "copy", backup, restored, "--restore")
    assert done.code == 0
    assert f"the store {command.store} is still there. It takes no change any more\n" in done.err
    refused = command("tenants", "rotate", a, *command.place)
    assert (refused.code, refused.out) == (4, "")
    assert f"{command.store} was moved to the store {restored}: use that one. Nothing was changed" in refused.err
    there = ["--cluster", command.cluster, "--store", restored]
    assert command("tenants", "rotate", a, *there).out == "1 rotated\n"

    Path(command.store).write_text("damaged")
    again = command("store", "copy", backup, str(command.folder / "third.db"), "--restore")
    assert again.code == 0
    assert f"the store {command.store} is still there. Stop all processes that use it, " in again.err
    Path(command.store).unlink()
    again = command("store", "copy", backup, str(command.folder / "fourth.db"), "--restore")
    assert (again.code, f"is {command.store}, and not there: stop all processes" in again.err) == (0, True)


def test_a_typo_among_several_names_changes_nothing(command: Command, names: list[str]) -> None:
    """Half of a command that was mistyped is the worse half: what is done is not seen among what is not."""
    a, b, typo = names[0], names[1], names[9]
    command.provision(a, b)
    before = command("tenants", "show", *command.place, "--show", "-o", "json").objects()
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
        ["dump", "--folder", str(command.folder)],
        ["exec", "--failed", str(failed)],
    ):
        for which in ([a, b, typo], ["--from", str(file)] if verb not in ("suspend", "remove") else [typo, a]):
            program = ["--", "touch", str(command.folder / "ran")] if verb == "exec" else []
            done = command("tenants", verb, *which, *options, *command.place, *program)
            assert done.code == 1, (verb, done.out, done.err)
            assert f"{typo}: not on record" in done.err
            assert "nothing was done for the other names either\n" in done.err
            assert "1 failed\n" in done.out + done.err
            [object] = command("tenants", verb, *which, *options, "-o", "json", *command.place, *program).objects()
            assert (object["name"], object["action"]) == (typo, "failed")
    assert command("tenants", "show", *command.place, "--show", "-o", "json").objects() == before
    assert not (command.folder / "ran").exists()
    assert failed.read_text().split() == ["name", a, typo]

    # What only looks says what there is.
    assert a in command("tenants", "show", a, typo, *command.place).out
    assert command("tenants", "check", a, typo, *command.place).out == "1 checked, 1 failed\n"


def test_a_suspended_tenant_whose_database_is_lost_gets_an_empty_one(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    command.provision(a, b)
    assert command("tenants", "provision", a, "--role", "reader", *command.place).code == 0
    assert command("tenants", "suspend", a, b, "--yes", *command.place).code == 0
    for name in (a, b):
        assert command("dbs", "delete", name, "--cluster", command.cluster, "--yes").code == 0
    [first] = command("tenants", "check", a, *command.place).out.splitlines()[:1]
    assert first == f"{a}: database_missing"
    failed = command("tenants", "resume", a, *command.place)
    assert (failed.code, f"database {a!r} does not exist, and what was in it is lost" in failed.err) == (1, True)
    [advice] = re.findall(r"make an empty one: aiodbclient (.*)\n", failed.err)

    done = command(*shlex.split(advice))
    assert done.out == f"{a}: resumed: database_missing (new credential: deliver it)\n1 resumed\n"
    assert command("tenants", "check", a, *command.place, "--role", "all").out == "2 checked: all well\n"
    program = [sys.executable, "-c", "import psycopg; psycopg.connect('').execute('CREATE TABLE t ()')"]
    assert command("tenants", "exec", a, "-o", "json", *command.place, "--", *program).code == 0

    kept = command("tenants", "repair", b, *command.place)
    assert (kept.code, "what was in it is lost" in kept.err) == (1, True)
    asleep = command("tenants", "repair", b, "--recreate", *command.place)
    assert asleep.out == f"{b}: suspended: database_missing\n1 suspended\n"
    assert command("tenants", "check", b, *command.place).out == "1 checked: all well, 1 suspended\n"
    assert command("tenants", "resume", b, *command.place).code == 0
