"""Leave a tenant as a process does that dies right after it has stored what it was about to do."""

from __future__ import annotations

from typing import Any

from aiodbclient.tenants import Credential, Store
from aiodbclient.tenants._record import Intent, Verb

from .store_contract import claimed


async def leave_intent(store: Store, name: str, intent: str | None) -> None:
    claim = await claimed(store, name)
    await store.begin(claim, intent)
    await store.release(claim)


async def leave(store: Store, credential: Credential, verb: Verb, **more: Any) -> None:
    """Store the intent on the tenant of ``credential``, and release the claim."""
    assert credential.cluster is not None
    intent = Intent(verb=verb, cluster=credential.cluster, database=credential.database, **more)
    await leave_intent(store, credential.name, str(intent))
