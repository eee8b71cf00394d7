"""``Plan``: the changes that provisioning a list of names would make, and the run that makes them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from .._bulk.run import Run
from .._bulk.specs import listed
from .._pacing.budget import by_length
from .._pacing.window import seconds_for
from .._request.call import Meter
from .._request.pause import Pause
from ..errors import InvalidArgumentError
from ._clusters import JobClusters
from ._events import Timer
from ._intent import State, is_empty, state_of
from ._loop import ClaimingJob, TenantJob
from ._naming import names_of
from ._outcomes import TenantDone, TenantPlanOutcome, TenantRemoved
from ._provisioning import IfExists, ProvisionTenants, check_if_exists, find, find_elsewhere, will_shut_out
from ._removal import RemoveTenants
from ._repairing import CheckTenants, RepairTenants
from ._tenancy import Tenancy, tenant_on

GivenNames: TypeAlias = Iterable[str] | AsyncIterable[str]

_SHOWN = 10  # names of each kind that str() lists


@frozen(kw_only=True)
class Plan:
    """The changes that ``Tenants.provision`` would make, and the other stored tenants. ``Tenants.plan`` returns it.

    ``str(plan)`` is a summary: the number of names of each kind, and the first ones.

    Attributes:
        create: Names that are not stored, and free on the cluster.
        adopt: Names that are not stored, with a login or database that somebody else created: ``apply`` adopts them,
            as ``if_exists`` allows.
        conflict: The same, where ``if_exists`` is ``"error"``, or another of the clusters has the login or database:
            ``apply`` leaves them alone, and they fail.
        resume: Names that are stored without a credential: their creation or removal was not finished.
        keep: Names that are stored with a credential. It may be suspended.
        repair: Names that are stored with a credential, and for which ``refresh=True`` found problems.
            They are not in ``keep``.
        extra: Names that are stored and were not requested. They never include logins that are not stored.
        shut_out: For names in ``adopt``: the logins that can use the database now, and cannot afterwards.
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
    shut_out: Mapping[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]])
    prune: bool = False
    if_exists: IfExists = "error"
    _tenancy: Tenancy = field(alias="tenancy", repr=False, eq=False)

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
        for name, logins in self.shut_out.items():
            lines.append(f"adopting {name} shuts out: {_first_names(logins)}")
        lines.append(f"keep: {len(self.keep)}")
        if self.requests:
            lines.append(f"about {self.requests:,} requests, at least {self.seconds:.0f} s at the rate limit")
        return "\n".join(lines)

    @property
    def requests(self) -> int:
        """About how many requests ``apply`` sends."""
        removals = len(self.extra) if self.prune else 0
        return (
            2 * len(self.create)
            + 3 * (len(self.adopt) + len(self.resume) + len(self.repair))
            + 2 * len(self.conflict)
            + 5 * removals
        )

    @property
    def seconds(self) -> float:
        """How long ``requests`` take at the documented rate limit, if no other client uses the token."""
        return seconds_for(self.requests, by_length(None))

    def apply(self) -> Run[TenantPlanOutcome]:
        """Create, adopt, resume and repair tenants and, with ``prune``, remove those that are extra.

        Keeps a name that another process has stored since the plan was made. Safe to repeat and to cancel.

        Returns:
            The run, with an outcome for each name except those in ``keep`` and, without ``prune``, in ``extra``.
        """
        names = [*self.create, *self.adopt, *self.conflict, *self.resume, *self.repair]
        removed = self.extra if self.prune else ()
        return Run([*names, *removed], ApplyTenantPlan(self._tenancy, self))


class ApplyTenantPlan(TenantJob[TenantDone | TenantRemoved]):
    """Remove extra tenants, repair those with problems, and provision the others."""

    def __init__(self, tenancy: Tenancy, plan: Plan) -> None:
        super().__init__(tenancy)
        self._provision = ProvisionTenants(tenancy, plan.if_exists)
        self._others: dict[str, ClaimingJob[Any]] = {
            **dict.fromkeys(plan.repair, RepairTenants(tenancy)),
            **dict.fromkeys(plan.extra, RemoveTenants(tenancy)),
        }

    async def do_one(self, name: str, timer: Timer) -> TenantDone | TenantRemoved:
        job = self._others.get(name, self._provision)
        job.clusters, job.turns = self.clusters, self.turns
        done: TenantDone | TenantRemoved = await job.do_one(name, timer)
        return done


async def make_plan(tenancy: Tenancy, names: GivenNames, *, prune: bool, refresh: bool, if_exists: IfExists) -> Plan:
    """Compare ``names`` with the store and the cluster. Raises as ``Tenants.plan``."""
    check_if_exists(if_exists)
    itself, tenancy = tenancy, evolve(tenancy, rooms=tenancy.rooms.without_seats())  # its seats are for the plan alone
    wanted = await listed(names)
    clusters = JobClusters(tenancy.sites, Pause(), bulk=False)
    engine = (await clusters.any_site()).engine
    unseen = {names_of(name, engine, tenancy.prefix, tenancy.role).tenant: None for name in wanted}
    resume, keep, extra = list[str](), list[str](), list[str]()
    async for record, reason in tenancy.all_records():
        if record.name not in unseen:
            if not (reason or is_empty(record)):
                extra.append(record.name)
            continue
        if reason:
            raise InvalidArgumentError(reason)
        del unseen[record.name]
        (keep if state_of(record) in (State.USABLE, State.SUSPENDED) else resume).append(record.name)
    create, adopt, conflict = list[str](), dict[str, tuple[str, ...]](), list[str]()
    for name in unseen:
        timer = Timer(Meter())
        site, _ = await clusters.locate(name, await tenancy.home(name, None, timer), timer, tenancy.rooms)
        tenant = tenant_on(site, name, timer, tenancy, clusters)
        if await find_elsewhere(tenant) is not None:
            conflict.append(name)
        elif not (found := await find(tenant)):
            create.append(name)
        elif if_exists == "error":
            conflict.append(name)
        else:
            adopt[name] = await will_shut_out(tenant, found, if_exists)
    broken = await _broken(tenancy, keep) if refresh else frozenset[str]()
    return Plan(
        create=tuple(create),
        adopt=tuple(adopt),
        conflict=tuple(conflict),
        resume=tuple(resume),
        keep=tuple(name for name in keep if name not in broken),
        repair=tuple(name for name in keep if name in broken),
        extra=tuple(extra),
        shut_out={name: logins for name, logins in adopt.items() if logins},
        prune=prune,
        if_exists=if_exists,
        tenancy=itself,
    )


async def _broken(tenancy: Tenancy, names: list[str]) -> frozenset[str]:
    """The names with problems. Raises the error of a name that could not be checked."""
    broken = set[str]()
    async for outcome in Run(names, CheckTenants(tenancy)):
        if outcome.error is not None:
            raise outcome.error
        if outcome.problems:
            broken.add(outcome.name)
    return frozenset(broken)


def _first_names(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
