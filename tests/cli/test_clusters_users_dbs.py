"""The commands of one call each: clusters, users and databases."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from uuid import uuid4

import pytest

from ..server import CLUSTER, Server, says
from ..waiting import wait_until
from .conftest import Command


def test_clusters_are_listed(command: Command) -> None:
    """A table for people has whole values; an object for programs has the same members."""
    cluster_id = command.cluster_id
    table, lines = command("clusters", "list"), command("clusters", "list", "-o", "json")
    assert (table.code, table.err, lines.code) == (0, "", 0)
    [row] = [line.split() for line in table.out.splitlines() if line.endswith(cluster_id)]
    [cluster] = [each for each in lines.objects() if each["id"] == cluster_id]
    assert row == [str(each) for each in cluster.values()]
    assert (cluster["name"], cluster["engine"], cluster["status"]) == (command.cluster, "pg", "online")
    command.environment["AIODBCLIENT_CLUSTER"] = command.cluster
    for words in (["clusters", "get"], ["clusters", "get", cluster_id]):
        [got] = command(*words, "-o", "json").objects()
        assert (got["id"], got["port"] > 0) == (cluster_id, True)


def test_user_from_creation_to_end(command: Command) -> None:
    """A user is created, read, reset and deleted. Secrets are printed with --show alone."""
    made = command("users", "create", "life", "--show", *command.on, "-o", "json")
    [user] = made.objects()
    assert user["password"].startswith("AVNS_")
    [got] = command("users", "get", "life", *command.on, "-o", "json").objects()
    assert got == {key: value for key, value in user.items() if key != "password"}
    assert user in command("users", "list", "--show", *command.on, "-o", "json").objects()
    assert "life" in command("users", "list", *command.on).out
    [reset] = command("users", "reset", "life", "--show", "--yes", *command.on, "-o", "json").objects()
    assert reset["password"] != user["password"]
    assert reset["password"] in command("users", "get", "life", "--show", *command.on).out
    deleted = command("users", "delete", "life", "--yes", *command.on, "-o", "json")
    assert deleted.objects() == [{"name": "life", "action": "deleted"}]
    gone = command("users", "get", "life", *command.on)
    assert (gone.code, gone.out, gone.err) == (1, "", "aiodbclient: no user life on tenants-prod\n")
    told = command("users", "get", "life", *command.on, "--verbose").err
    assert ("404 not_found" in told, "request id" in told) == (True, True)


def test_database_from_creation_to_end(command: Command) -> None:
    assert command("dbs", "create", "archive", *command.on).out == "created the database archive\n"
    assert {"name": "archive"} in command("dbs", "list", *command.on, "-o", "json").objects()
    assert command("dbs", "get", "archive", *command.on).out == "name\narchive\n"
    assert command("dbs", "delete", "archive", "--yes", *command.on).out == "deleted the database archive\n"
    assert command("dbs", "delete", "archive", "--yes", *command.on).code == 1


def test_cluster_is_found_by_id(command: Command, names: list[str]) -> None:
    """A cluster is found by its name or id. One that does not exist is bad usage, and leaves no store behind."""
    cluster_id = command.cluster_id
    assert command("dbs", "list", "--cluster", cluster_id).out == command("dbs", "list", *command.on).out
    for wanted, said in ((str(uuid4()), "no cluster has the id"), ("tenants-pord", "the account has: ")):
        for words in (["users", "list"], ["dbs", "delete", "a", "--yes"], ["tenants", "provision", "a"]):
            store = ["--store", command.store] if words[0] == "tenants" else []
            command(*words, "--cluster", wanted, *store).fails(2, said)
    assert {operation for operation, _ in command.sent()} <= {"clusters.get", "clusters.list", "dbs.list"}
    assert not Path(command.store).exists()


async def test_twin_names_need_the_id(command: Command, server: Server) -> None:
    """Of two clusters with one name, the ids are printed."""
    other = CLUSTER.replace("9", "8")
    both = [{"id": id, "name": "twin", "engine": "pg"} for id in (CLUSTER, other)]
    server.otherwise = says(200, {"databases": both})
    command.environment["DIGITALOCEAN_API_URL"] = server.url
    done = await asyncio.to_thread(command.process, "users", "list", "--cluster", "twin")
    assert (done.code, f"use the id: {CLUSTER}, {other}" in done.err, len(server.requests)) == (2, True, 1)


def test_lost_password_is_not_made(command: Command) -> None:
    """MongoDB returns a password once: without --show none is made."""
    other = command.in_memory("mongodb", "documents")
    for operation, *options in (["create"], ["reset", "--yes"]):
        command("users", operation, "ann", *options, *command.on).fails(2, "Add --show")
    assert {request.operation for request in other.requests} == {"clusters.list"}


def test_wrong_token_says_what_to_do(command: Command) -> None:
    """What the API refuses is 4, with advice; no token is 2."""
    command.environment["DIGITALOCEAN_TOKEN"] = "hunter2-wrong"
    refused = command("clusters", "list")
    assert (refused.code, refused.out) == (4, "")
    assert "the API answered 401" in refused.err
    assert (
        "wrong, expired or revoked. Make another one in the control panel, under API: tenants need the" in refused.err
    )
    command.environment["DIGITALOCEAN_TOKEN"] = command.sandbox.add_token(["database:create"])
    assert "Change the token's scopes in the control panel" in command("clusters", "list").err
    cluster_id = command.cluster_id
    assert command("dbs", "create", "by-id", "--cluster", cluster_id).code == 0  # it may create and not read
    del command.environment["DIGITALOCEAN_TOKEN"]
    command("clusters", "list").fails(2, "set DIGITALOCEAN_TOKEN")


@pytest.mark.usefixtures("no_waits")
def test_unreachable_api_is_plain_words(command: Command) -> None:
    """No connection is 4, in words of the network."""
    with socket.socket() as closed:  # bound, and it does not listen
        closed.bind(("127.0.0.1", 0))
        command.environment["DIGITALOCEAN_API_URL"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        gone = command("users", "list", "--cluster", str(uuid4()))
    assert (gone.code, gone.out, "Connection refused" in gone.err) == (4, "", True)
    assert "ClientConnector" not in gone.err


def test_hanging_api_is_bounded(command: Command) -> None:
    """``--timeout`` ends a command whose API hangs."""
    command.sandbox.faults.add("clusters.list", delay=60.0)
    command("clusters", "list", "--timeout", "0.5s").fails(4, "no answer within --timeout 0.5s")


def test_late_command_names_last_failure(command: Command) -> None:
    command.sandbox.faults.add("clusters.list", status=503, headers={"retry-after": "60"})
    late = command("clusters", "list", "--timeout", "0.5s")
    last = "503 service_unavailable: Service Unavailable"
    assert (late.code, late.err) == (4, f"aiodbclient: no answer within --timeout 0.5s; the last try failed: {last}\n")


@pytest.mark.parametrize(("hangs", "is_unclear"), [("clusters.list", False), ("users.create", True)])
def test_stopped_change_is_unclear(command: Command, hangs: str, is_unclear: bool) -> None:
    """Ctrl-C says of a change that was sent that it may have been applied, and how to look."""
    hanging = command.sandbox.faults.add(hangs, delay=60.0)
    process = command.start("users", "create", "stopped", "--show", *command.on)
    wait_until(lambda: hanging.fired)
    process.send_signal(signal.SIGINT)
    done = command.end(process)
    look = f"may have been applied. To look: aiodbclient users get stopped --cluster {command.cluster}\n"
    assert (done.code, look in done.err) == (3, is_unclear), done.err


def test_lost_change_is_unclear(command: Command) -> None:
    """A change whose response is lost may have been applied, and the command to look is printed."""
    command.sandbox.faults.add("users.create", cut=True, after=True, times=1)
    done = command("users", "create", "lost", *command.on)
    look = f"may have been applied. To look: aiodbclient users get lost --cluster {command.cluster}\n"
    assert (done.code, look in done.err) == (4, True), done.err
    taken = command("users", "create", "lost", *command.on)
    assert (taken.code, "To look" in taken.err) == (1, False)


def test_full_disk_is_named(command: Command) -> None:
    """An error of the system says what it is about, and ends with 2. A reader that has gone is no error text."""
    for arguments in (["clusters", "list"], ["users", "list", *command.on, "-o", "json"]):
        with Path("/dev/full").open("w") as full:
            done = command.end(command.start(*arguments, stdout=full))
        assert done.code == 2
        assert done.err == "aiodbclient: the standard output: No space left on device\n"
        process = command.start(*arguments)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert command.end(process).err == ""


def test_sandbox_without_limits_is_not_paced(command: Command) -> None:
    """The variable is for a sandbox on this machine."""
    command.environment["AIODBCLIENT_BUDGET"] = "none"
    assert command("clusters", "list").code == 0
    command.environment["AIODBCLIENT_BUDGET"] = "banana"
    command("clusters", "list").fails(2, "AIODBCLIENT_BUDGET is invalid: ")
    command.environment |= {"AIODBCLIENT_BUDGET": "none", "DIGITALOCEAN_API_URL": "https://api.example.com"}
    command("clusters", "list").fails(2, "AIODBCLIENT_BUDGET=none is for a sandbox on this machine")
