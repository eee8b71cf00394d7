"""What an operator expects who knows doctl, gh and kubectl: each removal asks, each advice works, nothing is silent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore
from aiodbclient.tenants._record import Intent, Verb

from ..thorough import first_of
from .conftest import COMMAND, Command, Done

LIMIT = """
import psycopg
query = "SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user"
print(psycopg.connect("").execute(query).fetchone()[0])
"""
_used = iter(range(10**6))


@pytest.fixture
def names() -> list[str]:
    """The test's own tenants on the shared server."""
    test = next(_used)
    return [f"op-{os.environ.get('PYTEST_XDIST_WORKER', 'w')}-{test}-{n}" for n in range(4)]


def provision(command: Command, *names: str) -> None:
    assert command("tenants", "provision", *names, *command.place).code == 0


def damage(command: Command, name: str) -> None:
    with closing(sqlite3.connect(command.store)) as store, store:
        store.execute("DROP TABLE IF EXISTS refusal")  # a copy of the store may have been its successor
        changed = store.execute("UPDATE credentials SET record = 'v1.plain.0.{}' WHERE name = ?", [name])
        assert changed.rowcount == 1


def test_remove_all_asks_for_more_than_a_y(command: Command, names: list[str]) -> None:
    provision(command, *names[:3])
    unbounded = command("tenants", "remove", "--all", *command.place, "--yes")
    assert (unbounded.code, "--yes needs --max N here. 3 would be removed now: aio" in unbounded.err) == (2, True)

    terminal = command.terminal("tenants", "remove", "--all", *command.place)
    terminal.expect("Type 3 or tenants-prod to go on: ")
    terminal.type("y\n")
    code, screen = terminal.end()
    assert (code, "stopped: nothing was changed" in screen) == (3, True)
    terminal = command.terminal("tenants", "remove", "--all", *command.place)
    terminal.expect("to go on: ")
    terminal.type("3\n")
    code, screen = terminal.end()

    assert code == 0
    assert all(f"{name}: deleted" in screen for name in names[:3])


def test_a_typo_in_remove_fails_and_is_named(command: Command, names: list[str]) -> None:
    a, typo = names[0], names[0].replace("0", "O")
    provision(command, a)

    wrong = command("tenants", "remove", typo, *command.place, "--yes")
    assert (wrong.code, wrong.out) == (1, "1 failed\n")
    assert wrong.err.startswith(f"{typo}: not on record. Did you mean {a}?\n")
    [failed] = command("tenants", "remove", typo, *command.place, "--yes", "-o", "json").objects()
    assert (failed["name"], failed["action"]) == (typo, "failed")
    done = command("tenants", "remove", a, typo, *command.place, "--yes", "--ignore-absent")
    assert (done.code, done.out) == (0, f"{a}: deleted\n1 absent, 1 deleted\n")


def test_users_apply_shows_its_plan_and_asks_for_all_but_creations(command: Command, names: list[str]) -> None:
    file = command.folder / "users.yaml"
    take = [command.cluster, "--from", str(file)]
    file.write_text("[]")
    for verb in ("plan", "apply"):
        refused = command("users", verb, *take, "--prune", *(["--yes"] if verb == "apply" else []))
        assert (refused.code, "lists nothing, and --prune would remove all" in refused.err) == (2, True)
    file.write_text(f"- {names[0]}\n")
    made = command("users", "apply", *take)
    assert (made.code, made.out.splitlines()[0], made.out.splitlines()[-1]) == (0, f"+ {names[0]}", "1 created")
    file.write_text(f"- name: {names[0]}\n  settings: {{pg_allow_replication: true}}\n")
    refused = command("users", "apply", *take)
    assert (refused.code, f"update {names[0]}? There is no terminal" in refused.err) == (2, True)
    assert refused.err.endswith(f"users apply {' '.join(take)} --yes. Nothing was changed\n")
    assert refused.out.startswith(f"~ {names[0]}\n    settings.pg_allow_replication")
    assert command("users", "delete", names[0], "--cluster", command.cluster, "--yes").code == 0


def test_rotate_and_retire_of_all_say_what_will_end(command: Command, names: list[str]) -> None:
    provision(command, *names[:2])
    assert command("tenants", "rotate", names[0], *command.place).code == 0
    for verb, question in (
        ("rotate", "Give 1 login on tenants-prod new credentials? The old ones keep working. [y/N]"),
        ("revoke-previous", f"Retire the previous logins of {names[0]} on tenants-prod, and end their sessions?"),
    ):
        terminal = command.terminal("tenants", verb, "--all", *command.place, columns=200)
        assert question in terminal.expect("[y/N]")
        terminal.type("n\n")
        assert terminal.end()[0] == 3
    assert command("tenants", "revoke-previous", "--all", *command.place, "--yes").out == "1 kept, 1 revoked\n"
    forgotten = command("tenants", "revoke-previous", "--all", *command.place)  # in cron it fails before anything is due
    assert (forgotten.code, "Retire the previous logins of no tenant" in forgotten.err) == (2, True)


def test_all_roles_are_rotated_and_retired_at_once(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    provision(command, a, b)
    assert command("tenants", "provision", a, *command.place, "--role", "reader").code == 0
    rotated = command("tenants", "rotate", a, b, *command.place, "--role", "all", "-o", "json")
    assert sorted((each["name"], each["role"]) for each in rotated.objects()) == [
        (a, "owner"),
        (a, "reader"),
        (b, "owner"),
    ]
    assert command("tenants", "revoke-previous", "--all", *command.place, "--role", "all", "--yes").out == "3 revoked\n"
    lacking = command("tenants", "rotate", b, *command.place, "--role", "reader")
    assert (lacking.code, f"{b}: it has no reader" in lacking.err) == (1, True)


def run_suggested(command: Command, more: str, *options: str) -> set[str]:
    """Run every command that a screen suggested. Returns which commands these were."""
    found = re.findall(
        r"`(aiodbclient [^`\n]+)`|: ((?:export|aiodbclient) .+?)(?:\. |\n|$)", "".join([*command.printed, more])
    )
    suggested = sorted({quoted or last for quoted, last in found})
    path = f"{Path(COMMAND).parent}:{command.environment['PATH']}"
    for each in suggested:
        if each.startswith("export"):
            subprocess.run(["bash", "-ec", each], env=command.environment | {"PATH": path}, check=True)
            continue
        done = command(*shlex.split(each)[1:], *options, shows=True)
        assert done.code in (0, 1, 5), (each, done.err)
    return {" ".join(re.sub(".*aiodbclient ", "", each).split()[:2]) for each in suggested}


def test_every_suggested_command_works(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]
    provision(command, a, b, c)
    shows = ["--cluster", command.cluster]
    command("tenants", "check", a, *command.place, "--role", "reader")
    command("tenants", "exec", a, *command.place, "--role", "writer", "--", "true")
    assert command("users", "delete", *shows, b, "--yes").code == 0
    command("tenants", "check", *command.place)
    command("tenants", "plan", a, b, *command.place, "--refresh")
    command.leave(c, Verb.ROTATE)
    command("tenants", "check", c, *command.place)
    command.sandbox.faults.add("users.create", cut=True, times=1)
    lost = command("users", "create", f"{a}-user", "--cluster", command.cluster, "--show")
    command("users", "create", f"{a}-other", "--cluster", command.cluster)
    command("clusters", "get", "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30")
    command("tenants", "plan", a, "--cluster", command.cluster, "--store", str(command.folder / "new.db"))
    command("nonsense")
    verbs = run_suggested(command, lost.err)
    assert verbs >= {
        *("tenants provision", "tenants repair", "tenants check", "tenants list", "users get"),
        *("clusters list", "store copy"),
    }
    assert {each["name"] for each in command("store", "list", command.store, "-o", "json").objects()} == {a, b, c}
    encrypted = Path(command.store).with_name("tenants-encrypted.db").read_bytes()
    assert (a.encode() in encrypted, b"AVNS_" in encrypted) == (True, False)
    key = Path(command.store).with_name("tenants.key")
    assert key.stat().st_mode & 0o777 == 0o600
    with patch.dict(command.environment, {"AIODBCLIENT_STORE_KEY": key.read_text().strip()}):
        copied = ["--cluster", command.cluster, "--store", str(Path(command.store).with_name("tenants-encrypted.db"))]
        assert command("tenants", "show", a, *copied).code == 0
    command.printed.clear()
    damage(command, a)
    command("tenants", "list", *command.place)
    assert run_suggested(command, "", "--yes") == {"store forget"}
    for name in (f"{a}-user", f"{a}-other", a):
        command("users", "delete", name, "--cluster", command.cluster, "--yes")
    command("dbs", "delete", a, "--cluster", command.cluster, "--yes")


def test_check_beside_a_running_rotation_is_no_problem(command: Command, names: list[str]) -> None:
    a = names[0]
    provision(command, a)
    command.leave(a, Verb.ROTATE)

    async def beside() -> tuple[Done, Done]:
        async with SQLiteStore(command.store) as store:
            assert await store.claim(a, 600.0) is not None
            checks = [command.process("tenants", "check", *command.place, *more) for more in ([], ["-o", "json"])]
        return checks[0], checks[1]

    checked, as_json = asyncio.run(beside())
    objects = as_json.objects()

    assert (checked.code, checked.out) == (0, f"{a}: in progress\n1 checked: all well\n")
    assert [(each["state"], each["problems"]) for each in objects] == [("in progress", [])]
    command.sandbox.faults.clear()
    assert command("tenants", "check", *command.place).out.startswith(f"{a}: unfinished\n")


def test_a_plan_counts_what_it_leaves_alone(command: Command, names: list[str]) -> None:
    provision(command, *names)
    planned = command("tenants", "plan", names[0], *command.place)
    assert (planned.code, planned.out) == (
        0,
        "0 to create, 0 to resume, 0 to remove, 1 to keep, 3 others on record left alone\n",
    )


def test_tables_fit_and_programs_get_the_same_members(command: Command, names: list[str]) -> None:
    a = names[0]
    provision(command, a)
    assert command("tenants", "rotate", a, *command.place).code == 0
    for columns in (50, 80):
        code, screen = command.terminal("tenants", "list", *command.place, columns=columns, NO_COLOR="1").end()
        lines = screen.replace("\r", "").splitlines()
        assert (code, len(lines), max(map(len, lines)) <= columns) == (0, 2, True)
        assert lines[0].split()[:5] == ["name", "role", "state", "age", "pending"]
        assert re.fullmatch(rf"{a} +owner +ready +\d+s +retire.*", lines[1])
    wide = command("tenants", "list", *command.place, "-o", "wide").out.splitlines()
    assert wide[0].split()[-1] == "since"
    listed, [shown], [checked] = (
        command("tenants", verb, *command.place, "-o", "json").objects() for verb in ("list", "show", "check")
    )
    for member in ("username", "since"):
        assert listed[0][member] == shown[member] == checked[member]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", shown["since"])


@pytest.mark.parametrize("columns", [80, 0])  # 0: nobody said how wide it is
def test_a_message_is_broken_between_words_and_a_command_is_whole(
    command: Command, names: list[str], columns: int
) -> None:
    code, screen = command.terminal("tenants", "provision", names[0], *command.place, columns=columns).end()
    lines = screen[: screen.index("tee")].split("\r\n")
    assert code == 0
    assert lines[0].startswith("aiodbclient: the new store")
    assert all(len(line) <= 80 or "/" in line for line in lines[:-1])
    assert lines[-1].startswith("export AIODBCLIENT_STORE_KEY_TO=$(umask 077; aiodbclient store keygen | ")
    assert "Then use the copy with the key in " in " ".join(screen.split())
    command("tenants", "remove", names[0], *command.place, "--yes")


def test_output_is_json_wherever_asked_and_conflicts_are_errors(command: Command, names: list[str]) -> None:
    a = names[0]
    assert command("users", "create", a, "--cluster", command.cluster, "--show", "-o", "json").objects()[0]["name"] == a
    assert command("users", "delete", a, "--cluster", command.cluster, "--yes", "-o", "json").objects() == [
        {"name": a, "action": "deleted"}
    ]
    assert command("dbs", "create", a, "--cluster", command.cluster, "-o", "json").objects() == [{"name": a, "action": "created"}]
    assert command("dbs", "delete", a, "--cluster", command.cluster, "--yes", "-o", "json").objects() == [
        {"name": a, "action": "deleted"}
    ]
    for arguments in (["tenants", "show", *command.place, "-o", "uri", "-o", "json"], ["clusters", "-o", "wide", "-o", "json"]):
        refused = command(*arguments)
        assert (refused.code, "are different: give one of them" in refused.err) == (2, True)
    assert json.loads(command("users", "list", "nowhere", "-o", "json").err)["exit_code"] == 2


def test_the_cluster_is_an_argument_and_an_option_everywhere(command: Command, names: list[str]) -> None:
    a, cluster = names[0], command.cluster
    store = ["--store", command.store]
    assert command("users", "list", "--cluster", cluster).out == command("users", "list", cluster).out
    assert command("dbs", "get", "defaultdb", "--cluster", cluster).code == 0
    assert command("tenants", "provision", a, "--cluster", cluster, *store).out == "1 created\n"
    assert command("doctor", "--cluster", cluster).code == 0
    both = command("users", "get", cluster, "doadmin", "extra", "--cluster", cluster)
    assert (both.code, "unexpected extra argument" in both.err) == (2, True)
    command.environment["AIODBCLIENT_CLUSTER"] = "another"
    assert command("users", "get", cluster, "doadmin").code == 0
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


@pytest.mark.parametrize("terminal", first_of([True, False]))
def test_a_hanging_api_is_said_and_can_be_bounded(command: Command, terminal: bool) -> None:
    command.sandbox.faults.add("clusters.list", delay=60.0)
    seconds = 9 if terminal else 4  # what is waited for is said after three
    arguments = ["clusters", "list", "--timeout", f"{seconds}s"]
    if terminal:
        code, screen = command.terminal(*arguments).end()
        assert "waiting for the API: 3s" in screen
    else:
        done = command.process(*arguments)
        code, screen = done.code, done.err
        assert done.out == ""
    assert (code, f"no answer within --timeout {seconds}s" in screen) == (4, True)


def test_errors_are_without_internals(command: Command, names: list[str]) -> None:
    a = names[0]
    provision(command, a)
    for arguments, code, error in (
        (["users", "get", "nobody", "--cluster", command.cluster], 1, "no user nobody on tenants-prod"),
        (["dbs", "delete", "nothing", "--cluster", command.cluster, "--yes"], 1, "no db nothing on tenants-prod"),
        (["store", "copy", "nosuch.db", "other.db"], 4, "the store nosuch.db does not exist: check STORE."),
        (["tenants", "exec", a, *command.place, "--role", "reader", "--", "true"], 1, f"{a}: it has no reader"),
    ):
        done = command(*arguments)
        assert (done.code, done.err.startswith(f"aiodbclient: {error}")) == (code, True), done.err
    command.environment["DIGITALOCEAN_TOKEN"] = "hunter2-wrong"
    refused = command("clusters").err
    assert refused.startswith("aiodbclient: the API answered 401 ")
    assert "Unable to authenticate you: $DIGITALOCEAN_TOKEN is wrong, expired or revoked. Make" in refused
    command.environment["AIODBCLIENT_STORE_KEY"] = command("store", "keygen", shows=True).out.strip()
    lost = command("store", "list", command.store)
    assert (lost.code, "If its key is lost, provision" in lost.err) == (4, True)
    assert "key=" not in lost.err
    del command.environment["AIODBCLIENT_STORE_KEY"]
    command.environment["DIGITALOCEAN_TOKEN"] = command.sandbox.token


def test_no_connection_is_said_in_plain_words(command: Command) -> None:
    with Sandbox(windows=[]) as gone:
        command.environment["DIGITALOCEAN_API_URL"] = gone.url
    done = command("clusters")
    assert (done.code, "Connection refused" in done.err) == (4, True)
    assert re.search("ssl:|ClientConnector", done.err) is None


def test_one_damaged_record_does_not_stop_the_others(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]
    provision(command, a, b, c)
    damage(command, b)
    target = str(command.folder / "target.db")

    for arguments in (["tenants", "list", *command.place], ["store", "list", command.store]):
        done = command(*arguments)
        assert (done.code, a in done.out, c in done.out) == (4, True, True)
        assert f"{b}: its record is damaged. Restore the store, or remove it: aiodbclient store forget" in done.err
    checked = command("tenants", "check", *command.place)
    assert (checked.code, checked.out.splitlines()[-1]) == (4, "2 checked: all well")
    assert command("store", "copy", command.store, target).code == 4
    assert {each["name"] for each in command("store", "list", target, "-o", "json").objects()} == {a, c}
    asked = command("store", "forget", command.store, b)
    assert (asked.code, "Its password is lost" in asked.err) == (2, True)
    assert command("store", "forget", command.store, b, "--yes").out == f"{b}: forgotten\n"
    again = command("store", "forget", command.store, b, "--yes")
    assert (again.code, "is not on record" in again.err) == (4, True)
    assert command("tenants", "check", *command.place).code == 0
    for delete in (["users", "delete"], ["dbs", "delete"]):
        assert command(*delete, command.cluster, b, "--yes").code == 0


@pytest.mark.parametrize("shell", first_of(["bash", "zsh", "fish"]))
def test_completion_offers_safe_names_and_no_files(command: Command, shell: str, names: list[str]) -> None:
    other = f"{names[0]}.b-2"
    provision(command, names[0], other)
    command.environment |= {"AIODBCLIENT_STORE": command.store}

    def completed(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = command.environment | {
            "_AIODBCLIENT_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        return subprocess.run([COMMAND], env=environment | more, capture_output=True, text=True, check=False)

    for _ in range(20):  # it gives up after two seconds, so on a busy machine one presses TAB again
        tenants = completed("aiodbclient tenants show op-")
        if other in tenants.stdout:
            break
    assert (tenants.returncode, names[0] in tenants.stdout, other in tenants.stdout) == (0, True, True)
    # Where it gets no word, bash offers files. It inserts neither of two words that begin differently.
    expected = "(no name is known here)" if shell == "bash" else ""
    assert completed("aiodbclient users list ").stdout.strip() == expected
    if shell == "fish":
        assert completed("aiodbclient users list ", _TYPER_COMPLETE_FISH_ACTION="is-args").returncode == 0
    for option in ("--show-completion", "--install-completion"):
        arguments = [COMMAND, option, *([shell] if option == "--none" else [])]
        home = command.environment | {"HOME": str(command.folder), "SHELL": f"/bin/{shell}"}
        line = " ".join(map(shlex.quote, arguments))
        done = subprocess.run(["bash", "-c", f"{line}; exit $?"], env=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_no_two_logins_share_a_secret(command: Command, names: list[str]) -> None:
    a = names[0]
    alike = [a, f"{a}-reader", a.upper(), f"{a}_"]
    provision(command, *alike)
    assert command("tenants", "provision", a, *command.place, "--role", "reader").code == 0
    secrets = [
        found
        for role in ("owner", "reader")
        for found in re.findall(
            r"^  name: (\S+)$",
            command("tenants", "show", *command.place, "--role", role, "-o", "k8s", shows=True).out,
            re.MULTILINE,
        )
    ]
    assert len(set(secrets)) == len(secrets) == 5
    assert all(re.fullmatch(r"op-[a-z0-9-]+-[0-9a-f]{16}", each) for each in secrets)


def test_users_apply_loses_no_password_on_mongodb(command: Command) -> None:
    with Sandbox(windows=[]) as other:
        asyncio.run(other.add_cluster("mongodb", "docs"))
        command.environment |= {"DIGITALOCEAN_TOKEN": other.token, "DIGITALOCEAN_API_URL": other.url}
        file = command.folder / "users.yaml"
        file.write_text("- ann\n")
        refused = command("users", "apply", "docs", "--from", str(file))
        assert (refused.code, "the passwords of ann would be lost" in refused.err) == (2, True)
        assert "users.create" not in {request.operation for request in other.requests}
        assert command("users", "apply", "docs", "--from", str(file), "--show", shows=True).code == 0


def test_a_sandbox_without_limits_is_not_paced(command: Command) -> None:
    assert command("clusters", "--budget", "none").code == 0
    command.environment["DIGITALOCEAN_API_URL"] = "https://api.example.com"
    refused = command("clusters", "--budget", "none")
    assert (refused.code, "is for a sandbox on this machine" in refused.err) == (2, True)


def test_the_connection_limit_is_an_option(command: Command, names: list[str]) -> None:
    provision(command, names[0])
    assert command("tenants", "provision", names[1], *command.place, "--connection-limit", "7").code == 0
    ran = command.process("tenants", "exec", names[1], *command.place, "--", sys.executable, "-c", LIMIT)
    assert ran.out == "7\n"


async def test_a_waiting_store_is_released_by_check(command: Command, names: list[str]) -> None:
    """``check`` claims an unfinished tenant for a moment, to see whether somebody works on it."""
    async with SQLiteStore(Path(command.store)) as store:
        claim = await store.claim(names[0], 60.0)
        assert claim is not None
        [cluster] = command.sandbox.clusters
        await store.begin(claim, str(Intent(Verb.PROVISION, names[0], cluster)))
        await store.release(claim)
    checked = await asyncio.to_thread(command.process, "tenants", "check", *command.place)
    assert (checked.code, checked.out.splitlines()[0]) == (5, f"{names[0]}: unfinished")
    async with SQLiteStore(Path(command.store)) as store:
        claim = await store.claim(names[0], 60.0)
        assert claim is not None
        await store.commit(claim, None)
