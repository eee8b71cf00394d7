"""Commands on a whole store: its records, its key, a copy, and stores of other packages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

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


class OwnStore:
    """A store of another package, which has only the methods of ``Store``, or ``discard`` too."""

    def __init__(self, store: SQLiteStore, optional: tuple[str, ...]) -> None:
        self._store, self._optional = store, optional

    def __getattr__(self, name: str) -> Any:
        if name in ("entries", "discard") and name not in self._optional:
            raise AttributeError(name)
        return getattr(self._store, name)

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._store.__aexit__()


@pytest.mark.parametrize("optional", [(), ("discard",)])
def test_store_of_another_package(
    command: Command, monkeypatch: pytest.MonkeyPatch, names: list[str], optional: tuple[str, ...]
) -> None:
    opened: list[tuple[str, list[str] | None]] = []

    def make(url: str, key: list[str] | None) -> OwnStore:
        opened.append((url, key))
        return OwnStore(SQLiteStore(command.store), optional)

    def entry_points(*, group: str, name: str) -> list[Any]:
        return [SimpleNamespace(load=lambda: make)] if (group, name) == ("aiodbclient.stores", "vault") else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    place = [*command.on, "--store", "vault://secret/tenants"]
    assert command("tenants", "provision", names[0], *place).code == 0
    assert names[0] in command("tenants", "list", *place).out
    assert opened[0] == ("vault://secret/tenants", None)

    forgotten = command("store", "forget", names[0], *place[-2:], "--yes")
    if optional:
        assert (forgotten.code, command("tenants", "list", "--json", *place).out) == (0, "")
    else:
        assert forgotten.code == 2
        assert "the store vault://... does not support removing a record" in forgotten.err
