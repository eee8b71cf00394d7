"""The guide's store fulfils the contract of stores, on a fake Vault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Store
from aiodbclient.tenants.errors import StoreError
from vault_store import VaultStore, from_url

from ..own_stores import password
from ..store_contract import LONG, StoreContract, keep
from ..vault import Vault


class TestVaultStore(StoreContract):
    many = 60  # it lists all names at once

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[[], Store]]:
        async with Vault(hurry=10.0).running() as vault:  # its clock has whole seconds
            yield lambda: VaultStore(vault.url, vault.token)


async def test_old_version_of_vault_is_not_read() -> None:
    async with Vault().running() as vault, VaultStore(vault.url, vault.token) as store:
        await keep(store, "alpha", "first")
        await keep(store, "alpha", "second")
        assert await password(store, "alpha") == "second"
        assert list(vault.secrets) == [f"tenants/{b'alpha'.hex()}"]


async def test_refusal_of_vault_shows_no_secret() -> None:
    async with Vault().running() as vault:
        async with VaultStore(vault.url, "hunter2") as store:
            with pytest.raises(StoreError, match="Vault answered 403 to GET data") as refused:
                await store.claim("alpha", LONG)
            assert "hunter2" not in str(refused.value)
        store = VaultStore(vault.url, vault.token)
    async with store:
        with pytest.raises(StoreError, match="Vault did not answer: ClientConnectorError"):
            await store.get("alpha")


@pytest.mark.parametrize("key", [None, [Fernet.generate_key().decode()]], ids=["plain", "encrypted"])
async def test_the_command_makes_it_from_a_url(monkeypatch: pytest.MonkeyPatch, key: list[str] | None) -> None:
    async with Vault().running() as vault:
        monkeypatch.setenv("VAULT_TOKEN", vault.token)
        async with from_url(vault.url.replace("http:", "vault+http:") + "/secret/tenants", key) as store:
            await keep(store, "alpha")
            assert await password(store, "alpha") == "hunter2"
            before = datetime.now(UTC)
            assert before - timedelta(seconds=2) < await store.now() <= datetime.now(UTC)  # whole seconds
        assert list(vault.secrets) == [f"tenants/{b'alpha'.hex()}"]
        assert ("hunter2" in str(vault.secrets)) == (key is None)


@pytest.mark.parametrize("url", ["vault://", "vault://vault.example.com", "vault://vault.example.com/secret"])
def test_url_without_mount_and_folder_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "hunter2")
    with pytest.raises(InvalidArgumentError, match="vault://HOST:PORT/MOUNT/FOLDER"):
        from_url(url, None)
