"""``Context``: what all operations of one ``Tenants`` share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from attrs import frozen

from ..errors import ConflictError, NameTakenError
from ._clusters import TenantClusters
from ._credential import Credential
from ._naming import Role
from ._outcomes import TenantEvent
from ._placement import Placement
from ._records import TenantRecord, TenantState
from ._stores import Store, entries_of
from .errors import StoreError

Setup: TypeAlias = Callable[[Credential], Awaitable[object]]


@frozen(kw_only=True, eq=False)
class Context:
    """What all operations of one ``Tenants`` share."""

    clusters: TenantClusters
    placement: Placement
    store: Store
    prefix: str
    role: Role = Role.OWNER
    setup: Setup | None
    version: str | None = None  # of what ``setup`` makes
    on_event: Callable[[TenantEvent], object] | None

    async def record(self, name: str) -> TenantRecord | None:
        """Read the record of a tenant, or raise as ``check_ours`` does."""
        record = await self.store.get(name)
        self.check_ours(record)
        return record

    def check_ours(self, record: TenantRecord | None) -> None:
        """Raise ConflictError if a record is of other clusters, or its NameTakenError if it has another prefix."""
        if record is None:
            return
        name, clusters = record.name, self.clusters.clients
        if record.cluster not in clusters:
            own = f"{'this is' if len(clusters) == 1 else 'these are'} {', '.join(clusters)}"
            raise ConflictError(
                f"the tenant {name!r} is on record for the cluster {record.cluster}, but {own}: name that cluster too, "
                "or choose another name, since a name is taken in the whole store; nothing was sent",
                status=409,
            )
        if record.database != self.prefix + name:
            raise NameTakenError(
                f"the tenant {name!r} is on record with another prefix than {self.prefix!r}: use the prefix that it "
                "was created with; a name is taken in the whole store; nothing was sent",
                status=409,
            )

    async def names(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record in this role, also of those whose record cannot be read."""
        async for entry in self.entries():
            yield entry.damaged[0] if isinstance(entry, StoreError) else entry.name

    async def entries(self) -> AsyncIterator[TenantRecord | StoreError]:
        """Yield the record of each tenant that has this role, or the StoreError if it cannot be read."""
        async for entry in entries_of(self.store):
            if isinstance(entry, StoreError):
                yield entry
                continue
            try:
                self.check_ours(entry)
            except ConflictError:
                continue
            if entry.state(self.role) is not TenantState.ABSENT:
                yield entry
