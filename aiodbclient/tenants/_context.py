"""``Context``: what all operations of one ``Tenants`` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import TypeAlias

from attrs import evolve, frozen

from .._request.pause import Pause
from ..errors import InvalidArgumentError, StoreError
from ._clusters import Sites
from ._credential import Credential
from ._events import TenantEvent, Timer
from ._naming import Role, names_of, record_name, tenant_of
from ._record import OnRecord, read_all
from ._rooms import Rooms
from ._stores import Record, Store, readable

Setup: TypeAlias = Callable[[Credential], Awaitable[object]]

AT_A_TIME = 16  # tenants of one cluster that a job works on. Their server takes fewer connections


def turns_of(clusters: Iterable[str]) -> dict[str, asyncio.Semaphore]:
    """How many tenants of each cluster to work on at a time."""
    return {id: asyncio.Semaphore(AT_A_TIME) for id in clusters}


@frozen(kw_only=True, eq=False)
class Context:
    """What all operations of one ``Tenants`` share."""

    sites: Sites
    rooms: Rooms
    turns: dict[str, asyncio.Semaphore]  # how many tenants of each cluster all single calls work on at a time
    store: Store
    prefix: str
    role: Role = Role.OWNER
    lease: float
    setup: Setup | None
    on_event: Callable[[TenantEvent], object] | None

    def for_job(self, pause: Pause) -> Context:
        """The same for one job, with turns of its own."""
        return evolve(self, sites=self.sites.for_job(pause), turns=turns_of(self.sites.clients))

    def for_role(self, role: Role) -> Context:
        """The same for another role."""
        return evolve(self, role=role)

    async def now(self) -> datetime:
        """The time in UTC by the clock of the store, or by this machine's if the store has no method ``now``."""
        now: Callable[[], Awaitable[datetime]] | None = getattr(self.store, "now", None)
        return datetime.now(UTC) if now is None else await now()

    async def record(self, name: str, timer: Timer) -> OnRecord:
        """Read what is on record for a tenant. Raises as ``ours``."""
        record = await timer.on("store", self.store.get(record_name(name, self.role)))
        return self.ours(name, record)

    def ours(self, name: str, record: Record | None) -> OnRecord:
        """Read the record of a tenant. Raises InvalidArgumentError if it is of other clusters or another prefix."""
        found = OnRecord.read(name, self.role, record)
        if reason := self._why_not_ours(found):
            raise InvalidArgumentError(reason)
        return found

    async def records(self) -> AsyncIterator[Record]:
        """Yield the records of this role that are ours, each with the tenant's name."""
        async for found, reason in self.all_records():
            if not reason:
                yield found.record()

    async def all_records(self) -> AsyncIterator[tuple[OnRecord, str]]:
        """Yield all that is on record in this role, and why it is not ours ("" if it is)."""
        async for found in readable(self._entries()):
            yield found, self._why_not_ours(found)

    async def names(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record in this role, also of those whose record cannot be read."""
        async for entry in self.entries():
            yield tenant_of(entry.damaged[0])[0] if isinstance(entry, StoreError) else entry.name

    async def entries(self) -> AsyncIterator[OnRecord | StoreError]:
        """Yield what is on record for these names, with the error of each record that cannot be read in its place."""
        async for entry in self._entries():
            # A name that is only claimed may be on its way to a cluster of another ``Tenants``.
            if isinstance(entry, StoreError) or not (entry.is_empty or self._why_not_ours(entry)):
                yield entry

    async def _entries(self) -> AsyncIterator[OnRecord | StoreError]:
        async for entry in read_all(self.store):
            role = tenant_of(entry.damaged[0])[1] if isinstance(entry, StoreError) else entry.role
            if role is self.role:
                yield entry

    def _why_not_ours(self, found: OnRecord) -> str:
        """Why a record belongs to another cluster or prefix; "" if it does not."""
        name, cluster, intent = found.name, found.cluster, found.intent
        if cluster is not None and cluster not in self.sites.clients:
            own = f"{'this is' if len(self.sites.clients) == 1 else 'these are'} {', '.join(self.sites.clients)}"
            return (
                f"the tenant {name!r} is on record for the cluster {cluster}, but {own}: name that cluster too, or "
                "choose another name, since a name is taken in the whole store; nothing was sent"
            )
        credential = found.current or found.previous
        if credential is not None:
            is_ours = credential.database == self.prefix + name
        else:
            is_ours = intent is None or self._is_login(intent.login, name)
        if is_ours:
            return ""
        return (
            f"the tenant {name!r} is on record with another prefix than {self.prefix!r}: use the prefix that it was "
            "created with; a name is taken in the whole store; nothing was sent"
        )

    def _is_login(self, login: str, name: str) -> bool:
        """Whether the tenant may have such a login, as far as the engine is known."""
        engine = self.sites.engine
        try:
            return engine is None or login in names_of(name, engine, self.prefix, self.role).logins
        except InvalidArgumentError:  # with another prefix the name itself may be invalid
            return False
