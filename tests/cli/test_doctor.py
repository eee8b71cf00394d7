"""``doctor`` reports what is missing, and ``--try`` leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Role
from aiodbclient.tenants._servers.postgres.connection import Session

from ..changes import hide_new_users
from ..mysql import SERVERS, running
from ..proxy import Rule
from ..sweeping import names_on
from ..waiting import wait_until
from .conftest import Command, Done


@pytest.fixture
def sandbox(sandbox_with_tls: Sandbox) -> Sandbox:
    return sandbox_with_tls


def results(out: str) -> dict[str, str]:
    """The result of each check, by name."""
    return {line[6:].partition(":")[0]: line[:4].strip() for line in out.splitlines()}


def doctor(command: Command, *options: str) -> Done:
    return command("doctor", "--cluster", command.cluster, *options)


def left(command: Command) -> list[str]:
    return asyncio.run(names_on(command.sandbox, command.cluster_id, "doctor-"))


def test_all_is_well(command: Command) -> None:
    before = len(command.sent())
    done = doctor(command, "--store", command.store)
    assert (done.code, done.err) == (0, "")
    assert {check for check, result in results(done.out).items() if result != "ok"} == {"open databases", "store"}
    assert "note  open databases: every login may enter defaultdb and template1" in done.out
    assert list(results(done.out)) == [
        *("token", "store", "cluster", "users", "databases", "passwords", "CA", "TLS"),
        *("administrator", "open databases", "clock"),
    ]
    assert not Path(command.store).exists()
    assert {operation for operation, _ in command.sent()[before:] if operation} <= {
        *("clusters.list", "clusters.get", "clusters.ca", "users.list", "dbs.list")
    }


def test_trial_takes_tenant_through_its_life(command: Command) -> None:
    """It reports each step, and leaves nothing."""
    done = doctor(command, "--try", "-o", "json")
    assert (done.code, done.err) == (0, "")
    lines = {line["check"]: line for line in done.objects()}
    assert list(lines)[10:] == [
        *("login", "reset", "deletion"),
        *("created", "isolated", "rotated", "both work", "revoked", "still works", "reader", "reader works"),
        *("suspended", "resumed", "works again", "removed"),
    ]
    assert {line["result"] for check, line in lines.items() if check != "open databases"} == {"ok"}
    assert left(command) == []


@pytest.mark.thorough
@pytest.mark.parametrize("server", SERVERS)
def test_trial_on_mysql(command: Command, server: str, tmp_path: Path) -> None:
    with running(server, tmp_path) as dsn, Sandbox(windows=[]) as other:
        asyncio.run(other.add_cluster("mysql", "my", server=dsn))
        command.use(other, "my")
        done = doctor(command, "--try")

    assert (done.code, done.err) == (0, "")
    assert set(results(done.out).values()) == {"ok"}
    assert list(results(done.out))[-1] == "removed"


def test_failed_trial_is_cleaned_up(embedded: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is cut while it makes the login of the reader."""
    command, proxy = embedded, embedded.proxy
    run, broken = Session.run, list[Rule]()

    async def breaking(session: Session, statement: Any, *values: Any, **named: Any) -> list[Any]:
        if not broken and session.names.group(Role.READER) in (text := statement.as_string(None)) and "LOGIN" in text:
            broken.append(proxy.add(login="doadmin", cut=True, times=1))
        return await run(session, statement, *values, **named)

    monkeypatch.setattr(Session, "run", breaking)
    done = doctor(command, "--try")

    command.proxy.rules.clear()
    assert [each.fired for each in broken] == [1]
    assert done.code == 1
    assert "FAIL" in results(done.out).values()
    assert results(done.out)["removed"] == "ok"
    assert left(command) == []


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_trial_removes_pending_login(command: Command, number: signal.Signals) -> None:
    """It waits for the answer to the creation, which may be performed whether it waits or not."""
    delayed = command.sandbox.faults.add("users.create", delay=2.0)
    before = command.sandbox.counts["users.create", 201]
    process = command.start("doctor", "--cluster", command.cluster, "--try")
    wait_until(lambda: delayed.fired)

    process.send_signal(number)
    ended = command.end(process)

    assert ended.code == 3
    assert "removed: nothing of doctor-" in ended.out
    assert left(command) == []
    assert command.sandbox.counts["users.create", 201] - before == 1


@pytest.mark.thorough
def test_trial_stopped_at_sql_is_removed(embedded: Command) -> None:
    command = embedded
    held = command.proxy.add(login="doadmin", nth=40, held=True)
    process = command.start("doctor", "--cluster", command.cluster, "--try")
    wait_until(lambda: held.fired)

    process.send_signal(signal.SIGINT)
    held.held = False
    command.proxy.rules.clear()
    ended = command.end(process)

    assert ended.code == 3
    assert "removed: nothing of doctor-" in ended.out
    assert left(command) == []


def test_failed_token_says_what_to_do(command: Command) -> None:
    """A token is wrong, or lacks a scope; that it may not create is found by the trial alone."""
    sandbox = command.sandbox
    may_not_create = ["database:read", "database:view_credentials", "database:update", "database:delete"]
    for token, code, check, advice in (
        ("hunter2-wrong", 4, "token", "Make a new one"),
        (sandbox.add_token(["tag:read"]), 4, "token", "Give the token the scope database:read"),
        (sandbox.add_token(["database:read"]), 1, "passwords", "the scope database:view_credentials"),
        (sandbox.add_token(may_not_create), 1, "login", "Give the token the scope database:create"),
    ):
        command.environment["DIGITALOCEAN_TOKEN"] = token
        done = command("doctor", "--cluster", command.cluster_id, "--try")
        assert (done.code, results(done.out)[check]) == (code, "FAIL")
        assert advice in done.out
    assert results(done.out)["removed"] == "ok"
    done = doctor(command)
    assert (done.code, "Only --try shows whether it may write" in done.out) == (0, True)
    del command.environment["DIGITALOCEAN_TOKEN"]
    assert doctor(command).code == 2


def test_failed_store_and_administrator_are_named(command: Command) -> None:
    assert command("doctor", "--cluster", "nowhere").code == 2
    done = doctor(command, "--store", f"{command.folder}/none/tenants.db")
    assert (done.code, results(done.out)["store"]) == (0, "note")
    Path(command.store).write_bytes(b"this is no database " * 100)
    done = doctor(command, "--store", command.store)
    assert (done.code, results(done.out)["store"]) == (1, "FAIL")
    command.environment["AIODBCLIENT_ADMIN"] = "doadmin:hunter2"
    done = doctor(command)
    assert (done.code, results(done.out)["administrator"]) == (1, "FAIL")


@pytest.mark.usefixtures("no_waits")
def test_unusable_cluster_is_named(command: Command) -> None:
    with Sandbox(windows=[]) as other:
        asyncio.run(other.add_cluster("redis", "cache"))
        asyncio.run(other.add_cluster("pg", "young", online_after=600.0))
        for cluster, found in (
            ("cache", "cache is a redis. It has no users"),
            ("young", "young is not online, its status is creating"),
        ):
            command.use(other, cluster)
            done = doctor(command, "--try", "-o", "json")
            [failed] = [each for each in done.objects() if each["result"] == "fail"]
            assert (done.code, failed["check"]) == (1, "cluster")
            assert found in f"{failed['found']}. {failed['do']}"
    command.environment["DIGITALOCEAN_API_URL"] = "http://127.0.0.1:1"
    done = doctor(command)
    assert (done.code, results(done.out)["API"]) == (4, "FAIL")


def test_missing_rights_are_reported(command: Command) -> None:
    place = ["doctors-few", "--cluster", command.cluster]
    [few] = command("users", "create", *place, "--show", "-o", "json").objects()
    command.environment["AIODBCLIENT_ADMIN"] = f"doctors-few:{few['password']}"
    done = doctor(command)
    lacks = "doctors-few lacks CREATEROLE, CREATEDB, pg_signal_backend, pg_read_all_stats"
    assert (done.code, f"FAIL  administrator: {lacks}" in done.out) == (1, True), done.out
    assert command("users", "delete", *place, "--yes").code == 0


@pytest.mark.parametrize("engine", ["mongodb", "kafka", "opensearch"])
def test_trial_on_engine_without_tenants(command: Command, engine: str) -> None:
    """Its users are tried. A new one that is missing for a moment is reset when it is there."""
    with Sandbox() as other:
        hide_new_users(other, 0.2)
        asyncio.run(other.add_cluster(engine, "secret-name"))
        command.use(other, "secret-name")
        done = doctor(command, "--try")
        assert len(other.requests) <= 60
        operations = [(each.operation, each.status) for each in other.requests]
        at = operations.index(("users.reset_auth", 200))
        assert ("users.get", 404) in operations[:at]
        assert operations[at - 1] == ("users.get", 200)
        assert left(command) == []

    assert (done.code, done.err) == (0, "")
    found = results(done.out)
    assert "FAIL" not in found.values()
    assert found["tenants"] == "note"
    assert found["login"] == found["reset"] == found["deletion"] == found["removed"] == "ok"


@pytest.mark.parametrize(
    ("operation", "check", "scope"), [("users.reset_auth", "reset", "update"), ("users.delete", "deletion", "delete")]
)
def test_refused_trial_is_cleaned_up(command: Command, operation: str, check: str, scope: str) -> None:
    """Whatever the API refuses, the trial names the scope, and removes what it made, or says what it cannot delete."""
    command.sandbox.faults.add(operation, status=403)
    done = doctor(command, "--try")
    command.sandbox.faults.clear()
    assert (done.code, results(done.out)[check]) == (1, "FAIL")
    assert f"Give the token the scope database:{scope}" in done.out
    assert results(done.out)["created"] == "ok"  # by SQL
    is_left = operation == "users.delete"
    assert results(done.out)["removed"] == ("FAIL" if is_left else "ok")
    assert (bool(left(command)), "Look for doctor-" in done.out) == (is_left, is_left)
