"""A store as a whole: its records, its key, a copy, and stores of other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiodbclient.cli import stores
from aiodbclient.tenants import SQLiteStore

from .conftest import Command


def test_a_key_encrypts_a_store(command: Command) -> None:
    command.environment["AIODBCLIENT_STORE_KEY"] = command("store", "keygen", shows=True).out.strip()
    assert command("tenants", "provision", "sealed", *command.place).code == 0
    assert b"AVNS_" not in Path(command.store).read_bytes()
    assert "sealed" in command("store", "list", command.store).out
    del command.environment["AIODBCLIENT_STORE_KEY"]
    refused = command("store", "list", command.store)
    assert (refused.code, refused.out) == (4, "")


def test_a_store_of_another_package_is_found_by_its_scheme(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, list[str] | None]] = []

    class Entry:
        name = "vault"

        @staticmethod
        def load() -> Any:
            def make(url: str, key: list[str] | None) -> SQLiteStore:
                opened.append((url, key))
                return SQLiteStore(command.store)

            return make

    def entry_points(*, group: str, name: str) -> list[type[Entry]]:
        return [Entry] if (group, name) == ("aiodbclient.stores", "vault") else []

    monkeypatch.setattr(stores, "entry_points", entry_points)
    place = ["--cluster", command.cluster, "--store", "vault://secret/tenants"]
    assert command("tenants", "provision", "vaulted", *place).code == 0
    assert "vaulted" in command("tenants", "list", *place).out
    assert command("tenants", "remove", "vaulted", *place, "--yes").code == 0
    assert opened[0] == ("vault://secret/tenants", None)
