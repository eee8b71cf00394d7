"""What would change, and doing it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from attrs import field, frozen

from .._bulk.run import Run
from .._request.call import Meter
from .jobs import ProvisionTenants, RemoveTenants, Tenancy
from .naming import names_of
from .outcomes import TenantDone, TenantOutcome

_SHOWN = 10  # names of a kind that str() tells


@frozen
class Plan:
    """What ``Tenants.provision`` would do, and which tenants are on record besides.

    Attributes:
        create: Names that are on no record.
        resume: Names on record whose credential is not: their provisioning or removal has not come to its end.
        keep: Names on record with their credential.
        extra: Names on record that were not asked for. Never somebody else's: what is on no record is not seen.
        prune: Whether ``apply`` removes the extra ones.
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
        lines = [f"{what}: {len(names)} ({_told(names)})" for what, names in kinds.items() if names]
        return "\n".join([*lines, f"keep: {len(self.keep)}"])

    def apply(self) -> Run[TenantOutcome]:
        """Do it: a run over what is to be created, resumed and, where it prunes, removed.

        What others did since the plan was made is seen: a name that is on record by then is kept. Safe to repeat.
        """
        names = [*self.create, *self.resume, *(self.extra if self.prune else ())]
        return Run(names, ApplyPlan(self._tenancy, frozenset(self.extra)))


class ApplyPlan(ProvisionTenants):
    """Provision each tenant, but for those that are to be removed."""

    def __init__(self, tenancy: Tenancy, remove: frozenset[str]) -> None:
        super().__init__(tenancy)
        self._remove = remove
        self._removal = RemoveTenants(tenancy)

    async def prepare(self, meter: Meter) -> int:
        await self._removal.prepare(meter)
        return await super().prepare(meter)

    async def do(self, spec: str, meter: Meter) -> TenantDone:
        if spec in self._remove:
            return await self._removal.do(spec, meter)
        return await super().do(spec, meter)


async def make_plan(tenancy: Tenancy, names: Iterable[str] | AsyncIterable[str], *, prune: bool) -> Plan:
    """Compare ``names`` with what is on record."""
    site = await tenancy.site(tenancy.cluster)
    unseen = {names_of(name, site.engine, tenancy.prefix).tenant: None async for name in _each(names)}
    resume, keep, extra = list[str](), list[str](), list[str]()
    async for record in tenancy.store.records():
        tenancy.check(record)
        if record.name not in unseen:
            extra.append(record.name)
            continue
        del unseen[record.name]
        (resume if tenancy.usable(record) is None else keep).append(record.name)
    return Plan(tuple(unseen), tuple(resume), tuple(keep), tuple(extra), prune, tenancy)


async def _each(names: Iterable[str] | AsyncIterable[str]) -> AsyncIterable[str]:
    if isinstance(names, AsyncIterable):
        async for name in names:
            yield name
    else:
        for name in names:
            yield name


def _told(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
