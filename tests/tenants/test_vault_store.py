"""The store of the guide keeps the contract, on a stand-in for Vault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from aiodbclient.errors import StoreError
from aiodbclient.tenants import Store
from aiodbclient.tenants.testing import LONG, StoreContract
from vault_store import VaultStore

from .processes import keep, password
from .vault import Vault


class TestVaultStore(StoreContract):
    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[[], Store]]:
        async with Vault(hurry=10.0).running() as vault:  # its clock tells whole seconds
            yield lambda: VaultStore(vault.url, vault.token)


async def test_an_old_version_of_vaults_is_not_what_is_read() -> None:
    async with Vault().running() as vault, VaultStore(vault.url, vault.token) as store:
        await keep(store, "alpha", "first")
        await keep(store, "alpha", "second")
        assert await password(store, "alpha") == "second"
        assert list(vault.secrets) == [f"tenants/{b'alpha'.hex()}"]


async def test_a_vault_that_refuses_is_told_without_a_secret() -> None:
    async with Vault().running() as vault:
        async with VaultStore(vault.url, "hunter2") as store:
            with pytest.raises(StoreError, match="Vault answered 403 to GET data") as refused:
                await store.claim("alpha", LONG)
            assert "hunter2" not in str(refused.value)
        store = VaultStore(vault.url, vault.token)
    async with store:
        with pytest.raises(StoreError, match="Vault gave no answer: ClientConnectorError"):
            await store.get("alpha")


def test_a_contract_without_a_place_says_what_to_write() -> None:
    class TestMine(StoreContract):
        pass

    with pytest.raises(NotImplementedError, match="TestMine needs a method place"):
        TestMine().test_what_is_not_on_record_is_none()
