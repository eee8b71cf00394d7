"""The life of tenants from the command line, and what it prints of them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import OperationKind

from .conftest import Command, leaks


def on_record(command: Command) -> dict[str, dict[str, object]]:
    shown = command("tenants", "show", *command.place, "-o", "json", "--show")
    assert shown.code == 0
    return {each["name"]: each for each in shown.objects()}


def test_life_of_a_tenant(command: Command, names: list[str]) -> None:
    """Provision, rotate, revoke, suspend, resume and remove, each safe to repeat."""
    a, b = names[:2]
    made = command("tenants", "provision", a, b, *command.place)
    assert (made.code, made.out, made.err.count("holds passwords as plain text")) == (0, "2 created\n", 1)
    again = command("tenants", "provision", a, b, *command.place, "-o", "json")
    assert [(each["name"], each["action"]) for each in again.objects()] == [(a, "kept"), (b, "kept")]
    first = on_record(command)[a]
    assert command("tenants", "rotate", a, *command.place).out == "1 rotated\n"
    assert on_record(command)[a]["username"] != first["username"]
    again = command("tenants", "rotate", a, *command.place)
    assert (again.code, again.out) == (1, "1 failed\n")
    assert "When no program uses it: aiodbclient tenants revoke-previous " in again.err
    [row] = [each for each in command("tenants", "list", *command.place, "-o", "json").objects() if each["name"] == a]
    assert (row["state"], row["pending"], row["cluster_name"]) == ("ready", "revoke-previous", command.cluster)
    assert "  revoke-previous (optional)  " in command("tenants", "list", *command.place).out
    assert command("tenants", "revoke-previous", a, *command.place, "--yes").out == "1 revoked\n"
    kept = command("tenants", "rotate", "--all", "--older-than", "1h", *command.place)
    assert kept.out == "2 kept (younger than --older-than)\n"
    assert command("tenants", "suspend", a, *command.place, "--yes").out == "1 suspended\n"
    assert "suspended" in command("tenants", "list", *command.place).out
    assert command("tenants", "rotate", a, b, *command.place).out == "1 kept (suspended), 1 rotated\n"
    shown = command("tenants", "show", a, *command.place)
    assert shown.err.endswith(
        f"it is suspended. To give it its login back: aiodbclient tenants resume {a} {' '.join(command.place)}\n"
    )
    early = command("tenants", "remove", "--all", "--older-than", "30d", "--yes", "--max", "0", *command.place)
    assert (early.code, early.out) == (0, "nothing to do\n")
    resumed = command("tenants", "resume", a, *command.place)
    assert resumed.out == f"{a}: resumed (new credential: deliver it)\n1 resumed\n"
    removed = command("tenants", "remove", a, b, *command.place, "--yes")
    assert (removed.code, removed.out.endswith("\n2 deleted\n")) == (0, True)
    assert command("tenants", "list", *command.place).err.endswith("has no tenants\n")


def test_roles_have_their_own_logins(command: Command, names: list[str]) -> None:
    """A reader is provisioned, rotated, checked and removed by --role."""
    a = names[0]
    command.provision(a)
    lacking = command("tenants", "show", a, "--role", "reader", *command.place)
    assert f"{a}: it has no reader. To create one: aiodbclient tenants provision {a} --role reader" in lacking.err
    assert command("tenants", "provision", a, "--role", "reader", *command.place).out == "1 created\n"
    roles = command("tenants", "list", *command.place, "-o", "json").objects()
    assert [(each["name"], each["role"]) for each in roles] == [(a, "owner"), (a, "reader")]
    assert command("tenants", "rotate", "--all", "--role", "all", *command.place).out == "2 rotated\n"
    assert command("tenants", "check", *command.place).out == "1 checked: all well\n"
    removed = command("tenants", "remove", a, "--role", "reader", *command.place, "--yes")
    assert removed.out == f"{a} (reader): deleted\n1 deleted\n"


def test_one_typo_changes_nothing(command: Command, names: list[str]) -> None:
    """Half of a command that was mistyped is the worse half: what is done is not seen among what is not."""
    a, b, typo = names[0], names[1], f"{names[0][:-1]}O"
    command.provision(a, b)
    before = on_record(command)
    operations = ["rotate", "rotate --role all", "revoke-previous --yes", "suspend --yes", "resume", "repair"]
    for line in (*operations, "remove --yes", f"exec -- touch {command.folder}/ran"):
        operation, *options = line.split()
        done = command("tenants", operation, b, typo, *command.place, *options)
        assert (done.code, "1 failed\n" in done.out + done.err) == (1, True), (operation, done)
        corrects = operation in ("rotate", "resume", "repair", "exec")  # none of the others gives back what it takes
        assert f"{typo}: not on record{f'. Did you mean {a}?' if corrects else ''}\n" in done.err
        assert "nothing was done for the other names either\n" in done.err
    assert on_record(command) == before
    assert not (command.folder / "ran").exists()
    # What only looks says what there is, and --ignore-absent leaves out what is not there.
    assert b in command("tenants", "show", b, typo, *command.place).out
    assert command("tenants", "check", b, typo, *command.place).out == "1 checked, 1 failed\n"
    assert command("tenants", "remove", b, typo, "--ignore-absent", "--yes", *command.place).out.endswith("1 deleted\n")


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


def test_store_is_read_without_api(command: Command, names: list[str]) -> None:
    """What the store knows is not asked of the API: list, show, exec and capacity need no token."""
    command.provision(names[0])
    before = len(command.sandbox.requests)
    del command.environment["DIGITALOCEAN_TOKEN"]
    store = ["--store", command.store]
    for place in (command.place, store):
        for operation in ("list", "show", "capacity"):
            done = command("tenants", operation, *place)
            assert (done.code, names[0] in done.out) == (0, operation != "capacity"), done.err
        for which in (names[0], "--all"):
            assert command("tenants", "exec", which, *place, "--", "true").code == 0
    assert len(command.sandbox.requests) == before
    command("tenants", "list", "--cluster", "nowhere", *store).fails(2, "there is no API token")


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
            ("a --cluster redis", "redis clusters have no user management"),
            ("a", "which cluster? Add --cluster, or set $AIODBCLIENT_CLUSTER"),
            ("a --cluster nowhere", "no cluster is called 'nowhere'; the account has: mysql, pg, redis"),
        ):
            command("tenants", "provision", *line.split(), "--store", command.store).fails(2, said)
    assert not Path(command.store).exists()
    for operation in (["list"], ["show", "a"], ["rotate", "a"], ["remove", "a", "--yes"]):
        command("tenants", *operation, *command.place).fails(4, "check --store. `tenants provision`")


def test_prefix_is_named(command: Command, names: list[str]) -> None:
    """Tenants with a prefix that was forgotten are not "all well": the option is named."""
    prefix = f"{names[0].replace('-', '_')}_"
    assert command("tenants", "provision", "a", "b", "--prefix", prefix, *command.place).code == 0
    for operation, *options in (["check"], ["rotate", "--all"], ["exec", "--all", "--", "true"]):
        done = command("tenants", operation, *command.place, *options)
        said = f"has tenants of tenants-prod only with --prefix {prefix}"
        assert (done.code, done.out, said in done.err) == (2, "", True), done
    assert f"a: on record with --prefix {prefix}" in command("tenants", "check", "a", *command.place).err
    command.environment["AIODBCLIENT_PREFIX"] = prefix
    assert command("tenants", "check", *command.place).out == "2 checked: all well\n"


def test_damaged_record_stops_no_other(command: Command, names: list[str]) -> None:
    """A damaged record is named and makes the exit code 4. ``store forget`` removes it."""
    a, b, c = names[:3]
    command.provision(a, b, c)
    with closing(sqlite3.connect(command.store)) as store, store:
        changed = store.execute("UPDATE credentials SET record = 'v1.plain.0.{}' WHERE name = ?", [b])
        assert changed.rowcount == 1
    for arguments in (["tenants", "list", *command.place], ["store", "list", command.store]):
        done = command(*arguments)
        assert (done.code, a in done.out, c in done.out) == (4, True, True)
        assert (
            f"{b}: its record is damaged. Restore the store, or remove the record: aiodbclient store forget {b} "
            in done.err
        )
    checked = command("tenants", "check", *command.place)
    assert (checked.code, checked.out.splitlines()[-1]) == (4, "2 checked: all well")
    command("tenants", "exec", "--all", *command.place, "--", "true").fails(4, "2 done\n")
    assert command("store", "forget", b, "--store", command.store, "--yes").out == f"{b}: forgotten\n"
    assert command("tenants", "check", *command.place).code == 0


def test_table_has_whole_values(command: Command, names: list[str]) -> None:
    """No value is folded or cut, since people copy them. On a narrow terminal each has a line."""
    command.provision(*names[:2])
    titles = ["name", "role", "cluster", "state", "age", "version", "pending", "username"]
    for columns in (200, 60):
        _, screen = command.terminal("tenants", "list", *command.place, columns=columns).end()
        lines = [line.split() for line in screen.replace("\r", "").splitlines()]
        if columns == 200:
            assert [line[0] for line in lines] == ["name", *names[:2]]
            assert (lines[0], lines[1][:4]) == (titles, [names[0], "owner", command.cluster, "ready"])
            continue
        assert [line[0] for line in lines if line] == titles * 2
        assert [line[1] for line in lines[:4]] == [names[0], "owner", command.cluster, "ready"]
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


def test_usage_of_full_server(command: Command, names: list[str]) -> None:
    """A server that refuses the administrator fails all its tenants: it is said once, and there is no total."""
    a, b = names[:2]
    command.provision(a, b)
    failed = command("tenants", "usage", *command.place, "--admin", "nobody:wrong")
    assert (failed.code, [line.split()[0] for line in failed.out.splitlines()]) == (1, ["name", a, b])
    assert failed.err.count("cannot log in") == 1
    assert f"1 more failed as {a} did: {b}\n" in failed.err


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


def test_unfinished_work_names_its_operation(command: Command, names: list[str]) -> None:
    """``pending`` is the operation that finishes what a dead process began."""
    a = names[0]
    command.provision(a)
    for operation in (OperationKind.ROTATE, OperationKind.SUSPEND):
        command.leave(a, operation)
        [listed] = command("tenants", "list", *command.place, "-o", "json").objects()
        assert listed["pending"].split(", ")[0] == operation
        assert (
            command("tenants", operation, a, *command.place, *(["--yes"] if operation == "suspend" else [])).code == 0
        )


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
