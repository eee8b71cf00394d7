"""``doctor`` reports what is missing, and ``--try`` leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants._grants.administrator import Administrator, on_mysql
from aiodbclient.tenants._grants.postgres import PostgresGrants

from ..mysql import SERVERS, running
from .conftest import SIGNALS, Command


def results(out: str) -> dict[str, str]:
    """The result of each check, by name."""
    return {line[6:].partition(":")[0]: line[:4].strip() for line in out.splitlines()}


def left(command: Command) -> list[str]:
    async def names() -> list[str]:
        async with DatabaseClient(command.sandbox.token, base_url=command.sandbox.url) as client:
            [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == command.cluster]
            cluster = client.cluster(cluster_id)
            users = [user.name for user in await cluster.users.list()]
            return users + [db.name for db in await cluster.dbs.list()]

    return [name for name in asyncio.run(names()) if name.startswith("doctor-")]


def test_all_is_well(command: Command) -> None:
    before = len(command.sent())
    done = command("doctor", command.cluster, "--store", command.store)

    assert (done.code, done.err) == (0, "")
    assert set(results(done.out).values()) == {"ok"}
    assert list(results(done.out)) == [
        *("token", "store", "cluster", "users", "databases", "passwords", "connection", "CA", "TLS"),
        *("administrator", "clock"),
    ]
    assert not Path(command.store).exists()
    assert {operation for operation, _ in command.sent()[before:] if operation} <= {
        *("clusters.list", "clusters.get", "clusters.ca", "users.list", "dbs.list"),
    }
    objects = command("doctor", command.cluster, "--json").objects()
    assert [each["result"] for each in objects] == ["ok"] * 10


def test_the_server_of_the_budget_is_checked(command: Command, postgres_url: str) -> None:
    cluster = command.cluster
    found = command("doctor", cluster, "--budget", postgres_url)
    assert "ok    budget: shared, and its server answers" in found.out
    found = command("doctor", cluster, "--budget", "valkey://127.0.0.1:1")
    assert found.code == 1
    assert "FAIL  budget: its server does not answer. Check --budget and the network" in found.out
    found = command("doctor", cluster, "--budget", re.sub(":[^:@]*@", ":hunter2@", postgres_url))
    assert found.code == 1
    assert "refuses this process" in found.out
    assert "hunter2" not in found.out + found.err


def test_a_trial_takes_a_tenant_through_its_life_and_leaves_nothing(command: Command) -> None:
    done = command("doctor", command.cluster, "--try")

    assert (done.code, done.err) == (0, "")
    assert list(results(done.out))[-9:] == [
        *("created", "isolated", "rotated", "both work", "retired", "still works", "reader", "reader works", "removed"),
    ]
    assert set(results(done.out).values()) == {"ok"}
    assert left(command) == []


@pytest.mark.parametrize("server", SERVERS)
def test_a_trial_on_mysql(command: Command, server: str, tmp_path: Path) -> None:
    with running(server, tmp_path) as dsn, Sandbox(windows=[]) as other:
        asyncio.run(other.add_cluster("mysql", "my", dsn=dsn))
        command.environment |= {"DIGITALOCEAN_TOKEN": other.token, "DIGITALOCEAN_API_URL": other.url}
        done = command("doctor", "my", "--try")

    assert (done.code, done.err) == (0, "")
    assert set(results(done.out).values()) == {"ok"}
    assert list(results(done.out))[-1] == "removed"


def test_a_trial_that_fails_is_cleaned_up_and_says_why(command: Command) -> None:
    made = command.sandbox.faults.add("users.create", status=403, nth=2)

    done = command("doctor", command.cluster, "--try")

    assert made.fired
    assert done.code == 1
    assert (results(done.out)["created"], results(done.out)["rotated"], results(done.out)["removed"]) == (
        "ok",
        "FAIL",
        "ok",
    )
    assert left(command) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_trial_that_is_stopped_is_cleaned_up(command: Command, number: signal.Signals) -> None:
    delayed = command.sandbox.faults.add("users.create", delay=5.0, nth=2)
    process = command.start("doctor", command.cluster, "--try")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(12)]
    while not delayed.fired:
        lines.append(process.stdout.readline())

    process.send_signal(number)
    ended = command.end(process)

    assert ended.code == 3
    assert "removed: nothing of doctor-" in ended.out
    assert left(command) == []


def test_each_failed_check_says_what_to_do(command: Command) -> None:
    sandbox = command.sandbox
    [cluster_id] = [id for id, name in sandbox.clusters.items() if name == command.cluster]
    for token, check, advice in (
        ("hunter2-wrong", "token", "Make a new one"),
        (sandbox.add_token(["tag:read"]), "token", "Give the token the scope database:read"),
        (sandbox.add_token(["database:read"]), "passwords", "the scope database:view_credentials"),
    ):
        command.environment["DIGITALOCEAN_TOKEN"] = token
        done = command("doctor", cluster_id, "--try")
        assert done.code == 1
        assert results(done.out)[check] == "FAIL"
        assert advice in done.out
    command.environment["DIGITALOCEAN_TOKEN"] = sandbox.token

    nowhere = command("doctor", "nowhere")
    assert nowhere.code == 2
    command.environment["AIODBCLIENT_ADMIN"] = "postgresql://doadmin:hunter2@127.0.0.1:1/defaultdb"
    done = command("doctor", command.cluster)
    assert (done.code, results(done.out)["administrator"]) == (1, "FAIL")
    del command.environment["AIODBCLIENT_ADMIN"]

    done = command("doctor", command.cluster, "--store", f"{command.folder}/none/tenants.db")
    assert (done.code, results(done.out)["store"]) == (1, "FAIL")
    assert "/none/tenants.db does not exist. create it" in done.out
    Path(command.store).write_bytes(b"this is no database " * 100)
    done = command("doctor", command.cluster, "--store", command.store)
    assert (done.code, results(done.out)["store"]) == (1, "FAIL")
    del command.environment["DIGITALOCEAN_TOKEN"]
    assert command("doctor", command.cluster).code == 2


def test_a_cluster_that_cannot_be_used_is_said(command: Command) -> None:
    with Sandbox(windows=[]) as other:
        asyncio.run(other.add_cluster("redis", "cache"))
        asyncio.run(other.add_cluster("kafka", "events"))
        asyncio.run(other.add_cluster("pg", "young", online_after=600.0))
        command.environment |= {"DIGITALOCEAN_TOKEN": other.token, "DIGITALOCEAN_API_URL": other.url}
        for cluster, check, found in (
            ("cache", "cluster", "cache is a redis"),
            ("young", "cluster", "young is not online, its status is creating"),
            ("events", "connection", "cannot be reached"),
        ):
            done = command("doctor", cluster, "--try", "--json")
            failed = {each["check"]: each for each in done.objects() if each["result"] == "fail"}
            assert (done.code, list(failed)) == (1, [check])
            assert found in failed[check]["found"]
            assert failed[check]["do"]
    done = command("doctor", "cache")
    assert (done.code, results(done.out)["API"]) == (1, "FAIL")


async def test_missing_rights_of_the_administrator_are_reported(command: Command) -> None:
    async with DatabaseClient(command.sandbox.token, base_url=command.sandbox.url) as client:
        [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == command.cluster]
        cluster = client.cluster(cluster_id)
        info, user = await cluster.info(), await cluster.users.create("doctors-few")
        dsn = info.connection.uri_for(user)
        try:
            found = await PostgresGrants(dsn, None).administrator()
        finally:
            await cluster.users.delete("doctors-few")

    assert (found.name, found.lacks) == ("doctors-few", ("CREATEROLE", "CREATEDB"))
    assert abs(found.clock - datetime.now(UTC)) < timedelta(minutes=1)
    clock = datetime(2026, 1, 2)
    assert on_mysql("few@%", "8.4", clock, {"CREATE USER": "NO", "SELECT": "YES"}) == Administrator(
        "few@%",
        "8.4",
        tuple(
            f"{right} WITH GRANT OPTION"
            for right in ("ALTER", "CREATE VIEW", "CREATE", "DELETE", "DROP", "INDEX", "INSERT", "UPDATE")
        ),
        clock.replace(tzinfo=UTC),
    )
