"""What helps after a failure: the commands that are printed are the ones that work."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from aiodbclient.sandbox import Sandbox

from .conftest import Command, Done


def suggested(done: Done) -> list[list[str]]:
    """The commands that a screen suggests."""
    return [shlex.split(each)[1:] for each in re.findall(r": (aiodbclient .*?)(?:\. |\n|$)", done.err)]


def test_a_rotation_that_waits_for_retire_names_both_ways(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    command.provision(a, b)
    assert command("tenants", "rotate", a, b, *command.place).code == 0
    refused = command("tenants", "rotate", a, b, *command.place)

    assert "run it again" not in refused.err
    retire, force = suggested(refused)
    assert (retire[:4], force[:5]) == (["tenants", "revoke-previous", a, b], ["tenants", "rotate", a, b, "--force"])
    assert command(*force, "--yes").out == "2 rotated\n"
    assert command(*retire, "--yes").out == "2 revoked\n"


def test_a_suspended_tenant_names_resume(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    command.provision(a, b)
    assert command("tenants", "suspend", a, *command.place, "--yes").code == 0
    refused = command("tenants", "exec", a, b, *command.place, "--", "true")

    assert (refused.code, "run it again" in refused.err) == (1, False)
    [resume] = suggested(refused)
    both = command("tenants", "exec", a, b, *command.place, "--", "false")
    [again, _] = suggested(both)
    assert again[:3] == ["tenants", "exec", b]
    assert command(*resume).out.endswith("\n1 resumed\n")


def test_a_missing_database_names_recreate(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)
    assert command("dbs", "delete", a, "--cluster", command.cluster, "--yes").code == 0
    checked, refused = (command("tenants", verb, a, *command.place) for verb in ("check", "repair"))

    assert (refused.code, "run it again" in refused.err) == (1, False)
    assert suggested(checked) == suggested(refused)
    [recreate] = suggested(checked)
    assert command(*recreate).code == 0


def test_what_exists_already_names_adopt_and_full_clusters_their_rooms(command: Command, names: list[str]) -> None:
    a, b = names[:2]
    assert command("users", "create", a, "--cluster", command.cluster, "--show").code == 0
    refused = command("tenants", "provision", a, *command.place)
    assert (refused.code, "run it again" in refused.err) == (1, False)
    [adopt] = suggested(refused)
    assert f"not on record in the store {command.store}, and on the cluster {command.cluster}. If" in refused.err
    assert suggested(command(*adopt)) == [[*adopt, "--yes"]]
    assert command(*adopt, "--yes").out == "1 adopted\n"

    full = command("tenants", "provision", b, "--max-tenants", "1", *command.place)
    assert (full.code, "run it again" in full.err) == (1, False)
    assert "give Tenants" not in full.err
    [rooms] = suggested(full)
    assert command(*rooms).code == 0


def test_exec_goes_on_with_those_that_failed_alone(command: Command, names: list[str]) -> None:
    command.provision(*names)
    command.environment |= {"GOOD": names[0]}
    program = ["--", sys.executable, "-c", "import os, sys; sys.exit(os.environ['PGUSER'] != os.environ['GOOD'])"]
    done = command("tenants", "exec", "--all", *command.place, *program)

    assert "aiodbclient: 1 done, 11 failed\n" in done.err
    [again] = suggested(done)
    file = Path(again[again.index("--from") + 1])
    assert sorted(file.read_text().split()) == sorted(["name", *names[1:]])
    assert file.stat().st_mode & 0o77 == 0
    assert "--concurrency" not in again
    assert "aiodbclient: 11 failed\n" in command(*again).err
    file.write_text("name\n")
    nothing = command(*again)
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "aiodbclient: nothing to do\n")
    file.unlink()


def test_without_the_api_the_store_is_read_by_ids(command: Command, names: list[str]) -> None:
    command.provision(names[0])
    with Sandbox(windows=[]) as gone:
        command.environment["DIGITALOCEAN_API_URL"] = gone.url
    assert names[0] in command("tenants", "list", *command.place).out
    dead = command("tenants", "list", "--cluster", "another", "--store", command.store)
    assert dead.code == 4
    [ids] = suggested(dead)
    [cluster_id] = re.findall(r"[0-9a-f-]{36}", command(*ids).out)
    assert names[0] in command("tenants", "list", "--cluster", cluster_id, "--store", command.store).out
    command.environment["DIGITALOCEAN_API_URL"] = command.sandbox.url


def test_a_record_is_forgotten_in_the_store_of_the_environment(command: Command, names: list[str]) -> None:
    command.provision(names[0], names[1])
    copy = str(command.folder / "copy.db")
    assert command("store", "copy", command.store, copy, "--backup").code == 0
    alone = command("store", "forget", names[0], "--yes")
    assert (alone.code, "give STORE and NAME, or set $AIODBCLIENT_STORE" in alone.err) == (2, True)
    command.environment["AIODBCLIENT_STORE"] = copy
    assert command("store", "forget", names[0], "--yes").out == f"{names[0]}: forgotten\n"
    assert command("store", "forget", copy, names[1], "--yes").out == f"{names[1]}: forgotten\n"
    del command.environment["AIODBCLIENT_STORE"]


def test_a_command_for_one_cluster_says_how_to_choose_it(command: Command) -> None:
    command.environment["AIODBCLIENT_CLUSTER"] = f"{command.cluster},other"
    refused = command("doctor")
    assert (refused.code, f"add --cluster {command.cluster}." in refused.err) == (2, True)
    assert command("doctor", "--cluster", command.cluster).code == 0


def test_users_that_look_like_a_tenants_are_left_alone(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)
    assert command("tenants", "rotate", a, *command.place).code == 0
    assert command("users", "create", f"{a}-plain", "--cluster", command.cluster, "--show").code == 0
    file = command.folder / "users.yaml"
    file.write_text("- doadmin\n")
    planned = command("users", "plan", "--from", "--cluster", command.cluster, str(file), "--prune").out.splitlines()

    assert f"- {a}-plain" in planned
    [left] = [line for line in planned if line.endswith(": may be tenants' logins, left alone")]
    assert left.startswith(f"  {a}, {a}_")
    apply = ["users", "apply", "--from", "--cluster", command.cluster, str(file), "--prune", "--yes"]
    unbounded = command(*apply)
    assert (unbounded.code, "--yes needs --max N here" in unbounded.err) == (2, True)
    assert command(*apply, "--max", "1").out.endswith("1 deleted\n")
    assert command("tenants", "check", *command.place).code == 0
