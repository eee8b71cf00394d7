"""The jobs of the runs over tenants: for each name, claim it and do the work under the claim.

What the work is, ``work.py`` says. Here is what all of it has in common: looking at the record first, claiming, waiting
for the claim of another process, and what becomes of a claim that was lost.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TypeVar, get_args

import backoff
from attrs import evolve

from .._bulk.job import Job
from .._bulk.outcomes import Action
from .._bulk.specs import name_spec
from .._request.call import Meter
from ..clusters import ClusterClient, for_work
from ..engines import CAPABILITIES, Capabilities
from ..errors import (
    ClaimLostError,
    DatabaseClientError,
    GrantError,
    InvalidArgumentError,
    PermissionDeniedError,
    StoreError,
)
from .claims import ClaimedTenant, HeldClaim
from .credential import Credential
from .logins import required, usable
from .naming import Names, check_tenant, names_of
from .outcomes import TenantDone, TenantRemoved
from .site import Site, read_site
from .stores import Record, Store
from .work import IfLoginExists, mend, provision, remove, retire, rotate

DoneT = TypeVar("DoneT", TenantDone, TenantRemoved)

_BEGUN = 4  # names that are begun for each that is worked on; the others wait for claims of other processes
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between two looks whether another process has ended its claim
_LOSSES = 5  # claims of one name that may be lost before it fails


class Tenancy:
    """What all operations of one ``Tenants`` share: the cluster, the store, and what was read of the cluster.

    Args:
        cluster: The cluster.
        store: Its store.
        prefix: What the names of databases and logins begin with.
        private: Whether to use the private connection.
        admin: The DSN of an administrator, or None for the primary user.
        lease: Seconds that a claim holds without being renewed.

    Attributes:
        turns: Limits how many names are worked on at a time by ``ensure``.
    """

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
        """What is known of the cluster. The first call reads it, through ``cluster``. Raises as ``read_site``."""
        async with self._reading:
            if self._site is None:
                self._site = await read_site(cluster, private=self._private, admin=self._admin)
            return self._site

    def forget_site(self) -> None:
        """Have the next call of ``site`` read the cluster again: its primary user may have got another password."""
        self._site = None

    def credential(self, record: Record | None) -> Credential | None:
        """The usable credential of ``record``, or None. Raises as ``check``."""
        self.check(record)
        return usable(record)

    def check(self, record: Record | None) -> None:
        """Make sure that ``record`` is of this cluster and this prefix; else what has its names here is another's.

        Raises:
            InvalidArgumentError: It is not.
            UnsupportedOperationError: It has a credential of an engine that can have no tenants.
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

    async def claim(self, name: str) -> HeldClaim | None:
        """Claim ``name``; None if somebody else works on it."""
        since = HeldClaim.now()
        claim = await self.store.claim(name, self.lease)
        return None if claim is None else HeldClaim(self.store, claim, self.lease, since)


class TenantJob(Job[str, DoneT]):
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
        return name_spec(given)

    async def prepare(self, meter: Meter) -> int:
        """Read the cluster, and return how many names to begin at a time.

        That is more than are worked on, since other processes may hold the claims of some.
        """
        site = await self.tenancy.site(self._calls(meter))
        at_a_time = CAPABILITIES[site.engine].concurrent_user_writes
        self._turns = asyncio.Semaphore(at_a_time)
        return _BEGUN * at_a_time

    async def do(self, spec: str, meter: Meter) -> DoneT:
        """Claim the name and do the work, unless the record tells that there is nothing to do.

        While another process works on the name, this waits, and looks at the record again and again. A claim that is
        lost is claimed again; if it was lost after a request that changes a password, ``mend`` comes first.
        """
        tenancy, name = self.tenancy, check_tenant(spec)
        record = await tenancy.store.get(name)
        before = tenancy.credential(record)
        if (known := self.known(name, record, before)) is not None:
            return known
        calls = self._calls(meter)
        site = await tenancy.site(calls)
        names = names_of(name, site.engine, tenancy.prefix)
        losses = 0
        looks = backoff.expo(factor=_FIRST_LOOK, max_value=_LONGEST_LOOK)
        next(looks)
        while True:
            async with self._turns:
                held = await tenancy.claim(name)
                if held is not None:
                    try:
                        tenant = ClaimedTenant(site, for_work(calls, before_sending=held.check), names, held)
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
            await asyncio.sleep(backoff.full_jitter(next(looks)))
            if (known := self.known(name, await tenancy.store.get(name), before)) is not None:
                return known

    def _calls(self, meter: Meter) -> ClusterClient:
        return for_work(self.tenancy.cluster, meter=meter, bulk=self._bulk)

    async def _under(self, tenant: ClaimedTenant, before: Credential | None, meter: Meter) -> DoneT:
        async with tenant.held as held:
            name = held.claim.name
            if (known := self.known(name, held.record, before)) is not None:
                return known
            _check_login(tenant.names, held.record.intended)
            try:
                done = await self.work(tenant)
            except StoreError:
                raise
            except DatabaseClientError:
                if held.wrote:
                    await held.renew()  # raises ClaimLostError if it was lost: then ``do`` mends
                raise
            return evolve(done, tries=meter.requests)

    async def _mend(self, name: str, site: Site, calls: ClusterClient, names: Names) -> None:
        """Run ``mend`` under a claim of its own, once the process that took the lost claim over has ended its own."""
        while True:
            held = await self.tenancy.claim(name)
            if held is not None:
                async with held:
                    await mend(ClaimedTenant(site, for_work(calls, before_sending=held.check), names, held))
                return
            await asyncio.sleep(_LONGEST_LOOK)

    def ends_run(self, error: Exception) -> bool:
        """Whether ``error`` ends the run: also if the store cannot be used, since nothing could be put on record."""
        lost_store = isinstance(error, StoreError) and not isinstance(error, ClaimLostError)
        return lost_store or super().ends_run(error)

    @abstractmethod
    def known(self, name: str, record: Record | None, before: Credential | None) -> DoneT | None:
        """The outcome, if the record tells that there is nothing to do; else None.

        Args:
            name: The tenant.
            record: What is on record now.
            before: The usable credential that was on record when ``do`` began.

        Raises:
            InvalidArgumentError: The record tells that it cannot be done.
        """

    @abstractmethod
    async def work(self, tenant: ClaimedTenant) -> DoneT:
        """Do the work on one tenant, under its claim, and return its outcome, without ``tries``."""


class ProvisionTenants(TenantJob[TenantDone]):
    """Give each tenant a database and a login that owns it, on record. See ``Tenants.provision``."""

    def __init__(self, tenancy: Tenancy, if_exists: IfLoginExists = "adopt", *, bulk: bool = True) -> None:
        if if_exists not in get_args(IfLoginExists):
            raise InvalidArgumentError(f'if_exists must be "adopt", "reset" or "error", not {if_exists!r}')
        super().__init__(tenancy, bulk=bulk)
        self._if_exists: IfLoginExists = if_exists
        self._listing = asyncio.Lock()
        self._existing: frozenset[str] | None = None
        self._may_list = True

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = self.tenancy.credential(record)
        return None if credential is None else TenantDone(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        logins = await self._logins(tenant.cluster) if self._bulk else None
        absent = logins is not None and tenant.names.logins[0] not in logins
        return _done(tenant, await provision(tenant, self._if_exists, absent=absent))

    async def _logins(self, cluster: ClusterClient) -> frozenset[str] | None:
        """The logins of the cluster, listed once for the run; None if the token may not list them.

        Reading the login of each tenant instead would be a third request for each.
        """
        async with self._listing:
            if self._existing is None and self._may_list:
                try:
                    self._existing = frozenset(user.name for user in await cluster.users.list())
                except PermissionDeniedError:
                    self._may_list = False
            return self._existing


class RotateTenants(TenantJob[TenantDone]):
    """Give each tenant a credential with its other login. See ``Tenants.rotate``."""

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = required(name, self.tenancy.credential(record))
        if before is None or credential == before:
            return None
        return TenantDone(name=name, action=Action.ROTATED, credential=credential)  # by another process, meanwhile

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        return _done(tenant, await rotate(tenant))


class RetireTenants(TenantJob[TenantDone]):
    """End the credential of each tenant from before ``rotate``. See ``Tenants.retire``."""

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantDone | None:
        credential = required(name, self.tenancy.credential(record))
        if record is None or record.previous is not None or record.intended is not None:
            return None
        return TenantDone(name=name, action=Action.KEPT, credential=credential)

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        return _done(tenant, await retire(tenant))


class RemoveTenants(TenantJob[TenantRemoved]):
    """Remove each tenant: its logins, its database, its record. See ``Tenants.remove``."""

    def known(self, name: str, record: Record | None, before: Credential | None) -> TenantRemoved | None:
        self.tenancy.check(record)
        return TenantRemoved(name=name, action=Action.ABSENT) if record is None else None

    async def work(self, tenant: ClaimedTenant) -> TenantRemoved:
        return TenantRemoved(name=tenant.names.tenant, action=await remove(tenant))


def _done(tenant: ClaimedTenant, what: tuple[Action, Credential]) -> TenantDone:
    action, credential = what
    return TenantDone(name=tenant.names.tenant, action=action, credential=credential)


def _check_login(names: Names, login: str | None) -> None:
    if login is not None and login not in names.logins:
        raise InvalidArgumentError(
            f"the tenant {names.tenant!r} is on record with the login {login!r}, and with this prefix its logins are "
            f"{' and '.join(map(repr, names.logins))}: give each prefix a store of its own; nothing was sent"
        )
