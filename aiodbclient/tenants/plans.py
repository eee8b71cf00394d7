"""``Plan``: what provisioning a list of names would change, and the run that changes it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from attrs import field, frozen

from .._bulk.job import Job
from .._bulk.run import Run
from .._bulk.specs import listed
from .._request.call import Meter
from .jobs import ProvisionTenants, RemoveTenants, Tenancy
from .naming import names_of
from .outcomes import TenantDone, TenantPlanOutcome, TenantRemoved

_SHOWN = 10  # names of each kind that str() lists


@frozen
class Plan:
    """What ``Tenants.provision`` would do, and which tenants are on record besides. Made by ``Tenants.plan``.

    ``str(plan)`` is for people: how many names of each kind, and the first of them.

    Attributes:
        create: Names that are not on record.
        resume: Names that are on record without a credential: making or removing them was begun and has not ended.
        keep: Names that are on record with their credential.
        extra: Names that are on record and were not asked for. Logins that are not on record are never among them.
        prune: Whether ``apply`` removes what is ``extra``.
    """

    create: tuple[str, ...]
    resume: tuple[str, ...]
    keep: tuple[str, ...]
    extra: tuple[str, ...]
    prune: bool
    _tenancy: Tenancy = field(repr=False, eq=False)

    def __str__(self) -> str:
        kinds = {
            "create": self.create,
            "resume": self.resume,
            "remove" if self.prune else "extra, left as they are": self.extra,
        }
        lines = [f"{what}: {len(names)} ({_first_names(names)})" for what, names in kinds.items() if names]
        return "\n".join([*lines, f"keep: {len(self.keep)}"])

    def apply(self) -> Run[TenantPlanOutcome]:
        """Create and resume tenants and, with ``prune``, remove those that are extra.

        A name that another process has put on record since the plan was made is kept. Safe to repeat and to cancel.

        Returns:
            The run, with an outcome for each name in ``create``, ``resume`` and (with ``prune``) ``extra``.
        """
        names = [*self.create, *self.resume, *(self.extra if self.prune else ())]
        return Run(names, ApplyTenantPlan(self._tenancy, frozenset(self.extra)))


class ApplyTenantPlan(Job[str, TenantDone | TenantRemoved]):
    """Remove the tenants in ``remove``, and provision every other one."""

    def __init__(self, tenancy: Tenancy, remove: frozenset[str]) -> None:
        self._remove = remove
        self._provision = ProvisionTenants(tenancy)
        self._removal = RemoveTenants(tenancy)

    def check(self, given: object) -> str:
        return self._provision.check(given)

    async def prepare(self, meter: Meter) -> int:
        await self._removal.prepare(meter)
        return await self._provision.prepare(meter)

    async def do(self, spec: str, meter: Meter) -> TenantDone | TenantRemoved:
        return await (self._removal if spec in self._remove else self._provision).do(spec, meter)

    def ends_run(self, error: Exception) -> bool:
        return self._provision.ends_run(error)


async def make_plan(tenancy: Tenancy, names: Iterable[str] | AsyncIterable[str], *, prune: bool) -> Plan:
    """Compare ``names`` with what is on record. Raises as ``Tenants.plan``."""
    wanted = await listed(names)
    site = await tenancy.site(tenancy.cluster)
    unseen = {names_of(name, site.engine, tenancy.prefix).tenant: None for name in wanted}
    resume, keep, extra = list[str](), list[str](), list[str]()
    async for record in tenancy.store.records():
        tenancy.check(record)
        if record.name not in unseen:
            extra.append(record.name)
            continue
        del unseen[record.name]
        (resume if tenancy.credential(record) is None else keep).append(record.name)
    return Plan(tuple(unseen), tuple(resume), tuple(keep), tuple(extra), prune, tenancy)


def _first_names(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
