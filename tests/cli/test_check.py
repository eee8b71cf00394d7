"""``check`` and ``repair``: problems are found with their details, and what helps is named."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable

from aiodbclient import Cluster, DatabaseClient
from aiodbclient.tenants import OperationKind, SQLiteStore

from ..tenants.store_contract import claimed
from .conftest import Command


def as_control_panel(command: Command, change: Callable[[Cluster], Awaitable[object]]) -> None:
    """Change the cluster behind the back of the tenants."""

    async def connect() -> None:
        async with DatabaseClient(command.sandbox.token, base_url=command.sandbox.url) as client:
            await change(client.cluster(command.cluster_id))

    asyncio.run(connect())


def login_of(command: Command, name: str) -> str:
    [shown] = command("tenants", "show", name, *command.place, "-o", "json").objects()
    return str(shown["username"])


def test_problem_is_found_and_repaired(command: Command, names: list[str]) -> None:
    """A missing login is a line with the repair to copy, exit code 5, and made again by it."""
    a, b = names[:2]
    command.provision(a, b)
    assert command("tenants", "check", *command.place).out == "2 checked: all well\n"
    login = login_of(command, b)
    as_control_panel(command, lambda cluster: cluster.users.delete(login))
    found = command("tenants", "check", *command.place)
    assert (found.code, found.out) == (5, f"{b}: login_missing: {login}\n2 checked, 1 with problems\n")
    [line] = re.findall(r"to repair: aiodbclient (.*)\n", found.err)
    assert shlex.split(line) == ["tenants", "repair", b, *command.place]
    objects = {each["name"]: each for each in command("tenants", "check", *command.place, "-o", "json").objects()}
    assert (objects[a]["problems"], objects[a]["state"]) == ([], "ok")
    assert (objects[b]["problems"], objects[b]["state"]) == ([{"kind": "login_missing", "detail": login}], "problems")
    assert objects[b]["cluster_name"] == command.cluster
    repaired = command(*shlex.split(line))
    assert repaired.out.startswith(f"{b}: repaired: login_missing")
    assert command("tenants", "check", a, b, *command.place).code == 0


def test_new_password_is_announced(command: Command, names: list[str]) -> None:
    """Where a repair makes another password, it says to deliver it, and JSON has a flag."""
    a, b = names[:2]
    command.provision(a, b)
    login = login_of(command, a)
    as_control_panel(command, lambda cluster: cluster.users.reset_auth(login))
    repaired = command("tenants", "repair", a, b, *command.place, "-o", "json").objects()
    changed = {each["name"]: (each["action"], each["credential_changed"]) for each in repaired}
    assert changed == {a: ("repaired", True), b: ("kept", False)}


def test_missing_database_has_no_repair(command: Command, names: list[str]) -> None:
    """A database that is gone is said to be, and no command that loses more is suggested."""
    a = names[0]
    command.provision(a)
    as_control_panel(command, lambda cluster: cluster.dbs.delete(a))
    found = command("tenants", "check", *command.place)
    assert (found.code, found.out.splitlines()[0]) == (5, f"{a}: database_missing: {a}")
    assert f"{a}: the database is gone. Is it on a cluster that you did not name?" in found.err
    assert ": aiodbclient " not in found.err
    for operation in ("rotate", "usage", "repair"):
        failed = command("tenants", operation, a, *command.place)
        assert (failed.code, "does not exist" in failed.err, "SET " in failed.err) == (1, True, False)


def test_other_process_is_no_problem(command: Command, names: list[str]) -> None:
    """A tenant that another command works on is in progress; one that a dead process left is unfinished."""
    a = names[0]
    command.provision(a)
    command.leave(a, OperationKind.ROTATE)

    async def beside() -> list[str]:
        async with SQLiteStore(command.store) as store:
            claim = await claimed(store, a)
            done = [command.process("tenants", "check", *command.place, *form) for form in ([], ["-o", "json"])]
            await store.release(claim)
        assert [each.code for each in done] == [0, 0]
        assert done[0].out == f"{a}: in progress\n1 checked, 1 in progress\n"
        return [each["state"] for each in done[1].objects()]

    assert asyncio.run(beside()) == ["in progress"]
    found = command("tenants", "check", *command.place)
    assert found.out.startswith(f"{a}: unfinished: rotate\n")
    assert f"{a}: to finish the rotation: aiodbclient tenants rotate {a} --cluster" in found.err
    repaired = command("tenants", "repair", a, *command.place)
    assert repaired.out == f"{a}: repaired: unfinished: rotate (undone: run rotate again)\n1 repaired\n"
    assert command("tenants", "rotate", a, *command.place).out == "1 rotated\n"


def test_restored_store_names_what_helps(command: Command, names: list[str]) -> None:
    """For tenants that were suspended or rotated after the backup. `repair` refuses them, and is not named."""
    a, b = names[:2]
    command.provision(a, b)
    restored = ["--cluster", command.cluster, "--store", str(command.folder / "restored.db")]
    assert command("store", "copy", command.store, restored[-1]).code == 0
    assert command("tenants", "suspend", a, "--yes", *command.place).code == 0
    assert command("tenants", "rotate", b, *command.place).code == 0

    found = command("tenants", "check", *restored)

    assert (found.code, "tenants repair" in found.err) == (5, False)
    helps = f"{a}: the tenant was suspended after this store was copied. To suspend it here too: aiodbclient tenants "
    assert f"{helps}suspend {a} " in found.err
    assert f"{b}: another store knows the tenant: use that store. If it is lost, to take the tenant over: " in found.err
    for name, said in ((a, "was suspended after this store was copied"), (b, "another store knows the tenant")):
        command("tenants", "repair", name, *restored).fails(1, said, "1 failed\n")


def test_tenants_of_lost_store_are_found(command: Command, names: list[str]) -> None:
    """``--not-on-record`` finds databases of tenants that the store lacks."""
    a, b = names[:2]
    prefix = ["--prefix", f"{names[0].replace('-', '_')}_"]  # others have tenants on this server
    assert command("tenants", "provision", a, b, *prefix, *command.place).code == 0
    assert command("store", "forget", b, "--store", command.store, "--yes").code == 0
    found = command("tenants", "check", "--not-on-record", *prefix, *command.place)
    assert (found.code, f"{b}: not_on_record" in found.out) == (5, True)
    assert f"{b}: the database is not in this store. Is it the right store?" in found.err
    assert command("tenants", "check", a, "--not-on-record", *prefix, *command.place).code == 2
