"""Tenants from the command line: the stored credentials, however the command ends."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import SUPERUSER, EmbeddedPostgres

from .conftest import COMMAND, SIGNALS, Command

_used = iter(range(10**6))
MORE_THAN_AT_ONCE = 24  # a run begins 16 names
SLOWLY = 0.1  # seconds for each statement: the names that a run begins last take seconds more


@pytest.fixture
def names() -> list[str]:
    """The test's own tenants on the shared server."""
    test = next(_used)
    return [f"{os.environ.get('PYTEST_XDIST_WORKER', 'w')}-{test}-{n}" for n in range(24)]


def from_file(command: Command, names: list[str]) -> list[str]:
    file = command.folder / "names.csv"
    file.write_text("plan,name\n" + "".join(f"gold,{name}\n" for name in names))
    return ["--from", str(file)]


def on_record(command: Command) -> dict[str, dict[str, object]]:
    shown = command("tenants", "show", *command.place, "--json", "--show")
    assert shown.code == 0
    return {each["name"]: each for each in shown.objects()}


def wait_for(command: Command, count: int) -> None:
    """Until so many names are in the store."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        # The file or its table may not exist yet, or may be locked for a moment.
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{command.store}?mode=ro", uri=True)) as store,
        ):
            query = "SELECT count(*) FROM credentials WHERE token IS NULL"
            if store.execute(query).fetchone()[0] >= count:
                return
        time.sleep(0.02)
    pytest.fail("the command does not get on")


def pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_keeps_what_is_in_flight_and_the_next_run_goes_on(
    command: Command, names: list[str], number: signal.Signals
) -> None:
    names = [f"{names[0]}-{number}" for number in range(MORE_THAN_AT_ONCE)]
    arguments = ["tenants", "provision", *from_file(command, names), *command.place, "--json"]
    command.proxy.add(delay=SLOWLY)
    process = command.start(*arguments)
    wait_for(command, 1)

    process.send_signal(number)
    stopped = command.end(process)

    assert stopped.code == 3
    assert f"{len(names) - len(stopped.objects())} are left. To go on, run it again: aiodbclient tenants" in stopped.err
    printed = {each["name"] for each in stopped.objects()}
    assert 0 < len(printed) < len(names)
    assert printed == set(on_record(command))

    command.proxy.rules.clear()
    done = command(*arguments)
    assert done.code == 0
    assert {each["name"] for each in done.objects() if each["action"] == "kept"} == printed
    assert set(on_record(command)) == set(names)


def test_a_second_signal_ends_at_once(command: Command, names: list[str]) -> None:
    delayed = command.proxy.add(delay=300.0)
    process = command.start("tenants", "provision", *names[:2], *command.place)
    while not delayed.fired:
        time.sleep(0.02)

    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "plain text" in process.stderr.readline()
    assert "again, to end at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)

    ended = command.end(process)
    assert ended.code == 3
    assert ended.out == ""  # none was done, although there was work


def test_names_that_fail_are_reported_and_the_others_are_done(command: Command, names: list[str]) -> None:
    assert command("users", "create", command.cluster, names[1]).code == 0

    done = command("tenants", "provision", *names[:3], *command.place, "--json")

    assert done.code == 1
    failed = {each["name"]: each for each in done.objects() if each["action"] == "failed"}
    assert set(failed) == {names[1]}
    assert failed[names[1]]["type"] == "NameTakenError"
    assert command("tenants", "provision", names[1], *command.place).err.startswith(f"{names[1]}: ")
    assert set(on_record(command)) == {names[0], names[2]}


def test_a_broken_pipe_stops_the_run_and_loses_nothing(command: Command, names: list[str]) -> None:
    names = [f"{names[0]}-{number}" for number in range(MORE_THAN_AT_ONCE)]
    command.proxy.add(delay=SLOWLY)
    process = command.start("tenants", "provision", *from_file(command, names), *command.place, "--json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.stdout.close()
    process.stdout = None

    ended = command.end(process)

    assert ended.code == 3
    assert "stopped early" in ended.err
    assert first["name"] in on_record(command)
    assert len(on_record(command)) < len(names)
    command.proxy.rules.clear()
    assert command("tenants", "provision", *from_file(command, names), *command.place).code == 0


def test_a_stopped_rotation_says_how_to_rotate_nothing_twice(command: Command, names: list[str]) -> None:
    names = [f"{names[0]}-{number}" for number in range(MORE_THAN_AT_ONCE)]
    assert command("tenants", "provision", *from_file(command, names), *command.place).code == 0
    command.proxy.add(delay=SLOWLY)
    before = on_record(command)
    process = command.start(
        "tenants", "rotate", *from_file(command, names), *command.place, "--force", "--yes", "--json"
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    stopped = command.end(process)

    advice = stopped.err.rpartition("run it again: ")[2].partition('"')[0].strip()
    assert " --force --yes --json " in advice, stopped.err
    assert "--older-than" not in advice
    command.proxy.rules.clear()
    rotated = on_record(command)[first["name"]]
    assert rotated != before[first["name"]]
    again = command(*shlex.split(advice)[1:])
    assert again.code == 0
    assert first["name"] not in {each["name"] for each in again.objects()}
    assert on_record(command)[first["name"]] == rotated


def test_a_terminal_shows_a_bar_and_others_none(command: Command, names: list[str]) -> None:
    command.proxy.add(delay=0.1)
    arguments = ["tenants", "provision", *names[:8], *command.place]

    code, screen = command.terminal(*arguments, columns=90).end()

    assert code == 0
    assert "8/8" in screen
    assert "/min" in screen
    assert "8 created" in screen
    assert command(*arguments).err == ""


def test_destructive_commands_ask_on_a_terminal(command: Command, names: list[str]) -> None:
    a = names[0]
    assert command("tenants", "provision", a, *command.place).code == 0
    arguments = ["tenants", "remove", a, *command.place]

    for answer in ("n\n", "\n", "\x04", "\x03"):
        terminal = command.terminal(*arguments)
        terminal.expect("[y/N]")
        if answer == "\x03":
            terminal.process.send_signal(signal.SIGINT)
        else:
            terminal.type(answer)
        assert terminal.end()[0] == 3
    assert a in on_record(command)

    terminal = command.terminal(*arguments)
    assert f"Remove {a} from tenants-prod" in terminal.expect("[y/N]")
    terminal.type("perhaps\n")
    terminal.expect("answer y or n")
    terminal.type("y\n")
    code, screen = terminal.end()
    assert code == 0
    assert "1 deleted" in screen
    assert on_record(command) == {}


def test_destructive_commands_need_yes_without_a_terminal(command: Command, names: list[str]) -> None:
    a = names[0]
    destructive = [
        ["users", "delete", command.cluster, a, "--not-a-tenant"],
        ["users", "reset", command.cluster, a, "--show", "--not-a-tenant"],
        ["dbs", "delete", command.cluster, a, "--not-a-tenant"],
    ]
    for arguments in destructive:
        done = command(*arguments)
        assert (done.code, done.out) == (2, "")
        assert "--yes" in done.err
    assert {operation for operation, _ in command.sent()} == {"clusters.list"}

    assert command("tenants", "provision", a, *command.place).code == 0
    for arguments in (["remove", a], ["remove", "--all"], ["rotate", "--all"]):
        refused = command("tenants", *arguments, *command.place)
        assert (refused.code, refused.out) == (2, "")
        assert "There is no terminal to ask on. To go on: aiodbclient tenants " in refused.err
    assert set(on_record(command)) == {a}


@pytest.mark.parametrize("verb", ["create", "reset"])
def test_a_password_that_nobody_would_see_is_not_made(command: Command, verb: str) -> None:
    with Sandbox(windows=[], token=command.sandbox.token) as other:
        asyncio.run(other.add_cluster("mongodb", "documents"))
        command.environment["DIGITALOCEAN_API_URL"] = other.url
        done = command("users", verb, "documents", "doadmin", *(["--yes", "--not-a-tenant"] if verb == "reset" else []))
        sent = {request.operation for request in other.requests}

    assert (done.code, "--show" in done.err) == (2, True)
    assert sent == {"clusters.list"}


def test_a_password_that_could_not_be_printed_is_reported_and_can_be_reset(command: Command, names: list[str]) -> None:
    a = names[0]
    place = [command.cluster, a, "--show"]
    reset = f"aiodbclient users reset {command.cluster} {a} --show --not-a-tenant"
    for arguments, output, code, done in (
        (["create", *place], os.open("/dev/full", os.O_WRONLY), 4, f"the user {a} was created with a password"),
        (["reset", *place, "--yes", "--not-a-tenant"], pipe_without_reader(), 3, f"the user {a} has a new password"),
    ):
        failed = command.end(command.start("users", *arguments, stdout=output))
        assert (failed.code, failed.err.count("\n")) == (code, 1)
        assert f"{done}, which was not printed and is not stored" in failed.err
        assert f"Make another one: {reset}" in failed.err

    [user] = command(*reset.split()[1:], "--yes", "--json").objects()
    assert user["password"].startswith("AVNS_")
    assert command("users", "delete", command.cluster, a, "--yes", "--not-a-tenant").code == 0


def test_with_the_standard_output_closed_no_password_is_made(command: Command) -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", COMMAND]
    for arguments in (["create", command.cluster, "alpha", "--show"], ["reset", command.cluster, "alpha", "--show"]):
        done = subprocess.run([*shell, "users", *arguments], env=command.environment, capture_output=True, text=True)
        assert done.returncode == 4
        assert "the standard output cannot be written: Bad file descriptor; the password would be lost" in done.stderr
        assert done.stderr.count("\n") == 1
    assert command.sent() == []

    done = subprocess.run([*shell, "clusters"], env=command.environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)


def test_an_api_that_cannot_be_used_is_4(command: Command) -> None:
    command.environment["DIGITALOCEAN_TOKEN"] = "hunter2-wrong"
    wrong = command("clusters")
    assert (wrong.code, wrong.out) == (4, "")
    assert "401" in wrong.err

    with socket.socket() as closed:  # bound, and it does not listen
        closed.bind(("127.0.0.1", 0))
        command.environment["DIGITALOCEAN_API_URL"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        gone = command("users", "list", "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30")
    assert (gone.code, gone.out) == (4, "")
    assert "no connection" in gone.err

    del command.environment["DIGITALOCEAN_TOKEN"]
    missing = command("clusters")
    assert (missing.code, missing.out) == (2, "")
    assert "DIGITALOCEAN_TOKEN" in missing.err


def test_a_store_that_cannot_be_used_is_4(command: Command, names: list[str]) -> None:
    damaged = command.folder / "damaged.db"
    damaged.write_bytes(b"this is no database " * 100)
    for store in (str(command.folder), str(damaged), "postgresql://ops:hunter2@127.0.0.1:1/ops"):
        command.environment["AIODBCLIENT_STORE"] = store
        done = command("tenants", "provision", names[0], "--cluster", command.cluster)
        assert (done.code, done.out) == (4, "")
        assert done.err.startswith("aiodbclient: ")
    assert {operation for operation, _ in command.sent()} <= {"clusters.list"}


def test_a_store_with_another_key_is_4(command: Command, names: list[str]) -> None:
    from cryptography.fernet import Fernet

    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    command.environment["AIODBCLIENT_STORE_KEY"] = first
    assert command("tenants", "provision", names[0], *command.place).code == 0
    assert b"AVNS_" not in Path(command.store).read_bytes()

    for key, code in ((second, 4), ("", 4), ("hunter2-no-key", 2), (f"{first}hunter2", 2)):
        command.environment["AIODBCLIENT_STORE_KEY"] = key
        refused = command("tenants", "show", *command.place)
        assert refused.code == code
        assert "AIODBCLIENT_STORE_KEY" in refused.err
        assert first not in refused.err
    command.environment["AIODBCLIENT_STORE_KEY"] = second
    checked = command("doctor", command.cluster, "--store", command.store).out
    assert "was encrypted with another key: set $AIODBCLIENT_STORE_KEY to the key of this store" in checked
    assert "key=" not in checked
    command.environment["AIODBCLIENT_STORE_KEY"] = f"{second}, {first}"
    assert command("tenants", "show", *command.place).code == 0
    command.environment["AIODBCLIENT_STORE_KEY_TO"] = f"{first}hunter2"
    refused = command("store", "copy", command.store, str(command.folder / "copy.db"))
    assert (refused.code, "$AIODBCLIENT_STORE_KEY_TO has something else" in refused.err) == (2, True)


def test_a_mistake_in_names_or_clusters_leaves_no_store_behind(command: Command, names: list[str]) -> None:
    with Sandbox(windows=[]) as other:
        ids = [asyncio.run(other.add_cluster(engine, engine, backend="memory")) for engine in ("pg", "mysql")]
        command.environment |= {"DIGITALOCEAN_TOKEN": other.token, "DIGITALOCEAN_API_URL": other.url}
        both = ["--cluster", ids[0], "--cluster", ids[1]]
        for arguments, complaint in (
            (["a", *both], f"{ids[0]} is pg and {ids[1]} is mysql: name clusters of one engine alone"),
            (["a", "--cluster", "pg", "--cluster", "pg"], "--cluster pg, pg: the same cluster twice"),
            ([names[0], "postgres", "--cluster", "pg"], "argument 2: 'postgres' is invalid as a tenant's name"),
        ):
            done = command("tenants", "provision", *arguments, "--store", command.store)
            assert (done.code, done.out) == (2, "")
            assert done.err.startswith(f"aiodbclient: {complaint}")
        assert {request.operation for request in other.requests} <= {"clusters.list", "clusters.get"}
    assert not Path(command.store).exists()


def test_stored_credentials_are_shown_while_the_api_is_down(command: Command, names: list[str]) -> None:
    assert command("tenants", "provision", names[0], *command.place).code == 0
    [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == command.cluster]
    command.environment["DIGITALOCEAN_API_URL"] = "http://127.0.0.1:1"

    for cluster in (cluster_id, command.cluster):
        shown = command("tenants", "show", "--cluster", cluster, "--store", command.store, "--json")
        assert shown.code == 0
        assert [each["name"] for each in shown.objects()] == [names[0]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    embedded = EmbeddedPostgres()
    asyncio.run(embedded.start())
    yield f"postgresql://{SUPERUSER}:{embedded.password}@127.0.0.1:{embedded.port}/postgres"
    asyncio.run(embedded.stop())
