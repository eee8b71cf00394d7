"""The commands of one call each: clusters, users and databases."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from uuid import uuid4

import pytest

from ..waiting import wait_until
from .conftest import Command


def test_cluster_is_found_by_id(command: Command, names: list[str]) -> None:
    """A cluster is found by its name or id. One that does not exist is bad usage, and leaves no store behind."""
    cluster_id = command.cluster_id
    assert command("dbs", "list", "--cluster", cluster_id).out == command("dbs", "list", *command.on).out
    [got] = command("clusters", "get", cluster_id, "-o", "json").objects()
    assert (got["id"], got["name"]) == (cluster_id, command.cluster)
    for wanted, said in ((str(uuid4()), "no cluster has the id"), ("tenants-pord", "the account has: ")):
        for words in (["users", "list"], ["dbs", "delete", "a", "--yes"], ["tenants", "provision", "a"]):
            store = ["--store", command.store] if words[0] == "tenants" else []
            command(*words, "--cluster", wanted, *store).fails(2, said)
    assert {operation for operation, _ in command.sent()} <= {"clusters.get", "clusters.list", "dbs.list"}
    assert not Path(command.store).exists()
    command.environment["DIGITALOCEAN_TOKEN"] = command.sandbox.add_token(["database:create"])
    assert command("dbs", "create", "by-id", "--cluster", cluster_id).code == 0  # it may create and not read


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
