"""The size of tenants, and their data: moved to another cluster, dumped and loaded."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from .conftest import Command


@pytest.fixture
def programs(command: Command) -> None:
    """``pg_dump`` of the servers' version, or newer."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda each: int(each.parts[4]))
    if found:
        command.environment["PATH"] = f"{found[-1].parent}{os.pathsep}{command.environment['PATH']}"
    elif shutil.which("pg_dump") is None:
        pytest.skip("needs pg_dump")


def test_usage_is_printed_with_a_total(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    command.provision(a, b)
    table = command("tenants", "usage", *command.place, "--sort", "name")
    lines = [line.split() for line in table.out.splitlines()]
    assert [line[0] for line in lines] == ["name", a, b, "total"]
    assert lines[0][1:] == ["size", "connections"]
    assert lines[1][2:] == ["MB", "0"]
    objects = command("tenants", "usage", *command.place, "-o", "json").objects()
    assert {each["name"] for each in objects} == {a, b}
    assert all(each["bytes"] > 1e6 and each["error"] is None for each in objects)
    wrong = command("tenants", "usage", a, *command.place, "--sort", "age")
    assert (wrong.code, "no such column; there are name, cluster, size, connections" in wrong.err) == (2, True)
    missing = command("tenants", "usage", a, names[9], *command.place)
    assert (missing.code, f"{names[9]}: not on record" in missing.err) == (1, True)


def test_tenants_are_moved_and_the_question_says_whence(
    command: Command, second: str, names: list[str], programs: None
) -> None:
    a, b = names[:2]
    command.provision(a, b)
    move = ["tenants", "move", "--to", second, *command.place]
    asked = command(*move, a)
    assert (asked.code, f"Move {a} (1) from {command.cluster} to {second}: shut each" in asked.err) == (2, True)
    assert command(*move, "--all", "--yes").code == 2  # it needs --max
    assert "Each gets new credentials: programs that do not use TenantPools need them" in asked.err
    back = ["tenants", "move", "--to", command.cluster, *command.place, "--yes"]
    assert command(*back, a).out == f"{a}: kept, it is there already\n1 kept\n"
    whence = command(*back, a, names[9])
    assert (whence.code, "from which cluster? Give its name or id as --from" in whence.err) == (2, True)
    typo = command(*move, a, names[9], "--yes")
    assert (typo.code, typo.out, "nothing was done for the other names either" in typo.err) == (1, "1 failed\n", True)
    kept = command(*move, a, "--yes", "--max-frozen", "0.001s")
    assert (kept.code, kept.out.splitlines()[-1]) == (0, "1 kept"), kept.err
    assert re.search(rf"{a}: kept, with \d+\.\d MB it would be shut for longer than --max-frozen", kept.out)
    [object] = command(*move, a, "--yes", "--max-frozen", "0.001s", "-o", "json").objects()
    assert (object["action"], object["reason"] in kept.out) == ("kept", True)
    moved = command(*move, a, "--yes", "-o", "json")
    assert moved.code == 0, moved.out + moved.err
    [outcome] = moved.objects()
    assert (outcome["action"], outcome["cluster_name"], outcome["credential_changed"]) == ("moved", second, True)
    assert outcome["reason"] is None
    assert command(*move, a).out == f"{a}: kept, it is there already\n1 kept\n"  # it does not ask
    rest = command(*move, "--all", "--from", command.cluster, "--yes", "--max", "1")
    assert (rest.code, rest.out.splitlines()[-1]) == (0, "1 moved"), rest.out + rest.err
    assert "(new credential: deliver it)" in rest.out
    both = ["--cluster", second, "--store", command.store]
    assert command("tenants", "check", *both).out == "2 checked: all well\n"
    assert command("tenants", "remove", "--all", *both, "--yes", "--max", "2").code == 0


def test_a_tenant_that_moved_after_the_backup_is_found_where_it_is(
    command: Command, second: str, names: list[str], programs: None
) -> None:
    a, both = names[0], ["--cluster", command.cluster, "--cluster", second]
    command.provision(a)
    old, restored = str(command.folder / "old.db"), str(command.folder / "restored.db")
    assert command("store", "copy", command.store, old, "--backup").code == 0
    assert command("tenants", "move", a, "--to", second, *command.place, "--yes").code == 0
    Path(command.store).unlink()
    assert command("store", "copy", old, restored, "--restore").code == 0
    found = command("tenants", "check", "--not-on-record", *both, "--store", restored)
    assert (found.code, "--recreate" in found.err) == (5, False), found.err
    assert f"{a}: a database of that name is on another cluster than the one on record" in found.err
    forget, adopt = re.findall(r"there: aiodbclient (.*) && aiodbclient (.*)\n", found.err)[0]
    assert command(*shlex.split(forget), "--yes").code == 0
    assert command(*shlex.split(adopt), "--yes").out == "1 adopted\n"
    assert command("tenants", "check", *both, "--store", restored).out == "1 checked: all well\n"


def test_a_tenant_that_was_adopted_is_revoked_before_it_is_moved(
    command: Command, second: str, names: list[str], programs: None
) -> None:
    a = names[0]
    command.provision(a)
    place = ["--cluster", command.cluster, "--store", str(command.folder / "other.db")]
    assert command("tenants", "provision", a, "--adopt", *place, "--yes").out == "1 adopted\n"
    move = ["tenants", "move", a, "--to", second, *place, "--yes"]
    refused = command(*move)
    assert (refused.code, "--force" in refused.err) == (1, False)
    [revoke] = re.findall(r"and then move: aiodbclient (.*)\n", refused.err)
    revoked = command(*shlex.split(revoke), "--yes")
    assert (revoked.code, revoked.out) == (0, "1 revoked\n"), revoked.err
    assert command("dbs", "create", a, "--cluster", second).code == 0  # somebody else's
    taken = command(*move)
    assert (taken.code, "--adopt" in taken.err) == (1, False)
    assert f"on the cluster {second}. Drop it there, or move to another cluster" in taken.err
    assert command("dbs", "delete", second, a, "--yes").code == 0
    assert command(*move).code == 0


def test_a_dump_is_loaded_into_another_tenant(command: Command, names: list[str], programs: None) -> None:
    a, b = names[:2]
    command.provision(a, b)
    folder = str(command.folder)
    lost = command("tenants", "dump", a, "--folder", f"{folder}/lost", *command.place)
    assert (lost.code, f"--folder {folder}/lost: there is no such folder" in lost.err) == (2, True)
    done = command("tenants", "dump", a, "--folder", folder, *command.place)
    assert done.code == 0, done.out + done.err
    file = command.folder / f"{a}.dump"
    assert done.out.startswith(f"{a}: {file}, ")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads((command.folder / f"{a}.json").read_text())
    (command.folder / "names.csv").write_text("name\n")
    wrong = command("tenants", "load", b, str(command.folder / "names.csv"), *command.place)
    assert wrong.code == 2
    assert f"names.csv is no dump: there is no {command.folder}/names.json; nothing was sent" in wrong.err
    nothing = command("tenants", "load", b, str(command.folder / "typo.dump"), *command.place)
    assert (nothing.code, f"{command.folder}/typo.dump does not exist. Nothing was sent" in nothing.err) == (2, True)
    assert command("tenants", "load", b, str(file), *command.place).out == f"{b}: loaded\n"
    refused = command("tenants", "load", names[9], str(file), *command.place)
    assert (refused.code, f"{names[9]}: not on record" in refused.err) == (2, True)
