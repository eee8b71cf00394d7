"""The store fails while tenants are created: nothing is sent that cannot be stored, and the next run continues."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from aiodbclient.tenants import Credential, PostgresStore, SQLiteStore, Store, TenantDone, Tenants
from aiodbclient.tenants.errors import StoreError

from ..conftest import Place
from ..programs import refusal
from ..servers import RestartablePostgres

NAMES = [f"tenant-{number}" for number in range(24)]


async def with_database(place: Place) -> set[str]:
    """The tenants that have a database."""
    names = [db.name for db in await place.cluster.dbs.list()]
    return {name.removeprefix(place.prefix) for name in names if name.startswith(place.prefix)}


async def logins(place: Place) -> set[str]:
    return {user.name for user in await place.cluster.users.list() if user.name.startswith(place.prefix)}


async def on_record(store: Store) -> dict[str, Credential]:
    """The stored credentials, by name."""
    found = {record.name: record.credential() async for record in store.records()}
    return {name: credential for name, credential in found.items() if credential is not None}


@pytest.mark.thorough  # the claims of the failed run last for a minute
async def test_the_stores_server_goes_away_in_the_middle(place: Place, restartable: RestartablePostgres) -> None:
    reported: dict[str, Credential] = {}
    async with PostgresStore(restartable.dsn) as store:
        tenants = Tenants(place.cluster, store, prefix=place.prefix)

        async def until_it_fails() -> None:
            async for outcome in tenants.provision(NAMES):
                if isinstance(outcome, TenantDone) and outcome.credential is not None:
                    reported[outcome.name] = outcome.credential
                if len(reported) == 5:
                    await asyncio.to_thread(restartable.stop)

        with pytest.raises(StoreError, match="cannot use the store in PostgreSQL"):
            await until_it_fails()
        with pytest.raises(StoreError):
            await tenants.ensure("tenant-23")
        made = await with_database(place)
        assert len(made) < len(NAMES)

        await asyncio.to_thread(restartable.start)
        # What was created but not stored has an operation in progress: that is stored first.
        records = {record.name: record async for record in store.records()}
        assert made <= set(records)
        assert all(records[name].logins or records[name].operation for name in made)
        assert {outcome.name async for outcome in tenants.provision(NAMES) if outcome.error is None} == set(NAMES)
        credentials = await on_record(store)

    assert reported.items() <= credentials.items()
    assert await with_database(place) == {*credentials} == {*NAMES}
    assert await logins(place) == {each.username for each in credentials.values()}
    for credential in credentials.values():
        assert not await refusal(credential, "SELECT 1")


async def test_full_disk_of_store_sends_nothing(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with SQLiteStore(path) as store:
        tenants = Tenants(place.cluster, store, prefix=place.prefix)
        kept = await tenants.ensure("alpha")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            with pytest.raises(StoreError, match="cannot use"):
                await tenants.ensure("beta")
            assert await tenants.ensure("alpha") == kept
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await with_database(place) == {"alpha"}
        assert await logins(place) == {kept.username}
        assert not await refusal(await tenants.ensure("beta"), "SELECT 1")
