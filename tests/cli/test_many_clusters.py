"""Tenants of several clusters, from the command line."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._backends.postgres import PostgresBackend
from aiodbclient.tenants import OperationKind

from ..proxy import Proxy, behind_proxy
from .conftest import Command


@pytest.fixture
def many(command: Command, fleet: Sandbox) -> Command:
    """The command with two clusters, and a store of its own in the environment."""
    command.use(fleet)
    command.environment["AIODBCLIENT_STORE"] = command.store
    return command


BOTH = ["--cluster", "east", "--cluster", "west"]


def homes(command: Command, *options: str) -> dict[str, str]:
    """The cluster of each tenant."""
    listed = command("tenants", "list", *options, "-o", "json").objects()
    return {each["name"]: each["cluster_name"] for each in listed}


@pytest.mark.usefixtures("no_waits")
def test_request_keeps_its_id(many: Command) -> None:
    """An error names the request that was sent, whose path has the id of the cluster."""
    assert many("tenants", "provision", "a", "--cluster", "east").code == 0
    many.environment["DIGITALOCEAN_API_URL"] = "http://127.0.0.1:1"
    [id] = [id for id, name in many.sandbox.clusters.items() if name == "east"]
    many("tenants", "rotate", "a").fails(4, f"(GET /v2/databases/{id})")


@pytest.fixture
def programs(command: Command) -> None:
    """``pg_dump`` of the servers' version, or newer."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda each: int(each.parts[4]))
    if found:
        command.environment["PATH"] = f"{found[-1].parent}:{command.environment['PATH']}"
    elif shutil.which("pg_dump") is None:
        pytest.skip("needs pg_dump")


def test_tenants_are_moved(many: Command, programs: None) -> None:
    """``move`` asks, says whence, keeps what is there already, and needs --max with --all."""
    assert many("tenants", "provision", "a", "b", "--cluster", "east").code == 0
    backup = str(many.folder / "backup.db")
    assert many("store", "copy", many.store, backup).code == 0
    move = ["tenants", "move", "--to", "west"]
    many(*move, "a").fails(2, "Move a (1) from east to west? While a tenant is copied, no")
    assert "--yes needs --max N" in many(*move, "--all", "--yes").err
    typo = many(*move, "a", "nobody", "--yes")
    assert (typo.code, typo.out, "nothing was done for the other names either" in typo.err) == (1, "1 failed\n", True)
    kept = many(*move, "a", "--yes", "--max-frozen", "0.001s")
    assert (kept.code, "it would be frozen for longer than --max-frozen" in kept.out) == (0, True), kept.err
    [moved] = many(*move, "a", "--yes", "-o", "json").objects()
    assert (moved["action"], moved["cluster_name"], moved["credential_changed"]) == ("moved", "west", True)
    assert many(*move, "a").out == "a: kept, it is there already\n1 kept\n"  # it does not ask
    [west] = [id for id, name in many.sandbox.clusters.items() if name == "west"]
    many.leave("b", OperationKind.MOVE, target=west)
    rest = many(*move, "--all", "--yes", "--max", "1")
    assert ", and before that since a move was interrupted (new" in rest.out, rest
    assert (rest.code, rest.out.splitlines()[-1]) == (0, "1 moved"), rest.out + rest.err
    assert "(new credential: deliver it)" in rest.out
    assert homes(many) == {"a": "west", "b": "west"}
    assert many("tenants", "check").out == "2 checked: all well\n"
    restored = many("tenants", "check", *BOTH, "--store", backup)
    assert "a, b: the database is on the cluster west: it was moved after this store was copied" in restored.err
    assert "to repair" not in restored.err
    many("tenants", "repair", "a", *BOTH, "--store", backup).fails(1, "is on the cluster west: it was", "1 failed\n")
    assert "2 adopted" in many.paste(restored.err)
    assert many("tenants", "check", "--store", backup).out == "2 checked: all well\n"


def test_cluster_left_behind_is_named(many: Command) -> None:
    """Also if the command and the store do not know that cluster."""
    assert many("tenants", "provision", "a", "--cluster", "east").code == 0
    [west] = [id for id, name in many.sandbox.clusters.items() if name == "west"]
    many.change("a", leftover=west)
    checked = many("tenants", "check")
    assert checked.out.startswith("a: leftover: west\n")
    failed = many("tenants", "repair", "a")
    failed.fails(1, "what is left of it on the cluster west is still there", "1 failed\n")
    assert failed.err.splitlines()[-1] == checked.err.strip()
    assert "a: repaired: leftover: west" in many.paste(checked.err)


def test_two_clusters_of_one_name_are_two(many: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work on both, and call each by its id. The name alone is refused."""
    for id in many.sandbox.clusters:
        monkeypatch.setattr(many.sandbox._clusters[id], "name", "twin")
    ids = sorted(many.sandbox.clusters)
    for name, id in zip("ab", ids, strict=True):
        assert many("tenants", "provision", name, "--cluster", id).code == 0
    assert many("tenants", "check").out == "2 checked: all well\n"
    listed = many("tenants", "list").out
    assert all(f"{name}     owner  {id}  usable" in listed for name, id in zip("ab", ids, strict=True)), listed
    assert f"Remove a, b (2) from {ids[0]}, {ids[1]}: " in many("tenants", "remove", "a", "b").err
    many("tenants", "rotate", "a", "--cluster", ids[1]).fails(1, f"add --cluster {ids[0]}\n", "1 failed\n")
    many("tenants", "check", "--cluster", "twin").fails(2, "2 clusters are called 'twin': use the id: ")


def test_cluster_that_is_gone_is_named(many: Command) -> None:
    """The API answers 404 for it. Tenants of another one are checked all the same."""
    gone = "00000000-0000-4000-8000-000000000000"
    assert many("tenants", "provision", "a", "b", "--cluster", "east").code == 0
    many.change("a", cluster=gone, cluster_name="gone-prod")
    checked = many("tenants", "check")
    assert (checked.code, checked.out) == (1, "1 checked, 1 failed\n")
    assert checked.err.startswith("a: the cluster gone-prod does not exist: the API answered 404\n"), checked.err


def as_superuser(many: Command, cluster: str, *statements: str) -> None:
    [backend] = [each.backend for each in many.sandbox._clusters.values() if each.name == cluster]
    assert isinstance(backend, PostgresBackend)
    with psycopg.connect(backend._dsn, autocommit=True) as superuser:
        for statement in statements:
            superuser.execute(statement.encode())


def test_failed_move_is_one_sentence(many: Command, programs: None) -> None:
    """``--verbose`` adds the statement that the other server refused."""
    assert many("tenants", "provision", "a", "--cluster", "east").code == 0
    as_superuser(many, "west", "ALTER ROLE doadmin NOCREATEDB")
    try:
        said = [many("tenants", "move", "a", "--to", "west", "--yes", *more) for more in ([], ["--verbose"])]
    finally:
        as_superuser(many, "west", "ALTER ROLE doadmin CREATEDB")
    plain, verbose = [each.err.splitlines() for each in said]
    assert [(each.code, each.out) for each in said] == [(1, "1 failed\n")] * 2
    refused = "tenant 'a': PostgreSQL refused a statement: permission denied to create database"
    assert plain == [f"a: the tenant 'a' was not moved to the cluster west: {refused}; it is on the cluster east"]
    assert "the statement was: CREATE DATABASE" in verbose[0]
    assert many("tenants", "check").out == "1 checked: all well\n"


def test_renamed_role_is_not_called_gone(many: Command) -> None:
    """Who restored the database from a backup would lose what was written since."""
    assert many("tenants", "provision", "a", "--cluster", "east").code == 0
    [login] = [each["username"] for each in many("tenants", "list", "-o", "json").objects()]
    owner = f"{login.rpartition('_')[0]}_owner"
    as_superuser(many, "east", f"ALTER ROLE {owner} RENAME TO moved_away")
    checked = many("tenants", "check")
    assert (checked.code, "moved_away may create in it" in checked.out) == (5, True), checked
    assert "the tenant's role was renamed. Find out which, and rename it back\n" in checked.err
    as_superuser(many, "east", f"ALTER ROLE moved_away RENAME TO {owner}")
    assert many("tenants", "check").out == "1 checked: all well\n"


def test_removal_names_what_it_leaves(many: Command) -> None:
    """A copy that the administrator made stays, with its rows."""
    assert many("tenants", "provision", "a", "--cluster", "east").code == 0
    assert many("tenants", "exec", "a", "--", "psql", "-qc", "CREATE TABLE t AS SELECT 1").code == 0
    as_superuser(many, "east", "SET SESSION AUTHORIZATION doadmin", "CREATE DATABASE a_backup TEMPLATE a")
    removed = many("tenants", "remove", "a", "--yes")
    assert removed.code == 0, removed
    assert removed.out.startswith("a: deleted (the tenant's objects in a_backup stay, "), removed.out


FROM_EAST = " from east, or from another process that works on them\n"
# Says after a moment what otherwise is said after ten seconds.
SOON = """\
from aiodbclient._cli.plumbing import opening, progress
from aiodbclient.tenants._operations import loop
opening._LINE_EVERY = progress._SILENT = loop._HANGS = 0.3
"""


@pytest.fixture
def hanging(many: Command) -> Iterator[Proxy]:
    """The cluster east with the tenant a, which takes connections and answers no statement; and west with b."""
    assert many("tenants", "provision", "a", "--cluster", "east").code == 0
    assert many("tenants", "provision", "b", "--cluster", "west").code == 0
    (many.folder / "sitecustomize.py").write_text(SOON)
    many.environment["PYTHONPATH"] = f"{many.folder}:{many.environment.get('PYTHONPATH', '')}"
    [east] = [id for id, name in many.sandbox.clusters.items() if name == "east"]
    with behind_proxy(many.sandbox, east) as proxy:
        rule = proxy.add(held=True)
        yield proxy
        rule.held = False


def test_hanging_cluster_is_named(many: Command, hanging: Proxy) -> None:
    """It holds up no tenant of another one. A line names it alone, and what is finished stays printed."""
    process = many.start("tenants", "check", "-o", "json")
    assert process.stderr is not None
    while not (line := process.stderr.readline()).endswith(FROM_EAST):
        assert line.startswith("aiodbclient: 0 of 2 done, no answer for "), line
    assert line.startswith("aiodbclient: 1 of 2 done, no answer for ")
    process.send_signal(signal.SIGTERM)
    while not (line := process.stderr.readline()).startswith("aiodbclient: stopping: "):
        assert line.endswith(FROM_EAST), line
    process.send_signal(signal.SIGTERM)
    ended = many.end(process)
    assert (ended.code, [(each["name"], each["state"]) for each in ended.objects()]) == (3, [("b", "ok")])
    *waits, last = ended.err.splitlines()
    assert all(f"{each}\n".endswith(FROM_EAST) for each in waits), ended.err  # and no warning of the driver
    assert last == "aiodbclient: stopped early: 1 done, 1 left. To go on: run the same command again"


def test_hanging_cluster_loses_no_finished_check(many: Command, hanging: Proxy) -> None:
    """``usage`` and ``doctor`` say what they wait for, and ``doctor`` prints each line at once."""
    usage = many.start("tenants", "usage")
    assert usage.stderr is not None
    waits = [usage.stderr.readline() for _ in range(3)]
    while any("waiting for east: " not in each for each in waits[-3:]):  # else west has answered
        assert "aiodbclient: waiting for " in waits[-1], waits
        waits.append(usage.stderr.readline())
    usage.send_signal(signal.SIGTERM)
    stopped = many.end(usage)
    assert (stopped.code, [line.split()[:2] for line in stopped.out.splitlines()][1:2]) == (3, [["b", "west"]])
    process = many.start("doctor", "--cluster", "west", "--cluster", "east")
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("aiodbclient: waiting for east: "):
        assert line.startswith("aiodbclient: waiting for "), line
    process.send_signal(signal.SIGTERM)
    ended = many.end(process)
    assert (ended.code, ended.err.splitlines()[-1]) == (3, "aiodbclient: stopped")
    assert "ok    administrator: doadmin logs in" in ended.out
    assert ended.out.endswith("ok    TLS: the cluster speaks none\n")
