"""The size of tenants, and a move to another cluster."""

from __future__ import annotations

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
    [object] = command(*move, a, "--yes", "--max-frozen", "0.001s", "--json").objects()
    assert (object["action"], object["reason"] in kept.out) == ("kept", True)
    moved = command(*move, a, "--yes", "--json")
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
    assert command("dbs", "delete", second, a, "--yes", "--not-a-tenant").code == 0
    assert command(*move).code == 0
