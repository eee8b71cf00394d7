"""Records as version 0.1 wrote them: their credentials have no ``since`` and no ``role``."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from attrs import asdict, evolve
from cryptography.fernet import Fernet

from aiodbclient.tenants import Record, Role, Store
from aiodbclient.tenants.testing import LONG, a_credential

NEWER = ("since", "role", "suspended", "spare")  # members that 0.1 did not have
KEY_OF_0_1 = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def sealed_by_0_1(name: str, key: Fernet | None) -> str:
    """A record with two credentials and an intent."""
    body = json.dumps(
        {"name": name, "current": _credential(name, "new"), "previous": _credential(name, "old"), "intended": name}
    )
    kind = "plain" if key is None else "fernet"
    body = body if key is None else key.encrypt(body.encode()).decode()
    covered = f"{name}\0{kind}\0{body}".encode()
    return f"v1.{kind}.{hashlib.sha256(covered).hexdigest()[:32]}.{body}"


async def check_upgrade(store: Store) -> None:
    """Check that ``store`` reads the record of 0.1 for alpha, and stores it again with a time and a role."""
    old = Record(
        name="alpha",
        current=evolve(a_credential("alpha", "new"), since=None),
        previous=evolve(a_credential("alpha", "old"), since=None),
        intended="alpha",
    )
    assert await store.get("alpha") == old
    assert [record async for record in store.records()] == [old]
    claim = await store.claim("alpha", LONG)
    assert claim is not None
    assert claim.record == old
    assert old.current is not None
    assert old.current.role is Role.OWNER
    new = evolve(old.current, since=datetime(2026, 11, 25, 12, 0, 0, 1, UTC), role=Role.READER)
    await store.keep(claim, new, old.current)
    assert await store.get("alpha") == Record(name="alpha", current=new, previous=old.current)


def _credential(name: str, password: str) -> dict[str, object]:
    members = asdict(a_credential(name, password))
    return {member: value for member, value in members.items() if member not in NEWER}
