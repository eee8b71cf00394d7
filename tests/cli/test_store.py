"""Commands on a whole store: its records, its key, a copy, and stores of other packages."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiodbclient.tenants import SQLiteStore

from .conftest import Command


def test_key_is_changed(command: Command, names: list[str]) -> None:
    """``keygen`` makes a key, and ``rekey`` encrypts with the first of two."""
    old, new = (command("store", "keygen", shows=True).out.strip() for _ in range(2))
    assert old != new
    command.environment["AIODBCLIENT_STORE_KEY"] = old
    command.provision(names[0])
    assert b"AVNS_" not in Path(command.store).read_bytes()
    assert "to NEW,OLD" in command("store", "rekey", command.store).err
    command.environment["AIODBCLIENT_STORE_KEY"] = f"{new}, {old}"
    assert command("store", "rekey", command.store).out == "1 records rewritten\n"
    command.environment["AIODBCLIENT_STORE_KEY"] = new
    assert names[0] in command("store", "list", command.store).out
    for key, code in ((old, 4), ("", 4), ("hunter2-no-key", 2)):
        command.environment["AIODBCLIENT_STORE_KEY"] = key
        command("store", "list", command.store).fails(code, "AIODBCLIENT_STORE_KEY")


def test_store_is_copied(command: Command, names: list[str]) -> None:
    """``copy`` writes all records with the other key, and is safe to repeat."""
    key = command("store", "keygen", shows=True).out.strip()
    target = str(command.folder / "target.db")
    command.provision(*names[:2])
    command.environment["AIODBCLIENT_STORE_KEY_TO"] = key
    assert command("store", "copy", command.store, target).out == "2 records copied\n"
    assert command("store", "copy", command.store, target, "-o", "json").out == '{"copied": 0}\n'
    assert b"AVNS_" not in Path(target).read_bytes()
    command.environment["AIODBCLIENT_STORE_KEY"] = key
    listed = command("store", "list", target, "-o", "json").objects()
    assert [(each["name"], each["cluster"]) for each in listed] == [(name, command.cluster) for name in names[:2]]
    assert "are the same" in command("store", "copy", target, target).err
    command("store", "copy", str(command.folder / "no.db"), target).fails(4, "does not exist: check STORE")


def test_record_is_forgotten(command: Command, names: list[str]) -> None:
    """``forget`` asks, removes the record, and leaves the tenant. STORE may come from the environment."""
    a, b = names[:2]
    command.provision(a, b)
    command("store", "forget", a, "--store", command.store).fails(
        2, "The passwords are lost, the logins and databases stay."
    )
    assert command("store", "forget", a, "--store", command.store, "--yes").out == f"{a}: forgotten\n"
    command.environment["AIODBCLIENT_STORE"] = command.store
    forgotten = command("store", "forget", b, "--yes", "-o", "json").objects()
    assert forgotten == [{"name": b, "action": "forgotten"}]
    command("store", "forget", b, "--yes").fails(1, "not on record. Nothing was changed")
    assert command("tenants", "provision", a, "--adopt", "--yes", *command.place).out == "1 adopted\n"
    empty = command("store", "list")
    assert empty.code == 0


def test_unusable_store_is_4(command: Command, names: list[str]) -> None:
    """A folder, a damaged file and an unreachable server are 4, and no password is printed."""
    damaged = command.folder / "damaged.db"
    damaged.write_bytes(b"this is no database " * 100)
    for store in (str(command.folder), str(damaged), "postgresql://ops:hunter2@127.0.0.1:1/ops"):
        done = command("tenants", "provision", names[0], *command.on, "--store", store)
        assert (done.code, done.out, done.err.startswith("aiodbclient: ")) == (4, "", True), done.err
    bracket = command("tenants", "list", "--store", "postgresql://u:p[hunter2@127.0.0.1:1/d")
    assert (bracket.code, bracket.err.startswith("aiodbclient: cannot use the store")) == (4, True), bracket.err


def test_store_of_another_package(command: Command, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    opened: list[tuple[str, list[str] | None]] = []

    def make(url: str, key: list[str] | None) -> SQLiteStore:
        opened.append((url, key))
        return SQLiteStore(command.store)

    def entry_points(*, group: str, name: str) -> list[Any]:
        return [SimpleNamespace(load=lambda: make)] if (group, name) == ("aiodbclient.stores", "vault") else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    place = [*command.on, "--store", "vault://secret/tenants"]
    assert command("tenants", "provision", names[0], *place).code == 0
    assert names[0] in command("tenants", "list", *place).out
    assert opened[0] == ("vault://secret/tenants", None)
