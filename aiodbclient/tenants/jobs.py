"""What the runs over tenants do for each name: claim it, and do the work under the claim."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from typing import get_args

import backoff

from .._bulk.job import Job
from .._bulk.outcomes import Action
from .._request.call import Meter
from ..clusters import ClusterClient
from ..engines import CAPABILITIES, Capabilities
from ..errors import (
    ClaimLostError,
    DatabaseClientError,
    GrantError,
    InvalidArgumentError,
    PermissionDeniedError,
    StoreError,
)
from .claims import ClaimedTenant, Held
from .credential import Credential
from .logins import usable
from .naming import Names, check_tenant, names_of
from .outcomes import TenantDone
from .site import Site, read_site
from .stores import Record, Store
from .work import IfExists, mend, provision, remove, retire, rotate

_AT_A_TIME = 4  # times as many names may wait for claims of others as are worked on
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between looking whether a claim of another has ended
_LOSSES = 5  # claims of one name that may be lost before it is given up


class Tenancy:
    """What every operation on the tenants of one cluster shares."""

    def __init__(
        self, cluster: ClusterClient, store: Store, *, prefix: str, private: bool, admin: str | None, lease: float
    ) -> None:
        self.cluster = cluster
        self.store = store
        self.prefix = prefix
        self.lease = lease
        self._private = private
        self._admin = admin
        self._site: Site | None = None
        self._reading = asyncio.Lock()
        self.turns = asyncio.Semaphore(Capabilities().concurrent_user_writes)

    async def site(self, cluster: ClusterClient) -> Site:
        """The cluster, read once, with the options of ``cluster``."""
        async with self._reading:
            if self._site is None:
                self._site = await read_site(cluster, private=self._private, admin=self._admin)
            return self._site

    def forget_site(self) -> None:
        """Read the cluster again the next time: its primary user may have got another password."""
        self._site = None

    def usable(self, record: Record | None) -> Credential | None:
        """The credential on record that can be used. Raises InvalidArgumentError as ``check`` does."""
        self.check(record)
        return usable(record)

    def check(self, record: Record | None) -> None:
        """See whether ``record`` is of this cluster and this prefix.

        Raises:
            InvalidArgumentError: It is not: what has its names here may be somebody else's.
        """
        for credential in () if record is None else (record.current, record.previous):
            if credential is None:
                continue
            if credential.cluster not in (None, self.cluster.id):
                raise InvalidArgumentError(
                    f"the tenant {credential.name!r} is on record for the cluster {credential.cluster}, and this is "
                    f"{self.cluster.id}: give each cluster a store of its own; nothing was sent"
                )
            names = names_of(credential.name, credential.engine, self.prefix)
            _check_login(names, credential.username)

    async def claim(self, name: str) -> Held | None:
        """Claim ``name``, or None where somebody else works on it."""
        since = Held.now()
        claim = await self.store.claim(name, self.lease)
        return None if claim is None else Held(self.store, claim, self.lease, since)


class TenantJob(Job[str, TenantDone]):
    """A job on tenants, each given by name.

    Args:
        tenancy: The cluster and the store.
        bulk: Whether its requests wait in the bulk lane, however long it takes.
    """

    def __init__(self, tenancy: Tenancy, *, bulk: bool = True) -> None:
        self.tenancy = tenancy
        self._bulk = bulk
        self._turns = tenancy.turns

    def check(self, given: object) -> str:
        if not isinstance(given, str):
            raise InvalidArgumentError(f"this run takes names (str), not {given!r}; nothing was sent")
        return given

    async def prepare(self, meter: Meter) -> int:
        """Read the cluster. More names are begun than worked on, since others may hold their claims."""
        site = await self.tenancy.site(self._calls(meter))
        at_a_time = CAPABILITIES[site.engine].concurrent_user_writes
        self._turns = asyncio.Semaphore(at_a_time)
        return _AT_A_TIME * at_a_time

    async def do(self, spec: str, meter: Meter) -> TenantDone:
        """Do it under the claim, for which it waits as long as somebody else works on the name."""
        tenancy, name = self.tenancy, check_tenant(spec)
        record = await tenancy.store.get(name)
        before = tenancy.usable(record)
        if (known := self.known(name, record, before)) is not None:
            return known
        calls = self._calls(meter)
        site = await tenancy.site(calls)
        names = names_of(name, site.engine, tenancy.prefix)
        losses = 0
        waits = backoff.expo(factor=_FIRST_LOOK, max_value=_LONGEST_LOOK)
        next(waits)
        while True:
            async with self._turns:
                held = await tenancy.claim(name)
                if held is not None:
                    try:
                        tenant = ClaimedTenant(site, calls.watched(held.check), names, held)
                        return await self._under(tenant, before, meter)
                    except ClaimLostError:
                        losses += 1
                        if losses == _LOSSES:
                            raise
                        if held.wrote:
                            await self._mend(name, site, calls, names)
                    except GrantError:
                        tenancy.forget_site()
                        raise
            await asyncio.sleep(backoff.full_jitter(next(waits)))
            if (known := self.known(name, await tenancy.store.get(name), before)) is not None:
                return known

    def _calls(self, meter: Meter) -> ClusterClient:
        return self.tenancy.cluster.counted(meter) if self._bulk else self.tenancy.cluster

    async def _under(self, tenant: ClaimedTenant, before: Credential | None, meter: Meter) -> TenantDone:
        async with tenant.held as held:
            name = held.claim.name
            if (known := self.known(name, held.record, before)) is not None:
                return known
            _check_login(tenant.names, held.record.intended)
            try:
                action, credential = await self.work(tenant)
            except StoreError:
                raise
            except DatabaseClientError:
                if held.wrote:
                    await held.renew()  # was the claim lost meanwhile, what was sent may have come last
                raise
            return TenantDone(name=name, action=action, credential=credential, tries=meter.requests)

    async def _mend(self, name: str, site: Site, calls: ClusterClient, names: Names) -> None:
        """Make sure that the credential on record works, once whoever took the claim over has ended.

        The request that was sent just before the claim was lost may have come after theirs.
        """
        while True:
            held = await self.tenancy.claim(name)
            if held is not None:
                async with held:
                    await mend(ClaimedTenant(site, calls.watched(held.check), names, held))
                return
            await asyncio.sleep(_LONGEST_LOOK)

    def ends_run(self, error: Exception) -> bool:
        """A store that cannot be used ends the run too: nothing could be recorded."""
        lost_store = isinstance(error, StoreError) and not isinstance(error, ClaimLostError)
        return lost_store or super().ends_run(error)

    @abstractmethod
    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        """The outcome, where the record tells that nothing is to be done.

        Args:
            name: The tenant.
            record: What is on record now.
            before: The usable credential that was on record when this began.

        Raises:
            InvalidArgumentError: The record tells that it cannot be done.
        """

    @abstractmethod
    async def work(self, tenant: ClaimedTenant) -> tuple[Action, Credential | None]:
        """Do it."""


class ProvisionTenants(TenantJob):
    """Give each tenant a database and a login that owns it, on record."""

    def __init__(self, tenancy: Tenancy, if_exists: IfExists = "adopt", *, bulk: bool = True) -> None:
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "adopt", "reset" or "error", not {if_exists!r}')
        super().__init__(tenancy, bulk=bulk)
        self._if_exists: IfExists = if_exists
        self._listing = asyncio.Lock()
        self._existing: frozenset[str] | None = None

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = self.tenancy.usable(record)
        return None if credential is None else TenantDone(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> tuple[Action, Credential]:
        logins = await self._logins(tenant.cluster) if self._bulk else None
        absent = logins is not None and tenant.names.logins[0] not in logins
        return await provision(tenant, self._if_exists, absent=absent)

    async def _logins(self, cluster: ClusterClient) -> frozenset[str] | None:
        """The logins of the cluster, listed when the first name asks: a request for each would take half as long again.

        None where the token may not list them.
        """
        async with self._listing:
            if self._existing is None:
                with suppress(PermissionDeniedError):
                    self._existing = frozenset(user.name for user in await cluster.users.list())
            return self._existing


class RotateTenants(TenantJob):
    """Let each tenant's other login take over."""

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = _required(name, self.tenancy.usable(record))
        if before is None or credential == before:
            return None
        return TenantDone(name=name, action=Action.ROTATED, credential=credential)  # somebody else did, meanwhile

    async def work(self, tenant: ClaimedTenant) -> tuple[Action, Credential]:
        return await rotate(tenant)


class RetireTenants(TenantJob):
    """End what rotate left of each tenant."""

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = _required(name, self.tenancy.usable(record))
        if record is None or record.previous is not None or record.intended is not None:
            return None
        return TenantDone(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> tuple[Action, Credential]:
        return await retire(tenant)


class RemoveTenants(TenantJob):
    """Remove each tenant: its logins, its database, its record."""

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        self.tenancy.check(record)
        return TenantDone(name=name, action=Action.ABSENT) if record is None else None

    async def work(self, tenant: ClaimedTenant) -> tuple[Action, None]:
        return await remove(tenant)


def _check_login(names: Names, login: str | None) -> None:
    if login is not None and login not in names.logins:
        raise InvalidArgumentError(
            f"the tenant {names.tenant!r} is on record with the login {login!r}, and with this prefix its logins are "
            f"{' and '.join(map(repr, names.logins))}: give each prefix a store of its own; nothing was sent"
        )


def _required(name: str, credential: Credential | None) -> Credential:
    if credential is None:
        raise InvalidArgumentError(
            f"the tenant {name!r} has no credential on record: provision it first; nothing was sent"
        )
    return credential
