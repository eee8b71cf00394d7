"""The life of tenants from the command line, and what it prints of them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import OperationKind, SQLiteStore

from ..tenants.store_contract import claimed
from .conftest import Command, leaks


def on_record(command: Command) -> dict[str, dict[str, object]]:
    shown = command("tenants", "show", *command.place, "-o", "json", "--show")
    assert shown.code == 0
    return {each["name"]: each for each in shown.objects()}


def test_few_missing_names_are_corrected(command: Command, names: list[str]) -> None:
    """To look for similar ones takes 0.2 s a name where 4,000 are on record."""
    command.provision(names[0])
    typos = [f"{names[0]}{number}" for number in range(12)]
    done = command("tenants", "check", *typos, *command.place, "-o", "json")
    said = [each["error"] for each in done.objects()]
    assert (len(said), sum("Did you mean" in each for each in said)) == (12, 10)


def test_secrets_need_show(command: Command, names: list[str]) -> None:
    """Without --show no password is printed; the fixture looks for them in all that was."""
    a = names[0]
    made = command("tenants", "provision", a, *command.place, "--show")
    lines = dict(line.split(": ", 1) for line in made.out.splitlines() if ": " in line)
    assert (lines["name"], lines["password"] in lines["uri"]) == (a, True)
    assert leaks(command.sandbox, made.out) == ["Aa1-"]  # the fixture would notice it
    for operation in (["provision", a], ["rotate", a], ["revoke-previous", a, "--yes"], ["show"], ["check"]):
        for form in ([], ["-o", "json"]):
            done = command("tenants", *operation, *command.place, *form)
            assert done.code in (0, 1)
            assert str(on_record(command)[a]["password"]) not in done.out + done.err


def test_show_has_forms_of_programs(secure: Command, names: list[str]) -> None:
    """A credential as URI, as variables and as a Secret; with --ca-file the server is verified."""
    command, a = secure, names[0]
    command.provision(a)
    ca_file = command.folder / "ca.pem"

    def show(*options: str) -> str:
        done = command("tenants", "show", a, *command.place, *options, shows=True)
        assert done.code == 0, done.err
        return done.out

    [shown] = command("tenants", "show", a, *command.place, "-o", "json", "--show").objects()
    unverified = command("tenants", "show", a, *command.place, "-o", "uri", shows=True)
    assert unverified.out == f"{shown['uri']}\n"
    assert "do not verify the server: for that, add --ca-file" in unverified.err
    uri = show("-o", "uri", "--ca-file", str(ca_file)).strip()
    assert (ca_file.read_text(), f"sslmode=verify-full&sslrootcert={ca_file}" in uri) == (shown["ca"], True)
    variables = dict(line.split("=", 1) for line in show("-o", "env", "--ca-file", str(ca_file)).splitlines())
    script = "import psycopg, sys; psycopg.connect(sys.argv[1])"
    for argument, environment in ((uri, {}), ("", variables)):
        program = [sys.executable, "-c", script, argument]
        subprocess.run(program, env={"PATH": os.environ["PATH"]} | environment, check=True)
    secret = yaml.safe_load(show("-o", "k8s", "--ca-file", "/tls/ca.crt", "--secret-name", "db", "--namespace", "prod"))
    assert (secret["kind"], secret["metadata"]) == ("Secret", {"name": "db", "namespace": "prod"})
    data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert data["ca.crt"] == shown["ca"]
    assert (data["PGPASSWORD"], data["PGSSLROOTCERT"]) == (shown["password"], "/tls/ca.crt")
    ca_file.write_text("something else")
    for options, said in (
        (["-o", "uri", "--ca-file", str(ca_file)], "is not the CA"),
        (["-o", "k8s", "--namespace", "a: b"], "is not a valid name in Kubernetes"),
    ):
        command("tenants", "show", a, *command.place, *options).fails(2, said)
    assert "give one name" in command("tenants", "show", *command.place, "-o", "env").err


def test_secrets_of_kubernetes_differ(command: Command, names: list[str]) -> None:
    """No two logins share the name of a Secret, whatever letters Kubernetes allows."""
    alike = [names[0], f"{names[0]}-reader", names[0].upper(), f"{names[0]}_"]
    command.provision(*alike)
    shown = command("tenants", "show", *command.place, "-o", "k8s", shows=True).out
    found = [each["metadata"]["name"] for each in yaml.safe_load_all(shown)]
    assert len(set(found)) == 4


def test_mistakes_leave_no_store(command: Command) -> None:
    """A wrong name, cluster or engine is found before the store is created."""
    with Sandbox(windows=[]) as other:
        for engine in ("pg", "mysql", "redis"):
            asyncio.run(other.add_cluster(engine, engine, backend="memory"))
        command.use(other)
        for line, said in (
            ("a --cluster pg --cluster mysql", "pg is pg and mysql is mysql: name clusters of one engine"),
            ("a --cluster pg --cluster pg", "--cluster pg, pg: the same cluster twice"),
            ("postgres a pg_b --cluster pg", "'postgres' is invalid as a tenant's name: "),
            ("postgres a pg_b --cluster pg", "pg_b"),
            ("a --cluster redis", "tenants need PostgreSQL or MySQL, and the cluster has redis"),
            ("a", "which cluster? Add --cluster, or set $AIODBCLIENT_CLUSTER"),
            ("a --cluster nowhere", "no cluster is called 'nowhere'; the account has: mysql, pg, redis"),
        ):
            command("tenants", "provision", *line.split(), "--store", command.store).fails(2, said)
    assert not Path(command.store).exists()
    for operation in (["list"], ["show", "a"], ["rotate", "a"], ["remove", "a", "--yes"]):
        command("tenants", *operation, *command.place).fails(4, "check --store. `tenants provision`")


def test_table_has_whole_values(command: Command, names: list[str]) -> None:
    """No value is folded or cut, since people copy them. On a narrow terminal each has a line."""
    command.provision(*names[:2])
    titles = ["name", "role", "cluster", "state", "age", "version", "pending", "username"]
    for columns in (200, 60):
        _, screen = command.terminal("tenants", "list", *command.place, columns=columns).end()
        lines = [line.split() for line in screen.replace("\r", "").splitlines()]
        if columns == 200:
            assert [line[0] for line in lines] == ["name", *names[:2]]
            assert (lines[0], lines[1][:4]) == (titles, [names[0], "owner", command.cluster, "usable"])
            continue
        assert [line[0] for line in lines if line] == titles * 2
        assert [line[1] for line in lines[:4]] == [names[0], "owner", command.cluster, "usable"]
        assert max(map(len, screen.splitlines())) <= columns


def test_usage_has_a_total(command: Command, names: list[str]) -> None:
    """The largest comes first, and people get a total."""
    a, b = names[:2]
    command.provision(a, b)
    with psycopg.connect(command("tenants", "show", b, *command.place, "-o", "uri", shows=True).out.strip()) as session:
        session.execute("CREATE TABLE t AS SELECT generate_series(1, 100000)")
    lines = [line.split() for line in command("tenants", "usage", *command.place).out.splitlines()]
    assert [line[0] for line in lines] == ["name", b, a, "total"]
    assert lines[0] == ["name", "cluster", "size", "connections"]
    objects = command("tenants", "usage", *command.place, "-o", "json").objects()
    assert [each["name"] for each in objects] == [b, a]
    assert all(each["bytes"] > 1e6 and each["error"] is None for each in objects)
    missing = command("tenants", "usage", a, names[9], *command.place)
    assert (missing.code, f"{names[9]}: not on record" in missing.err) == (1, True)


def test_timeout_holds_for_a_locked_store(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    with closing(sqlite3.connect(command.store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        late = command("tenants", "list", *command.place, "--timeout", "0.5s")
    assert (late.code, late.err) == (4, "aiodbclient: no answer within --timeout 0.5s\n")


def test_error_of_system_is_no_crash(command: Command, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A TimeoutError that no --timeout made is an error of the system, and no TypeError."""

    async def fail(*_: object, **__: object) -> None:
        raise TimeoutError(110, "Connection timed out", "tenants.db")

    command.provision(names[0])
    monkeypatch.setattr("aiodbclient._cli.tenants.context.read_entries", fail)
    done = command("tenants", "list", *command.place)
    assert (done.code, done.err) == (2, "aiodbclient: tenants.db: Connection timed out\n")


def test_machines_share_a_store(command: Command, names: list[str], postgres: str) -> None:
    """Two commands at once on a store in PostgreSQL make each tenant once, and print no password of its URL."""
    command.environment |= {"AIODBCLIENT_STORE": postgres, "AIODBCLIENT_CLUSTER": command.cluster}
    arguments = ["tenants", "provision", *names, "-o", "json"]
    both = [command.end(process) for process in [command.start(*arguments), command.start(*arguments)]]
    assert [done.code for done in both] == [0, 0], both
    made = [each["name"] for done in both for each in done.objects() if each["action"] == "created"]
    assert sorted(made) == sorted(names)
    # A hint has no password: the store's URL is that of the variable.
    del command.environment["AIODBCLIENT_STORE"]
    assert command("tenants", "suspend", names[0], "--yes", "--store", postgres).code == 0
    shown = command("tenants", "show", names[0], "--store", postgres)
    assert shown.err.endswith(f'aiodbclient tenants resume {names[0]} --store "$AIODBCLIENT_STORE"\n')
    assert postgres.split(":")[2].split("@")[0] not in json.dumps([shown.out, shown.err])


def test_other_process_is_no_problem(command: Command, names: list[str]) -> None:
    """A tenant that another command works on is in progress; one that a dead process left is unfinished."""
    a = names[0]
    command.provision(a)
    command.leave(a, OperationKind.ROTATE)

    async def beside() -> list[str]:
        async with SQLiteStore(command.store) as store:
            claim = await claimed(store, a)
            done = [command.process("tenants", "check", *command.place, *form) for form in ([], ["-o", "json"])]
            await store.release(claim)
        assert [each.code for each in done] == [0, 0]
        assert done[0].out == f"{a}: in progress\n1 checked, 1 in progress\n"
        return [each["state"] for each in done[1].objects()]

    assert asyncio.run(beside()) == ["in progress"]
    found = command("tenants", "check", *command.place)
    assert found.out.startswith(f"{a}: unfinished: rotate\n")
    assert f"{a}: to finish the rotation: aiodbclient tenants rotate {a} --cluster" in found.err
    repaired = command("tenants", "repair", a, *command.place)
    assert repaired.out == f"{a}: repaired: unfinished: rotate (undone: run rotate again)\n1 repaired\n"
    assert command("tenants", "rotate", a, *command.place).out == "1 rotated\n"


def test_interrupted_removal_goes_on(command: Command, names: list[str]) -> None:
    """What it prints after Ctrl-C is pasted, and removes the rest."""
    many = [f"{names[0]}-{n}" for n in range(40)]  # more than are in progress at a time
    command.provision(*many)
    line = ["tenants", "remove", *many, "--yes", *command.place]
    process = command.start(*line)
    assert process.stdout is not None
    assert process.stdout.readline().endswith(": deleted\n")
    process.send_signal(signal.SIGINT)
    stopped = command.end(process)
    assert stopped.code == 3
    said = "To go on: run the same command again, with --ignore-absent\n"
    assert stopped.err.endswith(said), stopped.err
    assert command(*line, "--ignore-absent").code == 0
    assert command("tenants", "list", *command.place, "-o", "json").out == ""
