"""Leave a tenant as a process does that dies right after it has stored what it was about to do."""

from __future__ import annotations

from typing import Any

from aiodbclient.tenants import Credential, Store
from aiodbclient.tenants._record import Intent, Verb

from .store_contract import LONG


async def leave(store: Store, credential: Credential, verb: Verb, **more: Any) -> None:
    """Store the intent on the tenant of ``credential``, and release the claim."""
    assert credential.cluster is not None
    claim = await store.claim(credential.name, LONG)
    assert claim is not None
    intent = Intent(verb=verb, cluster=credential.cluster, database=credential.database, **more)
    await store.begin(claim, str(intent))
    await store.release(claim)
