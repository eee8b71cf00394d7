"""``Tenancy``: the state that all operations of one ``Tenants`` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeAlias

from attrs import evolve, field, frozen

from ..clusters import ClusterClient
from ..engines import Capabilities
from ..errors import InvalidArgumentError, SuspendedError, TenantNotFoundError
from ._claims import HeldClaim
from ._credential import Credential
from ._events import Spent, TenantEvent
from ._intent import Verb, intended_login, intent_of
from ._naming import Names, names_of, record_name, tenant_of
from ._roles import Role
from ._site import SiteReader
from ._stores import Record, Store

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

    async def records(self) -> AsyncIterator[Record]:
        """Yield the records of this role, each with the tenant's name. Raises as ``check_record``."""
        async for record in self.store.records():
            name, role = tenant_of(record.name)
            if role is self.role:
                self.check_record(record)
                yield evolve(record, name=name)

    async def names(self) -> AsyncIterator[str]:
        """Yield the names of all tenants on record in this role."""
        async for record in self.records():
            yield record.name

    async def roles(self, name: str, spent: Spent) -> list[Tenancy]:
        """The readers and writers that the tenant has on record; none for a reader or writer itself."""
        others = () if self.role is not Role.OWNER else (Role.WRITER, Role.READER)
        found = [role for role in others if await spent.on_store(self.store.get(record_name(name, role))) is not None]
        return [self.for_role(role) for role in found]

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
        if record is None:
            return
        intent = intent_of(record)
        if intent is not None:
            self._check_cluster(tenant_of(record.name)[0], intent.cluster)
        for credential in (record.current, record.previous):
            if credential is None:
                continue
            self._check_cluster(credential.name, credential.cluster)
            check_login(names_of(credential.name, credential.engine, self.prefix, self.role), credential.username)

    def _check_cluster(self, name: str, cluster: str | None) -> None:
        if cluster not in (None, self.cluster.id):
            raise InvalidArgumentError(
                f"the tenant {name!r} is on record for the cluster {cluster}, but this is "
                f"{self.cluster.id}: give each cluster a store of its own; nothing was sent"
            )


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
    """The credential of ``record`` that a program can use; None if there is none, or its login changes or is ended."""
    if record is None or record.current is None or record.current.suspended is not None:
        return None
    return None if intended_login(record) == record.current.username else record.current


def suspended(record: Record | None) -> Credential | None:
    """The credential of a suspended tenant. None if it is not suspended, or if another verb has begun."""
    if record is None or record.current is None or record.current.suspended is None or record.intended is not None:
        return None
    return record.current


def required(name: str, record: Record | None, role: Role = Role.OWNER) -> Credential:
    """Return the usable credential of ``record``. Raises as ``unusable`` describes."""
    credential = usable(record)
    if credential is None:
        raise unusable(name, record, role)
    return credential


def unusable(name: str, record: Record | None, role: Role = Role.OWNER) -> TenantNotFoundError | SuspendedError:
    """The error for a tenant, or a role of it, that has no usable credential. It names the verb to run next."""
    who = f"the tenant {name!r}" if role is Role.OWNER else f"the {role} of the tenant {name!r}"
    intent = intent_of(record)
    if intent is not None and intent.removes:
        return TenantNotFoundError(f"the removal of {who} is unfinished: run remove; nothing was sent")
    if intent is not None and intent.verb is Verb.SUSPEND:
        return SuspendedError(f"the suspension of {who} is unfinished: run suspend, or resume; nothing was sent")
    if record is not None and record.current is not None and (since := record.current.suspended) is not None:
        return SuspendedError(f"{who} is suspended since {since:%Y-%m-%d %H:%M} UTC: resume it first; nothing was sent")
    if role is not Role.OWNER and (record is None or (record.current is None and intent is None)):
        return TenantNotFoundError(f"the tenant {name!r} has no {role}: provision one first; nothing was sent")
    return TenantNotFoundError(
        f"{who} has no usable credential on record: provision or repair it first; nothing was sent"
    )
