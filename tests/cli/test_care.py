"""Daily operations: check, repair, rotate by age, adopt, and run programs with a credential."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attrs import evolve

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore
from aiodbclient.tenants._record import Verb

from .conftest import COMMAND, Command

_used = iter(range(10**6))


@pytest.fixture
def sandbox(sandbox_with_tls: Sandbox) -> Sandbox:
    return sandbox_with_tls


@pytest.fixture
def names() -> list[str]:
    """The test's own tenants on the shared server."""
    test = next(_used)
    return [f"care-{os.environ.get('PYTEST_XDIST_WORKER', 'w')}-{test}-{n}" for n in range(4)]


def delete_login(command: Command, name: str) -> None:
    async def delete() -> None:
        async with DatabaseClient(command.sandbox.token, base_url=command.sandbox.url) as client:
            [cluster_id] = [id for id, name in command.sandbox.clusters.items() if name == command.cluster]
            await client.cluster(cluster_id).users.delete(name)

    asyncio.run(delete())


def test_problems_are_found_and_repaired(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    assert command("tenants", "provision", a, b, *command.place).code == 0
    assert command("tenants", "check", *command.place).out == "2 checked: all well\n"
    delete_login(command, b)

    found = command("tenants", "check", *command.place)
    assert (found.code, found.out) == (5, f"{b}: login_missing\n2 checked\n")
    assert found.err.startswith(
        f"aiodbclient: 1 with problems. To repair them: aiodbclient tenants repair {b} --cluster "
    )
    table = command("tenants", "check", *command.place, "--output", "table").out
    lines = [line.split()[:3] for line in table.splitlines()]
    assert lines[:2] == [["2", "checked"], ["name", "role", "state"]]
    assert sorted(lines[2:]) == [[a, "owner", "ok"], [b, "owner", "problems"]]
    objects = {each["name"]: each for each in command("tenants", "check", *command.place, "-o", "json").objects()}
    assert objects[a]["problems"] == []
    assert objects[b]["problems"] == ["login_missing"]
    planned = command("tenants", "plan", a, b, *command.place, "--refresh")
    assert (planned.code, planned.out.splitlines()[0]) == (
        5,
        f"~ {b} (has problems)",
    )
    assert f"to see the problems: aiodbclient tenants check {b} --cluster" in planned.err

    repaired = command("tenants", "repair", "--all", *command.place)
    assert (repaired.code, repaired.out) == (
        0,
        f"{b}: repaired: login_missing (new credential: deliver it)\n1 kept, 1 repaired\n",
    )
    assert command("tenants", "check", a, b, *command.place).code == 0
    assert command("tenants", "remove", "--all", *command.place, "--max", "1", "--yes").code == 2
    assert command("tenants", "remove", "--all", *command.place, "--max", "2", "--yes").out.endswith("\n2 deleted\n")
    assert command("tenants", "list", *command.place).err.endswith("has no tenants\n")


def test_rotation_by_age(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    assert command("tenants", "provision", a, b, *command.place).code == 0

    everybody = ["--all", "--yes", *command.place]
    assert command("tenants", "rotate", *everybody, "--older-than", "1h").out == "2 kept\n"
    assert command("tenants", "rotate", a, "--older-than", "0s", *command.place).out == "1 rotated\n"
    again = command("tenants", "rotate", *everybody)
    assert (again.code, again.out) == (0, "1 rotated\n")
    assert again.err == "aiodbclient: rotated within the last hour, and left alone until `retire`: 1\n"
    assert command("tenants", "revoke-previous", *everybody, "--older-than", "1d").out == "2 kept\n"
    assert command("tenants", "rotate", a, "--force", *command.place, "--yes").out == "1 rotated\n"
    listed = {each["name"]: each for each in command("tenants", "list", *command.place, "-o", "json").objects()}
    assert (listed[a]["state"], listed[a]["pending"]) == ("ready", "revoke-previous")
    assert command("tenants", "revoke-previous", *everybody, "--yes").out == "2 revoked\n"
    for wrong in ("30", "d", "30x", "1d 2h", "-1d"):
        refused = command("tenants", "rotate", "--all", f"--older-than={wrong}", *command.place)
        assert (refused.code, "takes a duration such as 30d" in refused.err) == (2, True)
    assert command("tenants", "remove", *everybody, "--max", "2").code == 0


def test_what_was_stopped_is_listed_with_the_command_that_finishes_it(command: Command, names: list[str]) -> None:
    a = names[0]

    def pending() -> object:
        [listed] = command("tenants", "list", *command.place, "-o", "json").objects()
        return listed["pending"]

    assert command("tenants", "provision", a, *command.place).code == 0
    command.leave(a, Verb.ROTATE)
    assert pending() == "rotate"
    checked = command("tenants", "check", *command.place)
    assert checked.out.splitlines()[0] == f"{a}: unfinished"
    assert "to see which command finishes what was begun: aiodbclient tenants list --cluster" in checked.err

    assert command("tenants", "rotate", a, *command.place).out == "1 rotated\n"
    assert pending() == "revoke-previous"
    assert command("tenants", "revoke-previous", a, *command.place, "--yes").out == "1 revoked\n"
    assert pending() is None
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


def test_all_names_that_cannot_be_tenants_are_listed(command: Command) -> None:
    file = command.folder / "names.csv"
    file.write_text("name\npg_a\nalpha\npostgres\n")
    for arguments in (["plan"], ["provision", "--prune"]):
        refused = command("tenants", *arguments, "--from", str(file), *command.place)
        assert (refused.code, refused.out) == (2, "")
        assert "names.csv, line 2: 'pg_a' is invalid" in refused.err
        assert "names.csv, line 4: 'postgres' is invalid" in refused.err
    assert {operation for operation, _ in command.sent()} == {"clusters.list"}


def test_a_ca_file_that_never_ends_is_refused(command: Command, names: list[str]) -> None:
    a = names[0]
    assert command("tenants", "provision", a, *command.place).code == 0
    refused = command("tenants", "show", a, *command.place, "--output", "uri", "--ca-file", "/dev/zero")
    assert (refused.code, "--ca-file: /dev/zero is not a regular file" in refused.err) == (2, True)
    link = command.folder / "ca.pem"
    link.symlink_to(command.folder / "elsewhere")
    refused = command("tenants", "show", a, *command.place, "--output", "uri", "--ca-file", str(link))
    assert (refused.code, f"--ca-file: cannot use {link}" in refused.err) == (2, True)
    assert not (command.folder / "elsewhere").exists()
    if os.geteuid() == 0:
        os.chown(link, 65534, 65534, follow_symlinks=False)
        refused = command("tenants", "show", a, *command.place, "--output", "uri", "--ca-file", str(link))
        assert (refused.code, f"--ca-file: {link} is another user's link" in refused.err) == (2, True)
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


def test_nothing_is_taken_over_unasked(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    assert command("users", "create", a, "--cluster", command.cluster, "--show").code == 0

    planned = command("tenants", "plan", a, b, *command.place)
    assert planned.code == 5
    assert planned.out.splitlines()[:2] == [
        f"+ {b}",
        f"! {a} (in conflict: its login or database exists and is not on record; --adopt takes it over)",
    ]
    refused = command("tenants", "provision", a, b, *command.place)
    assert (refused.code, refused.out) == (1, "1 created, 1 failed\n")
    assert command("tenants", "plan", a, *command.place, "--adopt").out.startswith(f"+ {a} (adopted: ")
    assert command("tenants", "provision", a, "--adopt", *command.place, "--yes").out == "1 adopted\n"
    assert command("tenants", "remove", a, b, *command.place, "--yes").code == 0


def test_the_tenant_of_another_store_is_taken_over_only_after_a_question(command: Command, names: list[str]) -> None:
    """A store that is named by mistake has no tenants, so each tenant of the right store could be taken over."""
    a, b = names[:2]
    command.provision(a)
    other, fourth = (["--cluster", command.cluster, "--store", str(command.folder / f"{each}.db")] for each in "of")
    adopt = ["tenants", "provision", a, b, "--adopt", *other]
    question = f"1 exists already and is not on record in the store {other[-1]}: {a}. Another store may own it."

    async def claim() -> None:  # as a process does that is killed before it began anything
        async with SQLiteStore(other[-1]) as store:
            await store.claim(a, 0.01)

    asyncio.run(claim())
    refused = command(*adopt)
    assert (refused.code, refused.out) == (2, "")
    assert question in refused.err
    assert refused.err.endswith(f"{' '.join(adopt)} --yes. Nothing was changed\n")
    asked = command.terminal(*adopt, columns=400)
    asked.expect("[y/N]")
    asked.type("n\n")
    assert (asked.end()[0], question in asked.seen) == (3, True)
    pruned = command(*adopt, "--prune")
    assert (pruned.code, question in pruned.err) == (2, True)
    assert command("tenants", "check", a, *command.place).out == "1 checked: all well\n"

    # What is new or on record is no question.
    assert command("tenants", "provision", b, "--adopt", *other).out == "1 created\n"
    assert command("tenants", "provision", b, "--adopt", *other).out == "1 kept\n"
    assert command(*adopt, "--yes").out == "1 adopted, 1 kept\n"

    # Now both logins of it exist, and a third store can add none.
    full = command("tenants", "provision", a, "--adopt", *fourth, "--yes")
    assert (full.code, full.out) == (1, "1 failed\n")
    assert f"{a}: not on record in the store {fourth[-1]}. If another store owns it, use that store." in full.err
    assert "To finish" not in full.err
    assert command("tenants", "remove", a, b, *other, "--yes").code == 0


def test_a_role_has_logins_of_its_own(command: Command, names: list[str]) -> None:
    a = names[0]
    assert command("tenants", "provision", a, *command.place).code == 0
    assert command("tenants", "provision", a, "--role", "reader", *command.place).out == "1 created\n"

    roles = [(each["name"], each["role"]) for each in command("tenants", "list", *command.place, "-o", "json").objects()]
    assert roles == [(a, "owner"), (a, "reader")]
    [reader] = command("tenants", "show", "--role", "reader", *command.place, "-o", "json").objects()
    assert (reader["name"], reader["role"], reader["database"]) == (a, "reader", a)
    assert reader["username"] != a
    assert command("tenants", "rotate", a, "--role", "reader", *command.place).out == "1 rotated\n"
    assert command("tenants", "check", "--role", "reader", *command.place).code == 0
    removed = command("tenants", "remove", a, "--role", "reader", *command.place, "--yes")
    assert removed.out == f"{a} (reader): deleted\n1 deleted\n"
    assert (
        command("tenants", "remove", a, "--keep-database", *command.place, "--yes").out == f"{a}: deleted\n1 deleted\n"
    )
    assert a in command("dbs", "list", "--cluster", command.cluster).out
    assert command("dbs", "delete", a, "--cluster", command.cluster, "--yes").code == 0


def test_show_gives_a_credential_in_the_form_that_programs_take(command: Command, names: list[str]) -> None:
    a = names[0]
    assert command("tenants", "provision", a, *command.place).code == 0
    ca_file = command.folder / "ca.pem"
    verified = [*command.place, "--ca-file", str(ca_file)]
    [shown] = command("tenants", "show", a, *command.place, "--show", "-o", "json").objects()
    [masked] = command("tenants", "show", a, *command.place, "-o", "json").objects()
    assert set(shown) - set(masked) == {"password", "uri", "ca"}

    unverified = command("tenants", "show", a, *command.place, "--output", "uri", shows=True)
    assert unverified.out == f"{shown['uri']}\n"
    assert "do not verify the server: for that, add --ca-file" in unverified.err

    uri = command("tenants", "show", a, *verified, "--output", "uri", shows=True)
    assert (uri.err, ca_file.read_text()) == ("", shown["ca"])
    assert f"sslmode=verify-full&sslrootcert={ca_file}" in uri.out
    for exports, environment in (
        (command("tenants", "show", a, *verified, "--output", "sh", shows=True).out, {}),
        (f"URI={uri.out}", {"URI": uri.out.strip()}),
    ):
        if not environment:
            script = f"{exports}exec {sys.executable} -c 'import psycopg; psycopg.connect(\"\")'"
        else:
            script = f"exec {sys.executable} -c 'import os, psycopg; psycopg.connect(os.environ[\"URI\"])'"
        subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]} | environment, check=True)

    import yaml

    secret = yaml.safe_load(
        command("tenants", "show", a, *command.place, "-o", "k8s", "--ca-file", "/tls/ca.crt", shows=True).out
    )
    assert secret["kind"] == "Secret"
    data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert data["ca.crt"] == shown["ca"]
    assert (data["PGPASSWORD"], data["PGSSLROOTCERT"]) == (shown["password"], "/tls/ca.crt")

    ca_file.write_text("something else")
    refused = command("tenants", "show", a, *verified, "--output", "uri")
    assert (refused.code, "holds something else" in refused.err) == (2, True)
    both = command("tenants", "show", *command.place, "--output", "env")
    assert (both.code, "give one name" in both.err) == (2, True)
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


def test_show_works_without_json(command: Command, names: list[str]) -> None:
    a = names[0]
    made = command("tenants", "provision", a, *command.place, "--show")
    rotated = command("tenants", "rotate", a, *command.place, "--show")
    for done, action in ((made, "created"), (rotated, "rotated")):
        lines = dict(line.split(": ", 1) for line in done.out.splitlines() if ": " in line)
        assert lines["name"] == a
        assert lines["password"] in lines["uri"]
        assert done.out.endswith(f"1 {action}\n")
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


SAY_WHO = (
    "import os, psycopg\n"
    "secrets = {'AIODBCLIENT_STORE_KEY', 'AIODBCLIENT_CLUSTER', 'DIGITALOCEAN_TOKEN'} & set(os.environ)\n"
    "with psycopg.connect('') as c:\n"
    "    print(c.execute('select session_user').fetchone()[0], os.environ['PGSSLMODE'], sorted(secrets))\n"
    "raise SystemExit(7)\n"
)


def test_exec_gives_a_program_the_credential_by_its_environment(command: Command, names: list[str]) -> None:
    a = names[0]
    assert command("tenants", "provision", a, *command.place).code == 0
    command.environment["AIODBCLIENT_CLUSTER"] = command.cluster
    closed = command.folder / "closed"  # only root may search it
    closed.mkdir(mode=0)
    command.environment["PATH"] = f"{closed}:{os.environ['PATH']}"

    ran = command.process("tenants", "exec", a, *command.place, "--", sys.executable, "-c", SAY_WHO)
    assert (ran.code, ran.out, ran.err) == (7, f"{a} verify-full []\n", "")
    for arguments, code, complaint in (
        ([names[1], *command.place, "--", "true"], 1, f"not on record. Did you mean {a}?"),
        ([a, *command.place, "--", "no-such-program"], 127, "no-such-program: no such program"),
        ([a, *command.place, "--", "/"], 126, "/: Permission denied"),
        ([a, *command.place], 2, "PROGRAM"),
    ):
        failed = command("tenants", "exec", *arguments)
        assert (failed.code, failed.out) == (code, "")
        assert complaint in failed.err
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_exec_passes_signals_on_and_leaves_no_file(command: Command, names: list[str], number: signal.Signals) -> None:
    a = names[0]
    assert command("tenants", "provision", a, *command.place).code == 0
    program = "import os, time; print(os.environ['PGSSLROOTCERT'], flush=True); time.sleep(600)"
    process = command.start("tenants", "exec", a, *command.place, "--", sys.executable, "-c", program)
    assert process.stdout is not None
    ca_file = Path(process.stdout.readline().strip())
    assert ca_file.exists()

    process.send_signal(number)
    process.wait(100)

    assert process.returncode == 128 + number
    assert not ca_file.exists()
    process.communicate()
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


def test_exec_passes_on_a_signal_that_comes_as_the_program_starts(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    program = ["/bin/sh", "-c", "kill -TERM $PPID; exec sleep 60"]
    assert command.process("tenants", "exec", names[0], *command.place, "--", *program).code == 128 + signal.SIGTERM


def test_ctrl_c_on_a_read_says_nothing_of_writes(command: Command) -> None:
    delayed = command.sandbox.faults.add("users.list", delay=300.0)
    process = command.start("users", "list", "--cluster", command.cluster)
    while not delayed.fired:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    ended = command.end(process)
    assert (ended.code, ended.err) == (3, "aiodbclient: stopped\n")


def test_the_shell_completes_tenants_from_the_store(command: Command, names: list[str]) -> None:
    a = names[0]
    assert command("tenants", "provision", a, *command.place).code == 0
    command.environment |= {"AIODBCLIENT_STORE": command.store, "AIODBCLIENT_CLUSTER": command.cluster}
    before = len(command.sent())

    def completes(line: str, words: str) -> bool:
        """Whether a TAB shows this. It gives up after two seconds, so on a busy machine one presses it again."""
        return any(" ".join(completed(line)) == words for _ in range(20))

    def completed(line: str) -> list[str]:
        words = line.split(" ")
        environment = command.environment | {
            "_AIODBCLIENT_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout.split()

    assert completes("aiodbclient tenants show ca", a)
    assert completes("aiodbclient tenants exec ca", a)
    assert completes("aiodbclient users list ", command.cluster)
    assert completed("aiodbclient tenants rot") == ["rotate"]
    assert len(command.sent()) == before
    command.environment["AIODBCLIENT_COMPLETE_CLUSTERS"] = "1"
    assert completes("aiodbclient users list ten", command.cluster)
    assert len(command.sent()) > before
    command.environment["AIODBCLIENT_STORE"] = "/nowhere/tenants.db"
    assert " ".join(completed("aiodbclient tenants show ca")) == "(no name is known here)"
    assert command("tenants", "remove", a, *command.place, "--yes").code == 0


def test_a_forgotten_prefix_is_not_found_well(command: Command, names: list[str]) -> None:
    prefix = f"{names[0].replace('-', '_')}_"
    assert command("tenants", "provision", "a", "b", "--prefix", prefix, *command.place).code == 0
    for arguments in (["check"], ["rotate", "--all", "--yes"], ["exec", "--all", "--", "true"]):
        done = command("tenants", *arguments[:1], *command.place, *arguments[1:])
        assert (done.code, done.out) == (2, ""), done
        assert f"has tenants of tenants-prod with another prefix alone: use --prefix {prefix}" in done.err
    assert f"use --prefix {prefix}" in command("tenants", "list", *command.place).err
    assert "use no --prefix" not in command("tenants", "check", *command.place, "--prefix", prefix).err
    assert (
        f"a: on record with another prefix: use --prefix {prefix}"
        in command("tenants", "check", "a", *command.place).err
    )

    command.environment["AIODBCLIENT_PREFIX"] = prefix
    assert command("tenants", "check", *command.place).out == "2 checked: all well\n"


def test_an_empty_cluster_is_not_the_one_of_the_environment(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    command.environment["AIODBCLIENT_CLUSTER"] = command.cluster
    place = ["--store", command.store, "--cluster", ""]
    for arguments in (["tenants", "remove", names[0], "--yes", *place], ["users", "list", "--cluster", ""]):
        refused = command(*arguments)
        assert (refused.code, "--cluster is empty" in refused.err) == (2, True)


def test_the_repair_of_a_selection_is_of_no_other_tenant(command: Command, names: list[str]) -> None:
    command("tenants", "provision", *names, *command.place)
    many = [f"{names[0]}-{number}" for number in range(11)]
    command("tenants", "provision", *many, *command.place)
    for name in (names[1], *many):
        delete_login(command, name)
    found = command("tenants", "check", *many, *command.place)
    [file] = re.findall(r"11 with problems. To repair them: aiodbclient tenants repair --from (\S+) ", found.err)
    assert sorted(Path(file).read_text().split()) == sorted(["name", *many])
    assert "aiodbclient tenants repair --all " in command("tenants", "check", *command.place).err


def test_one_file_is_the_ca_of_one_authority(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    command("tenants", "provision", a, b, *command.place)

    async def change() -> None:
        async with SQLiteStore(command.store) as store:
            claim = await store.claim(b, 10.0)
            assert claim is not None
            assert claim.record.current is not None
            await store.keep(claim, evolve(claim.record.current, ca="another"))

    asyncio.run(change())
    shown = command("tenants", "show", a, b, *command.place, "-o", "uri", "--ca-file", str(command.folder / "ca.pem"))
    assert (shown.code, "holds something else than the CA of the cluster" in shown.err) == (2, True)
