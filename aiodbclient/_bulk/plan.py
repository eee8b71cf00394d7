"""Plans: the difference between the users of a cluster and the requested ones, and the run that applies it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from .._http.call import RequestStats
from .._http.context import ClusterContext
from .._http.operations import check_name
from .._http.pause import Pause
from .._http.response import spelling
from .._json.converter import setting_names
from ..engines import guard
from ..errors import InvalidArgumentError
from ..models import NewUser
from .jobs import DeprovisionUsers, ProvisionUsers, TenantRecords, tenants_logins, user_spec
from .outcomes import PlanOutcome, Removed, UserDone
from .run import Job, Run, listed
from .settings import NOTHING_SHOWN, Difference, Returned, differences, is_provider_own, unknown_settings
from .settle import if_found, readable

if TYPE_CHECKING:  # ``users`` imports this module
    from ..users import UsersAPI


@frozen(eq=False)
class UserPlan:
    """The difference between the users of a cluster and the requested ones. Made by ``users.plan``.

    ``bool(plan)`` is False if ``apply`` has nothing to do. ``str(plan)`` is readable like a diff.

    Attributes:
        create: Names that do not exist.
        update: Names that exist with other settings.
        keep: Names that exist as requested, as far as the API shows.
        unknown: Names in ``keep`` whose settings the API does not return, so they may differ.
            ``provision(if_exists="update")`` sends the settings of these too.
        extra: Names that exist and were not requested, except the users that came with the cluster. ``apply`` deletes
            them if the plan was made with ``prune=True``; then the names in ``tenants`` are not among them.
        tenants: With ``prune=True``, names that exist, were not requested, and are or may be logins of tenants.
        prune: Whether ``apply`` deletes the users in ``extra``.
        differences: The differences of each name in ``update``.
    """

    create: Sequence[str]
    update: Sequence[str]
    keep: Sequence[str]
    extra: Sequence[str]
    prune: bool
    differences: dict[str, list[Difference]] = field(repr=False)
    unknown: Sequence[str]
    tenants: Sequence[str]
    _specs: Sequence[NewUser] = field(repr=False)
    _api: type[UsersAPI] = field(repr=False)
    _context: ClusterContext = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.create or self.update or (self.prune and self.extra))

    def __str__(self) -> str:
        lines = [f"+ {name}" for name in self.create]
        for name in self.update:
            lines += [f"~ {name}", *(f"    {difference}" for difference in self.differences[name])]
        lines += [f"- {name}" if self.prune else f"  {name} (not asked for; left alone)" for name in self.extra]
        lines += [f"  {name} (may be a tenant's login; left alone)" for name in self.tenants]
        deleted = len(self.extra) if self.prune else 0
        kept = f"{len(self.keep)} as asked for"
        if self.unknown:
            kept += f", {len(self.unknown)} of them with settings that the API does not return"
        lines.append(f"{len(self.create)} to create, {len(self.update)} to update, {deleted} to delete, {kept}")
        return "\n".join(lines)

    def apply(self, *, concurrency: int | None = None) -> Run[PlanOutcome]:
        """Create and update users, then delete those in ``extra`` (with ``prune``).

        The run first reads the users again. It updates a user that was created since the plan was made, if it differs.
        A user in ``extra`` that was deleted since is ABSENT. The run deletes no users except those in ``extra``. Safe
        to repeat.

        Args:
            concurrency: How many names to process at a time. None: 1 on MongoDB, otherwise 16.

        Returns:
            The run, with an outcome for each name in ``create``, ``update`` and (with ``prune``) ``extra``.

        Raises:
            InvalidArgumentError: ``concurrency`` is not an int of at least 1.
        """
        changes = {*self.create, *self.update}
        first = [spec for spec in self._specs if spec.name in changes]
        job = ApplyPlan(self._api, self._context, first, self.extra if self.prune else ())
        return Run(job.specs(), job, concurrency)


class ApplyPlan(Job[NewUser | str, UserDone | Removed]):
    """Create or update the users given as NewUser, then delete those given as names."""

    def __init__(
        self, api: type[UsersAPI], context: ClusterContext, first: Sequence[NewUser], last: Sequence[str]
    ) -> None:
        super().__init__()
        context = context.for_bulk(RequestStats(), self.pause)
        self._provision = ProvisionUsers(api, context, "update")
        self._deprovision = DeprovisionUsers(api, context)  # not prepared: the plan left tenants out
        self._first = first
        self._last = last
        self._pending = len(first)
        self._first_ended = asyncio.Event()

    async def specs(self) -> AsyncIterator[NewUser | str]:
        """Yield the specs of the run. The names to delete come after every other user is done."""
        for spec in self._first:
            yield spec
        if self._pending:
            await self._first_ended.wait()
        for name in self._last:
            yield name

    def spec_of(self, given: object) -> NewUser | str:
        return given if isinstance(given, str) else user_spec(given)

    async def prepare(self) -> int:
        return await self._provision.prepare()

    async def do(self, spec: NewUser | str, meter: RequestStats) -> UserDone | Removed:
        if isinstance(spec, str):
            return await self._deprovision.do(NewUser(spec), meter)
        try:
            return await self._provision.do(spec, meter)
        finally:
            self._pending -= 1
            if self._pending == 0:
                self._first_ended.set()


async def plan_users(
    api: type[UsersAPI],
    context: ClusterContext,
    given: Iterable[str | NewUser] | AsyncIterable[str | NewUser],
    *,
    prune: bool,
    store: TenantRecords | None,
) -> UserPlan:
    """Compare the users of a cluster with the requested ones. See ``UsersAPI.plan``."""
    specs = await _checked(given)
    in_bulk = context.for_bulk(RequestStats(), Pause())
    engine = await in_bulk.learn_engine()
    for spec in specs.values():
        guard(engine, "users.create", setting_names(spec.mysql_settings, spec.settings, spec.readonly))
    users = api(in_bulk)
    existing = {user.name: user for user in await readable(users.list, context.options.retry)}
    list_shows = Returned.by(existing.values())
    spellings = {spelling(name) for name in existing}
    asked = {spelling(name) for name in specs}
    deletions, now = context.memory.deletions, monotonic()
    deleted = {name for name in existing if deletions.may_be_listed_still(context.cluster_id, name, now)}
    update: dict[str, list[Difference]] = {}
    create: list[str] = []
    keep: list[str] = []
    unknown: list[str] = []
    for name, spec in specs.items():
        user, returned = existing.get(name), list_shows
        if name in deleted or (user is None and spelling(name) in spellings):
            user, returned = await if_found(users.get(name)), NOTHING_SHOWN
        if user is None:
            create.append(name)
        elif (differ := differences(spec, user, returned)) and not is_provider_own(user):
            update[name] = differ
        else:
            keep.append(name)
            if unknown_settings(spec, user, returned) and not is_provider_own(user):
                unknown.append(name)
    extra = [
        name
        for name, user in existing.items()
        if spelling(name) not in asked and name not in deleted and not is_provider_own(user)
    ]
    tenants: list[str] = []
    if prune and extra:
        is_tenants = await tenants_logins(in_bulk, store)
        tenants = [name for name in extra if is_tenants(name)]
        extra = [name for name in extra if not is_tenants(name)]
    return UserPlan(
        create, list(update), keep, extra, prune, update, unknown, tenants, list(specs.values()), api, context
    )


async def _checked(given: Iterable[str | NewUser] | AsyncIterable[str | NewUser]) -> dict[str, NewUser]:
    """Return copies of the specs by name, so that the caller cannot change them later."""
    specs: dict[str, NewUser] = {}
    for spec in map(user_spec, await listed(given)):
        check_name(spec.name)
        if spec.name in specs:
            raise InvalidArgumentError(f"{spec.name!r} is asked for twice; nothing was sent")
        specs[spec.name] = evolve(spec)
    return specs
