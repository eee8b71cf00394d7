"""``Plan``: the changes that provisioning a list of names would make, and the run that makes them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from ..._bulk.run import Run, listed
from ..._http.call import RequestStats
from ...errors import InvalidArgumentError
from .._context import Context
from .._naming import names_of
from .._outcomes import TenantDone, TenantPlanOutcome, TenantRemoved, Timer
from .._record import OnRecord, State
from .changes import RemoveTenants
from .check import CheckTenants
from .jobs import ClaimingJob, TenantJob
from .provision import IfExists, ProvisionTenants, RepairTenants, find, find_elsewhere

GivenNames: TypeAlias = Iterable[str] | AsyncIterable[str]

_SHOWN = 10  # names of each kind that str() lists


@frozen(kw_only=True)
class Plan:
    """The changes that ``Tenants.provision`` would make, and the other stored tenants. ``Tenants.plan`` returns it.

    ``str(plan)`` is a summary: the number of names of each kind, and the first ones.

    Attributes:
        create: Names that are not stored, and free on the server.
        adopt: Names that are not stored, with a login or database that somebody else created: ``apply`` adopts them,
            as ``if_exists`` allows.
        conflict: The same, where ``if_exists`` is ``"error"``, or another of the clusters has the login or database:
            ``apply`` leaves them alone, and they fail.
        resume: Names that are stored without a credential: their creation or removal was not finished.
        keep: Names that are stored with a credential. It may be suspended.
        repair: Names that are stored with a credential, and for which ``refresh=True`` found problems.
            They are not in ``keep``.
        extra: Names that are stored and were not requested. They never include logins that are not stored.
        prune: Whether ``apply`` removes the names in ``extra``.
        if_exists: What ``apply`` does with somebody else's login or database.
    """

    create: tuple[str, ...] = ()
    adopt: tuple[str, ...] = ()
    conflict: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    repair: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    prune: bool = False
    if_exists: IfExists = "error"
    _context: Context = field(alias="context", repr=False, eq=False)

    def __str__(self) -> str:
        kinds = {
            "create": self.create,
            "adopt": self.adopt,
            "conflict, left as they are": self.conflict,
            "resume": self.resume,
            "repair": self.repair,
            "remove" if self.prune else "extra, left as they are": self.extra,
        }
        lines = [f"{what}: {len(names)} ({_first_names(names)})" for what, names in kinds.items() if names]
        lines.append(f"keep: {len(self.keep)}")
        return "\n".join(lines)

    def apply(self) -> Run[TenantPlanOutcome]:
        """Create, adopt, resume and repair tenants and, with ``prune``, remove those that are extra.

        Keeps a name that another process has stored since the plan was made. Safe to repeat and to cancel.

        Returns:
            The run, with an outcome for each name except those in ``keep`` and, without ``prune``, in ``extra``.
        """
        names = [*self.create, *self.adopt, *self.conflict, *self.resume, *self.repair]
        removed = self.extra if self.prune else ()
        return Run([*names, *removed], ApplyTenantPlan(self._context, self))


class ApplyTenantPlan(TenantJob[TenantDone | TenantRemoved]):
    """Remove extra tenants, repair those with problems, and provision the others."""

    def __init__(self, context: Context, plan: Plan) -> None:
        super().__init__(context)
        self._provision = ProvisionTenants(context, plan.if_exists)
        self._others: dict[str, ClaimingJob[Any]] = {
            **dict.fromkeys(plan.repair, RepairTenants(context)),
            **dict.fromkeys(plan.extra, RemoveTenants(context)),
        }

    async def do_one(self, name: str, timer: Timer) -> TenantDone | TenantRemoved:
        job = self._others.get(name, self._provision)
        job.context = self.context
        done: TenantDone | TenantRemoved = await job.do_one(name, timer)
        return done


async def make_plan(context: Context, names: GivenNames, *, prune: bool, refresh: bool, if_exists: IfExists) -> Plan:
    """Compare ``names`` with the store and the servers. Raises as ``Tenants.plan``."""
    # Its seats are for the plan alone.
    job = ProvisionTenants(evolve(context, rooms=context.rooms.without_seats()), if_exists)
    job.context.sites.pause = None
    wanted = await listed(names)
    engine = (await job.context.sites.any()).engine
    unseen = {names_of(name, engine, context.prefix, context.role).tenant: None for name in wanted}
    resume, keep, extra = list[str](), list[str](), list[str]()
    async for record, reason in context.all_records():
        if record.name not in unseen:
            if not (reason or record.is_empty):
                extra.append(record.name)
            continue
        if reason:
            raise InvalidArgumentError(reason)
        if record.is_empty:  # only claimed: what exists is not ours
            continue
        del unseen[record.name]
        (keep if record.state in (State.USABLE, State.SUSPENDED) else resume).append(record.name)
    create, adopt, conflict = list[str](), list[str](), list[str]()
    for name in unseen:
        timer = Timer(RequestStats())
        tenant = await job.on(await job.cluster_for(OnRecord(name=name, role=context.role), timer), name, timer)
        if await find_elsewhere(tenant) is not None:
            conflict.append(name)
        elif not await find(tenant):
            create.append(name)
        else:
            (conflict if if_exists == "error" else adopt).append(name)
    broken = await _broken(context, keep) if refresh else frozenset[str]()
    return Plan(
        create=tuple(create),
        adopt=tuple(adopt),
        conflict=tuple(conflict),
        resume=tuple(resume),
        keep=tuple(name for name in keep if name not in broken),
        repair=tuple(name for name in keep if name in broken),
        extra=tuple(extra),
        prune=prune,
        if_exists=if_exists,
        context=context,
    )


async def _broken(context: Context, names: list[str]) -> frozenset[str]:
    """The names with problems. Raises the error of a name that could not be checked."""
    broken = set[str]()
    async for outcome in Run(names, CheckTenants(context)):
        if outcome.error is not None:
            raise outcome.error
        if outcome.problems:
            broken.add(outcome.name)
    return frozenset(broken)


def _first_names(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
