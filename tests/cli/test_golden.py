"""What the command prints, word by word: each file in ``golden/`` is a session, which is typed again.

``$ ...`` is a command. Below it are its errors after ``! ``, its output, and in brackets an exit code that is not 0.
``% ...`` is something that happens meanwhile, a function in ``STEPS``. To write what is printed now into the files, set
AIODBCLIENT_GOLDEN=write, and read the diff: operators will read it too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from aiodbclient import Cluster, DatabaseClient, UsersAPI
from aiodbclient.tenants import OperationKind

from .conftest import Command

GOLDEN = Path(__file__).parent / "golden"
# What differs each time. ``#`` becomes a number: the same for the same value.
VARIES = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID#"),
    (r"(AVNS_|Aa1-)[\w-]+", "PASSWORD#"),
    (r"_[0-9a-f]{12}_[0-9a-f]{8}\b", "_LOGIN#"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)", "TIME"),
    (r"\bacl[0-9a-f]{12}\b", "ACL"),
    (r"/tmp/aiodbclient-names-\w+\.csv", "FILE"),
    (r"^[\w-]{43}=$", "KEY"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME"),
    (r"\b\d+\.\d s\b|(?<![\d.])\b\d+[sm]\b", "SECONDS"),
    (r"\b127\.0\.0\.1:\d+|\b\d+ +127\.0\.0\.1\b", "ADDRESS"),
    (r"\b\d+\.\d [kM]B\b", "SIZE"),
    (r'\bport("?:)? \d+', "port PORT"),
    (r"(?<=online, pg )1\d|(?<=logs in to )1\d\.\d+", "VERSION"),
    (r"/\S+/(?=\w+\.db\b)", "FOLDER/"),
    (r"  +", "  "),
]


def change_cluster(command: Command, change: Callable[[Cluster], Awaitable[object]]) -> None:
    """Change the cluster behind the back of the tenants."""

    async def connect() -> None:
        async with DatabaseClient(command.sandbox.token, base_url=command.sandbox.url) as client:
            await change(client.cluster(command.cluster_id))

    asyncio.run(connect())


def damage(command: Command, name: str) -> None:
    with closing(sqlite3.connect(command.store)) as store, store:
        store.execute("UPDATE credentials SET record = 'v1.plain.0.{}' WHERE name = ?", [name])


def change_login(command: Command, name: str, change: Callable[[UsersAPI, str], Awaitable[object]]) -> None:
    [shown] = command("tenants", "show", name, "-o", "json").objects()
    change_cluster(command, lambda cluster: change(cluster.users, shown["username"]))


def sent(command: Command) -> str:
    """The operations of the API that were called since it was asked."""
    operations = sorted({str(operation) for operation, _ in command.sent()})
    command.before = len(command.sandbox.requests)
    return "".join(f"{each}\n" for each in operations)


STEPS: dict[str, Callable[..., object]] = {
    "export": lambda command, name, value="": command.environment.update({name: value}),
    "unset": lambda command, name: command.environment.__delitem__(name),
    "sent": sent,
    "write": lambda command, file, *lines: Path(file).write_text("\n".join(lines)),
    "memory": lambda command, engine: command.in_memory(engine, "memory"),
    "fault": lambda command, fault: command.sandbox.faults.add(**json.loads(fault)),
    "calm": lambda command: command.sandbox.faults.clear(),
    "token": lambda command, *scopes: command.environment.update(DIGITALOCEAN_TOKEN=command.sandbox.add_token(scopes)),
    "leave": lambda command, name, kind, *target: command.leave(name, OperationKind(kind), *target),
    "damage": damage,
    "delete-login": lambda command, name: change_login(command, name, lambda users, login: users.delete(login)),
    "reset-login": lambda command, name: change_login(command, name, lambda users, login: users.reset_auth(login)),
    "delete-database": lambda command, name: change_cluster(command, lambda on: on.dbs.delete(name)),
}


def printed_by(command: Command, line: str) -> str:
    """What one line of a session prints."""
    kind, _, text = line.partition(" ")
    words = shlex.split(text)
    if kind == "%":
        said = STEPS[words[0]](command, *words[1:])
        return said if isinstance(said, str) else ""
    before = dict(command.environment)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        command.environment[name] = value
    assert words[0] == "aiodbclient"
    done = command(*words[1:], shows=bool({"uri", "env", "k8s", "keygen"}.intersection(words)))
    command.environment = before
    errors = "".join(f"! {each}\n" for each in done.err.splitlines())
    return f"{errors}{done.out}" + (f"[{done.code}]\n" if done.code else "")


def settled(printed: str, seen: dict[str, dict[str, int]]) -> str:
    """The text without what differs each time. ``seen`` numbers its values, by their names."""
    for pattern, name in VARIES:
        numbers = seen.setdefault(name, {})
        printed = re.sub(
            pattern,
            lambda found: name.replace("#", str(numbers.setdefault(found[0], len(numbers) + 1))),  # noqa: B023
            printed,
            flags=re.MULTILINE,
        )
    return printed


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.txt")), ids=lambda file: file.stem)
def test_golden(command: Command, file: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(command.folder)
    if file.stem.startswith("fleet"):
        command.use(request.getfixturevalue("fleet"))
    else:
        command.environment["AIODBCLIENT_CLUSTER"] = command.cluster
    command.environment["AIODBCLIENT_STORE"] = "tenants.db"
    found, seen = "", dict[str, dict[str, int]]()
    for line in file.read_text().splitlines():
        if line.startswith("# "):
            found += f"\n{line}\n" if found else f"{line}\n"
        elif line.startswith(("$ ", "% ")):
            found += f"{line}\n{settled(printed_by(command, line), seen)}"
    if os.environ.get("AIODBCLIENT_GOLDEN") == "write":
        file.write_text(found)
    assert found == file.read_text()
