"""Tenants from the command line: the stored credentials, however the command ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import SUPERUSER, EmbeddedPostgres
from aiodbclient.

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
    shown = command("tenants", "show", *command.place, "-o", "json", "--show")
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


def test_a_life(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]
    planned = command("tenants", "plan", a, b, *command.place)
    assert (planned.code, planned.out) == (5, f"+ {a}\n+ {b}\n2 to create, 0 to resume, 0 to remove, 0 to keep\n")

    made = command("tenants", "provision", a, b, *command.place)
    assert (made.code, made.out, made.err.count("holds passwords as plain text")) == (0, "2 created\n", 1)
    assert command("tenants", "provision", a, b, *command.place).err == ""
    again = command("tenants", "provision", a, b, *command.place, "-o", "json")
    assert [(each["name"], each["action"]) for each in again.objects()] == [(a, "kept"), (b, "kept")]
    assert command("tenants", "plan", a, b, *command.place).code == 0

    first = on_record(command)[a]
    assert command("tenants", "rotate", a, *command.place).out == "1 rotated\n"
    second = on_record(command)[a]
    assert first["username"] != second["username"]
    again = command("tenants", "rotate", a, *command.place)
    assert (again.code, again.out) == (1, "1 failed\n")
    assert again.err.startswith(f"{a}: ")
    assert "not revoked" in again.err
    assert command("tenants", "revoke-previous", a, *command.place, "--yes").out == "1 revoked\n"

    planned = command("tenants", "plan", a, c, *command.place, "--prune", "-o", "json")
    assert planned.code == 5
    assert {(each["name"], each["change"]) for each in planned.objects()} == {
        (a, "keep"),
        (b, "remove"),
        (c, "create"),
    }
    assert command("tenants", "provision", a, c, *command.place, "--prune", "--yes", "--max", "1").code == 0
    assert set(on_record(command)) == {a, c}

    assert command("tenants", "remove", a, c, *command.place, "--yes").out.endswith("\n2 deleted\n")
    assert on_record(command) == {}
    missing = command("tenants", "show", a, *command.place)
    assert (missing.code, missing.out) == (1, "")
    assert f"{a}: not on record" in missing.err


def test_output_without_show_holds_no_secret(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    retire = ["revoke-previous", a, "--yes"]
    for arguments in (["plan", a], ["provision", a], ["provision", b], ["rotate", a], retire, ["show"]):
        for kind in ([], ["-o", "json"]):
            assert command("tenants", *arguments, *command.place, *kind).code in (0, 1, 5)
    assert command("users", "list", "--cluster", command.cluster).code == 0

    shown = on_record(command)  # with --show, so the search at the end skips it

    assert len(str(shown[a]["password"])) > 20
    assert str(shown[a]["password"]) in str(shown[a]["uri"])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_keeps_what_is_in_flight_and_the_next_run_goes_on(
    command: Command, names: list[str], number: signal.Signals
) -> None:
    names = [f"{names[0]}-{number}" for number in range(MORE_THAN_AT_ONCE)]
    arguments = ["tenants", "provision", *from_file(command, names), *command.place, "-o", "json"]
    command.sandbox.faults.add("sql.statement", delay=SLOWLY)
    process = command.start(*arguments)
    wait_for(command, 1)

    process.send_signal(number)
    stopped = command.end(process)

    assert stopped.code == 3
    assert f"{len(names) - len(stopped.objects())} are left. To go on, run it again: aiodbclient tenants" in stopped.err
    printed = {each["name"] for each in stopped.objects()}
    assert 0 < len(printed) < len(names)
    assert printed == set(on_record(command))

    command.sandbox.faults.clear()
    done = command(*arguments)
    assert done.code == 0
    assert {each["name"] for each in done.objects() if each["action"] == "kept"} == printed
    assert set(on_record(command)) == set(names)


def test_a_second_signal_ends_at_once(command: Command, names: list[str]) -> None:
    delayed = command.sandbox.faults.add("sql.statement", delay=300.0)
    process = command.start("tenants", "provision", *names[:2], *command.place)
    while not delayed.fired:
        time.sleep(0.02)
    started = time.monotonic()

    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "plain text" in process.stderr.readline()
    assert "again, to end at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)

    ended = command.end(process)
    assert ended.code == 3
    assert ended.out == ""  # none was done, although there was work
    assert time.monotonic() - started < 100.0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_what_waits_for_the_rate_limit_and_says_why(
    command: Command, names: list[str], number: signal.Signals
) -> None:
    file = command.folder / "users.yaml"
    file.write_text("".join(f"- {name}\n" for name in names))
    arguments = ["users", "apply", "--from", "--cluster", command.cluster, str(file), "--yes"]
    spent = command.sandbox.faults.add("users.create", status=429, headers={"retry-after": "600"}, nth=3)
    process = command.start(*arguments)
    while not spent.fired:
        time.sleep(0.02)

    started = time.monotonic()
    process.send_signal(number)
    ended = command.end(process)

    assert (ended.code, time.monotonic() - started < 100.0) == (3, True)
    assert "aiodbclient: the last request that failed: users.create: the API answered 429" in ended.err
    assert "aiodbclient: the rate limit allows the next request in " in ended.err
    assert "aiodbclient: stopped early: " in ended.err
    command.sandbox.faults.clear()
    assert command(*arguments).code == 0
    for name in names:
        assert command("users", "delete", name, "--cluster", command.cluster, "--yes").code == 0


def test_after_a_kill_the_next_run_goes_on(command: Command, names: list[str]) -> None:
    names = [f"{names[0]}-{number}" for number in range(MORE_THAN_AT_ONCE)]
    arguments = ["tenants", "provision", *from_file(command, names), *command.place]
    command.sandbox.faults.add("sql.statement", delay=SLOWLY)
    process = command.start(*arguments)
    wait_for(command, 2)

    process.kill()
    process.communicate()
    command.sandbox.faults.clear()

    planned = command("tenants", "plan", *from_file(command, names), *command.place)
    assert planned.code == 5
    assert "(unfinished, will be resumed)" in planned.out
    assert command(*arguments).code == 0
    assert set(on_record(command)) == set(names)


def test_names_that_fail_are_reported_and_the_others_are_done(command: Command, names: list[str]) -> None:
    assert command("users", "create", names[1], "--cluster", command.cluster).code == 0

    done = command("tenants", "provision", *names[:3], *command.place, "-o", "json")

    assert done.code == 1
    failed = {each["name"]: each for each in done.objects() if each["action"] == "failed"}
    assert set(failed) == {names[1]}
    assert failed[names[1]]["type"] == "NameTakenError"
    assert command("tenants", "provision", names[1], *command.place).err.startswith(f"{names[1]}: ")
    assert set(on_record(command)) == {names[0], names[2]}


def test_a_broken_pipe_stops_the_run_and_loses_nothing(command: Command, names: list[str]) -> None:
    names = [f"{names[0]}-{number}" for number in range(MORE_THAN_AT_ONCE)]
    command.sandbox.faults.add("sql.statement", delay=SLOWLY)
    process = command.start("tenants", "provision", *from_file(command, names), *command.place, "-o", "json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.stdout.close()
    process.stdout = None

    ended = command.end(process)

    assert ended.code == 3
    assert "stopped early" in ended.err
    assert first["name"] in on_record(command)
    assert len(on_record(command)) < len(names)
    command.sandbox.faults.clear()
    assert command("tenants", "provision", *from_file(command, names), *command.place).code == 0


def test_a_stopped_rotation_says_how_to_rotate_nothing_twice(command: Command, names: list[str]) -> None:
    names = [f"{names[0]}-{number}" for number in range(MORE_THAN_AT_ONCE)]
    assert command("tenants", "provision", *from_file(command, names), *command.place).code == 0
    command.sandbox.faults.add("sql.statement", delay=SLOWLY)
    before = on_record(command)
    process = command.start(
        "tenants", "rotate", *from_file(command, names), *command.place, "--force", "--yes", "-o", "json"
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    stopped = command.end(process)

    advice = stopped.err.rpartition("run it again: ")[2].partition('"')[0].strip()
    assert " --force --yes --json " in advice, stopped.err
    assert "--older-than" not in advice
    command.sandbox.faults.clear()
    rotated = on_record(command)[first["name"]]
    assert rotated != before[first["name"]]
    again = command(*shlex.split(advice)[1:])
    assert again.code == 0
    assert first["name"] not in {each["name"] for each in again.objects()}
    assert on_record(command)[first["name"]] == rotated


def test_a_full_disk_is_reported_in_one_line(command: Command, names: list[str]) -> None:
    """A credential that could not be printed is stored, so nothing is lost."""
    file, place = from_file(command, names[:2]), command.place
    assert command("tenants", "provision", names[2], *place).code == 0
    for arguments, complaint in (
        (["plan", *file], "No space left on device"),
        (["provision", *file], "are done, "),
        (["show", "--show", "-o", "json"], "No space left on device"),
        (["provision", *file, "--show", "-o", "json"], "are done, "),
    ):
        with Path("/dev/full").open("w") as full:
            done = command.end(command.start("tenants", *arguments, *place, stdout=full))
        assert (done.code, done.err.count("the standard output cannot")) == (4, 1), arguments
        assert "the standard output cannot be written: No space left on device" in done.err
        assert complaint in done.err
    assert set(on_record(command)) == set(names[:3])


def test_a_reader_that_has_gone_is_no_error(command: Command, names: list[str]) -> None:
    assert command("tenants", "provision", names[1], *command.place).code == 0
    for arguments in (
        ["clusters"],
        ["users", "list", "-o", "--cluster", command.cluster, "json"],
        ["tenants", "plan", names[0], *command.place],
    ):
        done = command.end(command.start(*arguments, stdout=pipe_without_reader()))
        assert (done.code, done.err) == (3, "")


def test_a_terminal_shows_a_bar_and_others_none(command: Command, names: list[str]) -> None:
    command.sandbox.faults.add("sql.statement", delay=0.1)
    arguments = ["tenants", "provision", *names[:8], *command.place]

    code, screen = command.terminal(*arguments, columns=90).end()

    assert code == 0
    assert "8/8" in screen
    assert "/min" in screen
    assert "8 created" in screen
    assert command(*arguments).err == ""


def test_a_plan_is_coloured_on_a_terminal_alone(command: Command, names: list[str]) -> None:
    arguments = ["tenants", "plan", names[0], *command.place]

    _, coloured = command.terminal(*arguments).end()
    _, plain = command.terminal(*arguments, NO_COLOR="1").end()

    assert f"\x1b[32m+ {names[0]}" in coloured
    assert "\x1b[32m" not in plain
    assert command(*arguments).out.startswith(f"+ {names[0]}\n")


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
        ["users", "delete", a, "--cluster", command.cluster],
        ["users", "reset", a, "--cluster", command.cluster, "--show"],
        ["dbs", "delete", a, "--cluster", command.cluster],
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
        done = command("users", verb, "documents", "doadmin", *(["--yes"] if verb == "reset" else []))
        sent = {request.operation for request in other.requests}

    assert (done.code, "--show" in done.err) == (2, True)
    assert sent == {"clusters.list"}


def test_a_password_that_could_not_be_printed_is_reported_and_can_be_reset(command: Command, names: list[str]) -> None:
    a = names[0]
    place = [command.cluster, a, "--show"]
    reset = f"aiodbclient users reset {command.cluster} {a} --show"
    for arguments, output, code, done in (
        (["create", *place], os.open("/dev/full", os.O_WRONLY), 4, f"the user {a} was created with a password"),
        (["reset", *place, "--yes"], pipe_without_reader(), 3, f"the user {a} has a new password"),
    ):
        failed = command.end(command.start("users", *arguments, stdout=output))
        assert (failed.code, failed.err.count("\n")) == (code, 1)
        assert f"{done}, which was not printed and is not stored" in failed.err
        assert f"Make another one: {reset}" in failed.err

    [user] = command(*reset.split()[1:], "--yes", "-o", "json").objects()
    assert user["password"].startswith("AVNS_")
    assert command("users", "delete", a, "--cluster", command.cluster, "--yes").code == 0


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


def test_names_come_from_the_standard_input_too(command: Command, names: list[str]) -> None:
    planned = command("tenants", "plan", "--from", "-", *command.place, given=f"name\n{names[0]}\n{names[1]}\n")

    assert (planned.code, planned.out.splitlines()[:2]) == (5, [f"+ {names[0]}", f"+ {names[1]}"])


def test_bad_usage_sends_nothing(command: Command, names: list[str]) -> None:
    file = from_file(command, ["a", "a"])
    several = command.folder / "several.csv"
    several.write_text("tenant,plan\nacme,gold\n")
    for arguments, complaint in (
        (["tenants", "plan", *command.place], "which tenants?"),
        (["tenants", "rotate", *command.place], "which tenants? Give their names, a file (--from names.csv), or --all"),
        (
            ["tenants", "exec", "a", "psql", "-c", "x"],
            "option: -c. Is it the program's? Then put -- before the program",
        ),
        (["tenants", "show", "-o", "xml", *command.place], "'-o': 'xml' is not one of"),
        (["tenants", "provision", "-", *command.place], "use --from -"),
        (["tenants", "plan", "--from", str(several), *command.place], "2 columns, and the first line"),
        (["users", "create", "-", "--cluster", command.cluster, "--show"], "'-' is not a name"),
        (["dbs", "create", "-", "--cluster", command.cluster], "'-' is not a name"),
        (["tenants", "plan", *file, *command.place], "line 3: 'a' is there twice, first in"),
        (["tenants", "plan", "b", *file, *command.place], "not both"),
        (["tenants", "plan", "b", "--cluster", command.cluster], "--store"),
        (["users", "list"], "CLUSTER"),
        (["nonsense"], "nonsense"),
    ):
        done = command(*arguments)
        assert (done.code, done.out) == (2, "")
        assert complaint in " ".join(done.err.split())
    assert command.sent() == []


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


def test_a_cluster_that_cannot_have_tenants_leaves_no_store_behind(command: Command) -> None:
    with Sandbox(windows=[]) as other:
        asyncio.run(other.add_cluster("redis", "cache"))
        asyncio.run(other.add_cluster("cockroach", "new"))
        command.environment |= {"DIGITALOCEAN_TOKEN": other.token, "DIGITALOCEAN_API_URL": other.url}
        for verb in ("plan", "provision", "rotate", "revoke-previous"):
            done = command("tenants", verb, "alpha", "--cluster", "cache", "--store", command.store)
            assert (done.code, done.out) == (2, "")
            assert "redis clusters have no user management" in done.err
        done = command("tenants", "provision", "alpha", "--cluster", "new", "--store", command.store)
        assert (done.code, done.out) == (2, "")
        assert "does not know the engine 'cockroach'" in done.err
        assert {request.operation for request in other.requests} == {"clusters.list"}
    assert not Path(command.store).exists()


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
        shown = command("tenants", "show", "--cluster", cluster, "--store", command.store, "-o", "json")
        assert shown.code == 0
        assert [each["name"] for each in shown.objects()] == [names[0]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    embedded = EmbeddedPostgres()
    asyncio.run(embedded.start())
    yield f"postgresql://{SUPERUSER}:{embedded.password}@127.0.0.1:{embedded.port}/postgres"
    asyncio.run(embedded.stop())


def test_two_machines_share_the_work_through_a_store_in_postgresql(
    command: Command, names: list[str], postgres: str
) -> None:
    command.environment["AIODBCLIENT_STORE"] = postgres
    for _ in range(2):  # the first command has not created the table
        planned = command("tenants", "plan", "a", "--cluster", command.cluster)
        assert (planned.code, "in PostgreSQL does not exist yet" in planned.err) == (5, True)
        listed = command("tenants", "list", "--cluster", command.cluster)
        assert (listed.code, "in PostgreSQL does not exist: check --store" in listed.err) == (4, True)
    arguments = ["tenants", "provision", *from_file(command, names), "--cluster", command.cluster, "-o", "json"]

    both = [command.end(process) for process in [command.start(*arguments), command.start(*arguments)]]

    assert [done.code for done in both] == [0, 0], both
    made = [each["name"] for done in both for each in done.objects() if each["action"] == "created"]
    assert sorted(made) == sorted(names)
    assert re.search(r"://\S+:\S+@", "".join(done.out + done.err for done in both)) is None


def test_commands_share_a_budget(command: Command) -> None:
    pytest.importorskip("valkey", reason="needs the valkey extra")
    from valkey_server import BINARY, ValkeyServer

    from ..requirements import no_server

    if BINARY is None:
        no_server("valkey", "there is no valkey-server: apt-get install valkey-server")
    with ValkeyServer() as server:
        command.environment["AIODBCLIENT_BUDGET"] = server.url
        for _ in range(2):
            assert command("clusters").code == 0
        keys = subprocess.run(
            ["valkey-cli", "-u", server.url, "--scan"], capture_output=True, text=True, check=True
        ).stdout
        assert "aiodbclient:" in keys
        assert command.sandbox.token not in keys


def test_commands_share_a_budget_in_postgresql(command: Command, postgres_url: str) -> None:
    command.environment["AIODBCLIENT_BUDGET"] = postgres_url
    for _ in range(2):
        assert command("clusters").code == 0
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("SELECT key, state FROM aiodbclient_budgets").fetchall()
    assert token_key(command.sandbox.token) in [key for key, _ in rows]
    assert command.sandbox.token not in str(rows)
