"""Commands on a whole store: its records, its key, a copy, and stores of other packages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from aiodbclient.tenants import SQLiteStore

from .conftest import Command


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
