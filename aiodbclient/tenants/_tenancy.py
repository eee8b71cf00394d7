"""``Tenancy``: the state that all operations of one ``Tenants`` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeAlias

from attrs import evolve, field, frozen

from ..clusters import ClusterClient
from ..engines import Capabilities
from ..errors import InvalidArgumentError, StoreError
from ._claims import HeldClaim
from ._credential import Credential
from ._events import Spent, TenantEvent
from ._naming import Names, names_of, record_name, tenant_of
from ._roles import Role
from ._site import SiteReader
from ._stores import Record, Store, entries_of, readable

Setup: TypeAlias = Callable[[Credential], Awaitable[object]]


def _turns() -> asyncio.Semaphore:
    return asyncio.Semaphore(Capabilities().concurrent_user_writes)


@frozen(kw_only=True, eq=False)
class Tenancy:
    """The state that all operations of one ``Tenants`` share.

    Attributes:
        cluster: The cluster.
        store: Its store.
        prefix: The beginning of the names of databases and logins.
        role: The role of the logins.
        lease: Seconds for which a claim holds unless it is renewed.
        site: Reads the cluster once.
        setup: Called with the credential of a new tenant before it is stored, or None.
        on_event: Called after the work on each tenant, or None.
        turns: Limits how many names ``ensure`` works on at a time.
    """

    cluster: ClusterClient
    store: Store
    prefix: str
    role: Role = Role.OWNER
    lease: float
    site: SiteReader
    setup: Setup | None
    on_event: Callable[[TenantEvent], object] | None
    turns: asyncio.Semaphore = field(factory=_turns)

    def for_role(self, role: Role) -> Tenancy:
        """The same for another role."""
        return evolve(self, role=role)

    async def record(self, name: str, spent: Spent) -> Record | None:
        """Read the record of a tenant. Raises as ``check_record``."""
        record = await spent.on_store(self.store.get(record_name(name, self.role)))
        self.check_record(record)
        return record

    def records(self) -> AsyncIterator[Record]:
        """Yield the records of this role, each with the tenant's name. Raises as ``check_record``."""
        return readable(self._entries())

    async def names(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record in this role, also of those whose record cannot be read."""
        async for entry in self._entries():
            yield tenant_of(entry.damaged[0])[0] if isinstance(entry, StoreError) else entry.name

    async def _entries(self) -> AsyncIterator[Record | StoreError]:
        async for entry in entries_of(self.store):
            name, role = tenant_of(entry.damaged[0] if isinstance(entry, StoreError) else entry.name)
            if role is self.role:
                if isinstance(entry, Record):
                    self.check_record(entry)
                    entry = evolve(entry, name=name)
                yield entry

    async def claim(self, names: Names, spent: Spent) -> HeldClaim | None:
        """Claim the tenant; None if somebody else works on it. Raises as ``check_record``."""
        since = HeldClaim.now()
        claim = await spent.on_store(self.store.claim(names.record, self.lease))
        return None if claim is None else HeldClaim(self.store, claim, self.lease, since, spent)

    def check_record(self, record: Record | None) -> None:
        """Make sure that ``record`` belongs to this cluster and prefix. Otherwise its names here are somebody else's.

        Raises:
            InvalidArgumentError: It does not.
            UnsupportedOperationError: It has a credential of an engine that does not support tenants.
        """
        for credential in () if record is None else (record.current, record.previous):
            if credential is None:
                continue
            if credential.cluster not in (None, self.cluster.id):
                raise InvalidArgumentError(
                    f"the tenant {credential.name!r} is on record for the cluster {credential.cluster}, but this is "
                    f"{self.cluster.id}: give each cluster a store of its own; nothing was sent"
                )
            check_login(names_of(credential.name, credential.engine, self.prefix, self.role), credential.username)


def check_login(names: Names, login: str | None) -> None:
    """Make sure that the stored ``login`` is one of the tenant's. Raises InvalidArgumentError."""
    if login is not None and login not in names.logins:
        raise InvalidArgumentError(
            f"the tenant {names.tenant!r} is on record with the login {login!r}, but with this prefix its logins are "
            f"{' and '.join(map(repr, names.logins))}: use the prefix that it was created with, and give each prefix "
            "a store of its own; nothing was sent"
        )


async def now_of(store: Store) -> datetime:
    """The time in UTC by the clock of ``store``, or by this machine's if the store has no method ``now``."""
    now: Callable[[], Awaitable[datetime]] | None = getattr(store, "now", None)
    return datetime.now(UTC) if now is None else await now()


def usable(record: Record | None) -> Credential | None:
    """The current credential of ``record``; None if there is none, or if the intent names its login."""
    if record is None or record.current is None or record.intended == record.current.username:
        return None
    return record.current


def required(name: str, credential: Credential | None) -> Credential:
    """Return the usable ``credential`` of the tenant ``name``.

    Raises:
        InvalidArgumentError: There is none.
    """
    if credential is None:
        raise InvalidArgumentError(
            f"the tenant {name!r} has no usable credential on record: provision or repair it first; nothing was sent"
        )
    return credential
