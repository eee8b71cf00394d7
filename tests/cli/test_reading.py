"""The commands that read and print: clusters, users, databases."""

from __future__ import annotations

import asyncio
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich import cells

from aiodbclient import __version__
from aiodbclient._cli.printing import Table, print_rows

from ..server import CLUSTER, Server, says
from .conftest import COMMAND, Command


def test_clusters(command: Command) -> None:
    [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == "tenants-prod"]

    table = command("clusters")
    lines = command("clusters", "-o", "json")

    assert (table.code, table.err) == (lines.code, lines.err) == (0, "")
    assert re.search(rf"^tenants-prod  pg .*  {cluster_id}$", table.out, re.MULTILINE)
    [cluster] = [each for each in lines.objects() if each["id"] == cluster_id]
    assert (cluster["name"], cluster["engine"], cluster["status"]) == ("tenants-prod", "pg", "online")


def test_each_cell_of_a_long_table_is_measured_once_or_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured, cell_len = 0, cells.cell_len

    def counted(text: str) -> int:
        nonlocal measured
        measured += 1
        return cell_len(text)

    monkeypatch.setattr(cells, "cell_len", counted)
    print_rows([{"name": f"n{number}", "size": "7.9 MB"} for number in range(1000)], Table())
    assert len(capsys.readouterr().out.splitlines()) == 1001
    assert 0 < measured <= 2 * 2 * 1001


def test_users_from_their_creation_to_their_end(command: Command) -> None:
    made = command("users", "create", "life", "--cluster", command.cluster, "--show", "-o", "json")
    assert made.code == 0
    [user] = made.objects()
    assert user["password"].startswith("AVNS_")

    [got] = command("users", "get", "life", "--cluster", command.cluster, "-o", "json").objects()
    assert got == {key: value for key, value in user.items() if key != "password"}
    listed = command("users", "list", "--show", "--cluster", command.cluster, "-o", "json").objects()
    assert user in listed
    assert "life" in command("users", "list", "--cluster", command.cluster).out

    [reset] = command(
        "users", "reset", command.cluster, "life", "--show", "--yes", "-o", "json"
    ).objects()
    assert reset["password"] != user["password"]
    assert reset["password"] in command("users", "get", "life", "--cluster", command.cluster, "--show").out

    assert command("users", "delete", "life", "--cluster", command.cluster, "--yes").code == 0
    gone = command("users", "get", "life", "--cluster", command.cluster)
    assert (gone.code, gone.out) == (1, "")
    assert gone.err == "aiodbclient: no user life on tenants-prod\n"
    told = command("users", "get", "life", "--cluster", command.cluster, "--verbose")
    assert "404 not_found" in told.err
    assert "request id" in told.err


def test_databases_from_their_creation_to_their_end(command: Command) -> None:
    assert command("dbs", "create", "archive", "--cluster", command.cluster).code == 0
    assert {"name": "archive"} in command("dbs", "list", "-o", "--cluster", command.cluster, "json").objects()
    assert "archive" in command("dbs", "list", "--cluster", command.cluster).out.splitlines()[-1]
    assert command("dbs", "delete", "archive", "--cluster", command.cluster, "--yes").code == 0
    assert command("dbs", "delete", "archive", "--cluster", command.cluster, "--yes").code == 1


def test_a_cluster_is_found_by_its_id_too(command: Command) -> None:
    [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == "tenants-prod"]

    assert command("dbs", "list", cluster_id).out == command("dbs", "list", "tenants-prod").out
    unknown = command("dbs", "list", "tenants-pord")
    assert (unknown.code, unknown.out) == (2, "")
    assert "no cluster is called 'tenants-pord'; the account has: " in unknown.err


UNKNOWN = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"


@pytest.mark.parametrize("wanted", [UNKNOWN, "tenants-pord"])
def test_a_cluster_that_is_not_there_is_bad_usage(command: Command, wanted: str) -> None:
    store = ["--cluster", wanted, "--store", command.store]
    for arguments in (
        ["users", "list", wanted],
        ["users", "get", wanted, "alpha"],
        ["users", "create", wanted, "alpha", "--show"],
        ["users", "reset", wanted, "alpha", "--show", "--yes"],
        ["dbs", "create", wanted, "alpha"],
        ["dbs", "delete", wanted, "alpha", "--yes"],
        ["tenants", "plan", "alpha", *store],
        ["tenants", "provision", "alpha", *store],
        ["tenants", "rotate", "alpha", *store],
        ["tenants", "revoke-previous", "alpha", *store],
        ["tenants", "remove", "alpha", "--yes", *store],
    ):
        done = command(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert ("has the id" if wanted == UNKNOWN else "is called") in done.err
    assert {operation for operation, _ in command.sent()} <= {"clusters.get", "clusters.list"}
    assert not Path(command.store).exists()


def test_a_token_that_may_not_read_clusters_names_its_cluster_by_id(command: Command) -> None:
    [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == "tenants-prod"]
    command.environment["DIGITALOCEAN_TOKEN"] = command.sandbox.add_token(["database:create"])

    assert command("dbs", "create", "tenants-prod", "by-name").code == 4
    assert command("dbs", "create", cluster_id, "by-id").code == 0


async def test_two_clusters_with_one_name_are_reported_with_their_ids(command: Command, server: Server) -> None:
    other = CLUSTER.replace("9", "8")
    both = [{"id": id, "name": "twin", "engine": "pg"} for id in (CLUSTER, other)]
    server.otherwise = says(200, {"databases": both})
    command.environment["DIGITALOCEAN_API_URL"] = server.url

    done = await asyncio.to_thread(command.process, "users", "list", "twin")

    assert done.code == 2
    assert f"use the id: {CLUSTER}, {other}" in done.err
    assert len(server.requests) == 1


def test_a_narrow_terminal_leaves_out_ids_and_then_gets_a_line_for_each_value(command: Command) -> None:
    [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == "tenants-prod"]

    def screen(columns: int, *more: str) -> list[str]:
        code, seen = command.terminal("clusters", *more, columns=columns, NO_COLOR="1").end()
        assert code == 0
        return seen.replace("\r", "").splitlines()

    row = ["tenants-prod", "pg", "18", "online", "nyc3"]
    for columns in (50, 80):
        assert [line.split() for line in screen(columns)] == [["name", "engine", "version", "status", "region"], row]
    assert screen(120)[1].split() == [*row, cluster_id]
    assert screen(50, "-o", "wide")[1].split() == [*row, cluster_id]
    assert screen(30)[:2] == ["name: tenants-prod", "engine: pg"]


def test_the_version(command: Command) -> None:
    assert command("--version").out == f"aiodbclient {__version__}\n"


def test_the_sandbox_is_the_sandboxs_own_program(command: Command) -> None:
    process = command.start("sandbox", "--cluster", "kafka=events", "-o", "json")
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()

    assert '"name": "events"' in line
    assert command.end(process, shows=True).code == 0
    assert command.process("sandbox", "--port", "70000").code == 2


def test_help_starts_quickly_and_imports_no_driver(command: Command) -> None:
    command.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    imported = command.end(command.start("tenants", "--help", stdout=subprocess.DEVNULL), shows=True)
    del command.environment["PYTHONPROFILEIMPORTTIME"]

    drivers = ("psycopg", "pymysql", "asyncmy", "aiomysql", "cryptography")
    assert [name for name in drivers if re.search(rf"\| +{name}$", imported.err, re.MULTILINE)] == []
    assert re.search(r"\| +typer$", imported.err, re.MULTILINE)

    # CPU time, compared with that of the libraries: both grow on a busy machine.
    libraries = [sys.executable, "-c", "import aiohttp, attrs, cattrs, typer.rich_utils"]
    ratios = [
        cpu_seconds([COMMAND, "--help"], command.environment) / cpu_seconds(libraries, command.environment)
        for _ in range(3)
    ]
    assert min(ratios) < 1.75


def cpu_seconds(program: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(program, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
