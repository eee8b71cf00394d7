"""Tenants of several clusters, and tenants that are suspended, from the command line."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import Command


@pytest.fixture(scope="module")
def fleet() -> Iterator[Sandbox]:
    with Sandbox(windows=[], token="t0ken-secret") as fleet:
        for name in ("east", "west"):
            asyncio.run(fleet.add_cluster("pg", name, backend="postgres"))
        yield fleet


@pytest.fixture
def many(command: Command, fleet: Sandbox) -> Command:
    """The command, with two clusters in its environment, and a store of its own."""
    command.sandbox = fleet
    command.before = len(fleet.requests)
    command.environment |= {
        "DIGITALOCEAN_API_URL": fleet.url,
        "AIODBCLIENT_CLUSTER": "east,west",
        "AIODBCLIENT_STORE": command.store,
    }
    return command


def on(command: Command, *options: str) -> dict[str, str]:
    """The cluster of each tenant."""
    listed = command("tenants", "list", *options, "--json").objects()
    return {each["name"]: each["cluster_name"] for each in listed}


def test_a_cluster_that_was_made_again_is_not_found_well(many: Command) -> None:
    assert many("tenants", "provision", "a", "b", "--cluster", "east").code == 0
    assert many("tenants", "provision", "a", "--role", "reader", "--cluster", "east").code == 0

    for arguments in (["check"], ["check", "--role", "all"], ["exec", "--all", "--", "true"], ["rotate", "--all"]):
        done = many("tenants", *arguments[:1], "--cluster", "west", *arguments[1:])
        assert (done.code, done.out) == (2, ""), done
        assert "has no tenants of west: its 3 records belong to other clusters: east (3). To see them: " in done.err
    listed = many("tenants", "list", "--cluster", "west")
    assert (listed.code, "belong to other clusters: east (3)" in listed.err) == (0, True)
    [see] = re.findall(r": (aiodbclient .*)", listed.err)
    assert len(many(*shlex.split(see)[1:], "--json").objects()) == 3


def test_a_name_that_is_in_use_is_taken_over_on_its_cluster(many: Command) -> None:
    assert many("dbs", "create", "taken", "--cluster", "west").code == 0
    refused = many("tenants", "provision", "taken", "free")
    assert (refused.code, refused.out) == (1, "1 created, 1 failed\n")
    assert f"taken: not on record in the store {many.store}, and on the cluster west. If another" in refused.err
    [adopt] = re.findall(r"take it over: aiodbclient (.*)\n", refused.err)
    assert adopt == "tenants provision taken --adopt --cluster west"
    assert many(*shlex.split(adopt), "--yes").out == "1 adopted\n"
    assert on(many)["taken"] == "west"


def test_several_clusters_are_refused_where_one_is_meant(many: Command) -> None:
    for arguments in (["users", "list"], ["doctor"], ["dbs", "create", "x"]):
        refused = many(*arguments)
        assert (refused.code, "this command is for one cluster" in refused.err) == (2, True)
    assert many("users", "list", "west").code == 0
    twice = many("tenants", "provision", "a", "--cluster", "east", "--cluster", "east")
    assert (twice.code, "the same cluster twice" in twice.err) == (2, True)
    admin = many("tenants", "provision", "a", "--admin", "x:hunter2")
    assert (admin.code, "--admin is for one cluster" in admin.err) == (2, True)


def test_doctor_leaves_tenants_of_other_clusters_alone(many: Command) -> None:
    assert many("tenants", "provision", "a", "b").code == 0

    done = many("doctor", "east")

    assert done.code == 0, done.out
    assert "2 records, 1 of them of other clusters" in done.out


def login(command: Command, name: str) -> str:
    """A URI of the tenant, which a program has."""
    return command("tenants", "show", name, "-o", "uri", shows=True).out.strip()


def enters(uri: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(uri):
        return True
    return False


def test_a_suspended_tenant_comes_back_or_is_removed(many: Command) -> None:
    assert many("tenants", "provision", "a", "b", "c").code == 0
    old = login(many, "a")

    assert many("tenants", "suspend", "a", "b", "--yes").out == "2 suspended\n"

    assert not enters(old)
    for arguments in (["show", "a"], ["exec", "a", "--", "true"]):
        refused = many("tenants", *arguments)
        assert (refused.code, "a: it is suspended. To give it its login back: aiodbclient" in refused.err) == (1, True)
    each = many("tenants", "exec", "--all", "--", "true")
    assert (each.code, each.out, "1 done (a, b: suspended, left out)" in each.err) == (0, "", True)
    objects = many("tenants", "exec", "--all", "--json", "--", "true")
    assert ([each["name"] for each in objects.objects()], "a, b" in objects.err) == (["c"], True)
    named = many("tenants", "exec", "a", "c", "--", "true")
    assert (named.code, "a: the tenant 'a' is suspended since" in named.err) == (1, True)
    states = [line.split()[3:5] for line in many("tenants", "list").out.splitlines()[1:]]
    assert [state[0] for state in states] == ["suspended", "suspended", "ready"]
    assert states[0][1].endswith("s")
    listed = many("tenants", "list", "--json").objects()
    assert [each["state"] for each in listed] == ["suspended", "suspended", "ready"]
    assert "+00:00" in listed[0]["suspended"]
    assert many("tenants", "check").out == "3 checked: all well, 2 suspended\n"
    early = many("tenants", "remove", "--all", "--older-than", "30d", "--yes", "--max", "0")
    assert (early.code, early.out) == (0, "nothing to do\n")
    assert many("tenants", "remove", "a", "c", "--older-than", "30d", "--yes").out == "2 kept\n"

    resumed = many("tenants", "resume", "--all", "--yes", "--json")
    assert {each["name"]: each["action"] for each in resumed.objects()} == {"a": "resumed", "b": "resumed"}
    assert enters(login(many, "a"))
    assert not enters(old)

    assert many("tenants", "suspend", "b", "--yes").code == 0
    removed = many("tenants", "remove", "--all", "--older-than", "0s", "--yes", "--max", "1")
    assert removed.out == "b: deleted\n1 deleted\n"


def test_all_tenants_are_suspended_by_their_number_alone(many: Command) -> None:
    assert many("tenants", "provision", "a", "b").code == 0
    unasked = many("tenants", "suspend", "--all", "--yes")
    assert (unasked.code, "--yes needs --max N here" in unasked.err) == (2, True)
    fewer = many("tenants", "suspend", "--all", "--yes", "--max", "1")
    assert (fewer.code, "2 would be suspended, which is more than --max 1" in fewer.err) == (2, True)

    for answer, code in (("y", 3), ("2", 0)):
        terminal = many.terminal("tenants", "suspend", "--all")
        assert "Suspend a, b (2) on east, west" in terminal.expect("Type 2 to go on")
        terminal.type(f"{answer}\n")
        ended, seen = terminal.end()
        assert (ended, "2 suspended" in seen) == (code, code == 0)

    alone = many.terminal("tenants", "resume", "--all", "--cluster", "east")
    alone.expect("Resume")
    alone.type("y\n")
    assert alone.end()[0] == 0


def test_verbose_says_where_the_time_goes(many: Command) -> None:
    done = many("tenants", "provision", "a", "b", "--verbose")
    assert (done.code, done.out) == (0, "2 created\n")
    for name in "ab":
        [line] = [line for line in done.err.splitlines() if line.startswith(f"aiodbclient: {name}: ")]
        assert re.fullmatch(r".*: [0-9.]+ s, [0-9]+ requests", line)

    checked = many("tenants", "check", "--verbose", "--json").objects()
    for each in checked:
        assert each["seconds"] > 0
    quiet = many("tenants", "check", "--json").objects()
    assert "seconds" not in json.dumps(quiet)
    assert Path(many.store).exists()
