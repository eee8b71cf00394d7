"""Commands on a whole store: its records, its key, a copy, and stores of other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiodbclient.tenants import SQLiteStore

from .conftest import Command


def test_a_key_is_made_changed_and_dropped(command: Command) -> None:
    old, new = (command("store", "keygen", shows=True).out.strip() for _ in range(2))
    assert old != new
    command.environment["AIODBCLIENT_STORE_KEY"] = old
    assert command("tenants", "provision", "sealed", *command.place).code == 0

    alone = command("store", "rekey", command.store)
    assert (alone.code, "to NEW,OLD" in alone.err) == (2, True)
    command.environment["AIODBCLIENT_STORE_KEY"] = f"{new},{old}"
    assert command("store", "rekey", command.store).out == "1 records rewritten\n"
    command.environment["AIODBCLIENT_STORE_KEY"] = new
    assert "sealed" in command("store", "list", command.store).out
    command.environment["AIODBCLIENT_STORE_KEY"] = old
    refused = command("store", "list", command.store)
    assert (refused.code, refused.out) == (4, "")
    command.environment["AIODBCLIENT_STORE_KEY"] = new
    assert command("tenants", "remove", "sealed", *command.place, "--yes").code == 0


def test_a_store_is_copied_to_another_key(command: Command) -> None:
    key = command("store", "keygen", shows=True).out.strip()
    target = str(command.folder / "target.db")
    assert command("tenants", "provision", "copied", *command.place).code == 0

    command.environment["AIODBCLIENT_STORE_KEY_TO"] = key
    copied = command("store", "copy", command.store, target)
    assert copied.out == "1 records copied\n"
    assert copied.err.endswith(f"as plain text. Delete it when all processes use the copy: rm {command.store}\n")
    assert command("store", "copy", command.store, target, "--json").out == '{"copied": 0}\n'
    assert b"AVNS_" not in Path(target).read_bytes()
    command.environment["AIODBCLIENT_STORE_KEY"] = key
    assert "copied" in command("store", "list", target).out

    del command.environment["AIODBCLIENT_STORE_KEY"]
    command.environment["AIODBCLIENT_STORE_KEY_TO"] = ""
    same = command("store", "copy", command.store, command.store)
    assert (same.code, "are the same" in same.err) == (2, True)
    missing = command("store", "copy", str(command.folder / "no.db"), target)
    assert (missing.code, "does not exist" in missing.err) == (4, True)
    command.environment["AIODBCLIENT_STORE_KEY"] = key
    there = ["--cluster", command.cluster, "--store", target]
    assert command("tenants", "remove", "copied", *there, "--yes").code == 0


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

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    place = ["--cluster", command.cluster, "--store", "vault://secret/tenants"]
    assert command("tenants", "provision", "vaulted", *place).code == 0
    assert "vaulted" in command("tenants", "list", *place).out
    assert command("tenants", "remove", "vaulted", *place, "--yes").code == 0
    assert opened[0] == ("vault://secret/tenants", None)
