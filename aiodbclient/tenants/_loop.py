"""``ClaimingJob``: the loop that all work on a tenant shares. Read the record, claim it, work under the claim."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from random import uniform
from typing import TypeVar

from attrs import define, evolve, field

from .._bulk.job import Job
from .._bulk.outcomes import Action
from .._bulk.specs import name_spec
from .._bulk.waits import waits
from .._request.call import Meter
from ..clusters import ClusterClient, for_work
from ..engines import CAPABILITIES
from ..errors import ClaimLostError, GrantError, StoreError
from ._claims import ClaimedTenant
from ._credential import Credential
from ._events import Spent
from ._logins import working_credential, works
from ._naming import check_tenant, names_of
from ._outcomes import TenantChecked, TenantDone, TenantRemoved, TenantRepaired
from ._stores import Record
from ._tenancy import Tenancy, check_login, usable

DoneT = TypeVar("DoneT", TenantDone, TenantRepaired, TenantRemoved, TenantChecked)

_BEGUN = 4  # names begun for each that is worked on. The others wait for a turn, or for a claim of another process
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # s between two looks at a record that another process has claimed
_LOSSES = 5  # lost claims of one name before it fails, unless a request of ours may have changed a password (``Doubt``)


@define
class Doubt:
    """The open questions of a process that lost its claim.

    Attributes:
        logins: Its requests may change the passwords of these logins later than the requests of the next claimant.
        replacing: Whether it may have left an intent of ``_verify_credential`` on record.
    """

    logins: set[str] = field(factory=set[str])
    replacing: bool = False


class TenantJob(Job[str, DoneT]):
    """A job on tenants, given by name. ``do_one`` is the work on one of them.

    Args:
        tenancy: The cluster and the store.
        bulk: Whether its requests wait in the bulk lane, as long as necessary.
    """

    def __init__(self, tenancy: Tenancy, *, bulk: bool = True) -> None:
        super().__init__()
        self.tenancy = tenancy
        self.bulk = bulk
        self._turns = tenancy.turns

    def check(self, given: object) -> str:
        return name_spec(given)

    async def prepare(self, meter: Meter) -> int:
        """Read the cluster, and return how many names to begin at a time.

        This is more than it works on at a time, because other processes may hold the claims of some.
        """
        site = await self.tenancy.site.read(self.calls(meter))
        at_a_time = CAPABILITIES[site.engine].concurrent_user_writes
        self._turns = asyncio.Semaphore(at_a_time)
        return _BEGUN * at_a_time

    async def do(self, spec: str, meter: Meter) -> DoneT:
        """Do the work on one tenant, and report it to ``on_event``."""
        spent = Spent(meter)
        on_event, role = self.tenancy.on_event, self.tenancy.role
        try:
            done = evolve(await self.do_one(check_tenant(spec), spent), tries=meter.requests)
        except Exception as error:
            spent.report(on_event, spec, role, Action.FAILED, type(error).__name__)
            raise
        spent.report(on_event, spec, role, done.action, None)
        return done

    def calls(self, meter: Meter, tenant: str | None = None) -> ClusterClient:
        """The cluster, in the lane of this job. ``meter`` counts the requests."""
        pause = self.pause if self.bulk else None
        return for_work(self.tenancy.cluster, meter=meter, pause=pause, tenant=tenant)

    def ends_run(self, error: Exception) -> bool:
        """Whether ``error`` ends the run. A store that cannot be used does, because nothing could be stored."""
        lost_store = isinstance(error, StoreError) and not isinstance(error, ClaimLostError)
        return lost_store or super().ends_run(error)

    @abstractmethod
    async def do_one(self, name: str, spent: Spent) -> DoneT:
        """Do the work on one tenant, and return its outcome, without ``tries``."""


class ClaimingJob(TenantJob[DoneT]):
    """A job that changes tenants. Each verb is a subclass with the methods ``known`` and ``work``."""

    async def do_one(self, name: str, spent: Spent) -> DoneT:
        """Claim the tenant and do the work, unless its record shows that there is nothing to do.

        While another process works on it, this waits and reads the record repeatedly. After a lost claim it claims
        again. If it had sent a request that changes a password, that request may have ended a password that another
        process stored since. Then it runs ``_verify_credential`` first.
        """
        tenancy = self.tenancy
        record = await tenancy.record(name, spent)
        before = usable(record)
        if (known := self.known(name, record, before)) is not None:
            return known
        calls = self.calls(spent.meter, name)
        site = await tenancy.site.read(calls)
        names = names_of(name, site.engine, tenancy.prefix, tenancy.role)
        losses, doubt = 0, Doubt()
        looks = waits(first=_FIRST_LOOK, longest=_LONGEST_LOOK)
        next(looks)
        while True:
            async with self._turns:
                held = await tenancy.claim(names, spent)
                if held is not None:
                    watched = for_work(calls, tenant=name, before_sending=held.check_lease)
                    tenant = ClaimedTenant(site=site, cluster=watched, names=names, held=held, spent=spent)
                    try:
                        async with held:
                            if not doubt.logins:
                                return await self._under(tenant, before)
                            await _verify_credential(tenant, doubt)
                        doubt = Doubt()
                        continue
                    except ClaimLostError:
                        losses += 1
                        doubt.logins |= held.wrote
                        if losses >= _LOSSES and not doubt.logins:
                            raise
                    except GrantError:
                        tenancy.site.reread()
                        raise
            await asyncio.sleep(uniform(0.0, next(looks)))
            record = await tenancy.record(name, spent)
            if not doubt.logins and (known := self.known(name, record, before)) is not None:
                return known

    async def _under(self, tenant: ClaimedTenant, before: Credential | None) -> DoneT:
        record = evolve(tenant.held.record, name=tenant.names.tenant)
        self.tenancy.check_record(record)
        check_login(tenant.names, record.intended)
        known = self.known(record.name, record, before)
        return await self.work(tenant) if known is None else known

    @abstractmethod
    def known(self, name: str, record: Record | None, before: Credential | None) -> DoneT | None:
        """The outcome, if the record shows that there is nothing to do; otherwise None.

        Args:
            name: The tenant.
            record: The record now.
            before: The usable credential that was on record when the work began.

        Raises:
            InvalidArgumentError: The work is not possible with this record.
        """

    @abstractmethod
    async def work(self, tenant: ClaimedTenant) -> DoneT:
        """Do the work on one tenant, under its claim, and return its outcome, without ``tries``."""


async def _verify_credential(tenant: ClaimedTenant, doubt: Doubt) -> None:
    """Make sure that the credential on record works, and replace it if it does not.

    A process runs this after it sent a request that changes a password and then lost its claim. The server may have
    performed that request after those of the next claimant. Then the password on record is no longer valid.
    """
    record = tenant.held.record
    current = record.current
    if current is None and record.intended is None:
        await tenant.held.forget()  # the tenant was removed; our claim created this record
        return
    if current is None or current.username not in doubt.logins:
        return
    is_intended = record.intended == current.username  # by us, or by another process that began other work
    leave = not doubt.replacing if is_intended else await works(tenant, current)
    if leave:
        return
    await tenant.held.intend(current.username)
    doubt.replacing = True
    await tenant.held.keep(await working_credential(tenant, current.username, there=True), record.previous)
