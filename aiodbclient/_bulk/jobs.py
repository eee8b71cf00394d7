"""The jobs of bulk runs over users and databases.

A user that existed before the run may belong to somebody else. So a run resets its password only if the caller requests
that. The API lists the logins of tenants, made by SQL, like all other users, and no bulk run deletes them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from attrs import evolve

from .._http.call import RequestStats
from .._http.context import ClusterContext
from .._http.operations import LIST_DBS
from .._http.waits import with_password
from .._user_settings import check_settings
from ..engines import capabilities_of
from ..errors import (
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    NameTakenError,
    NotFoundError,
    PermissionDeniedError,
    SettingsDifferError,
    UnsupportedOperationError,
)
from ..models import Database, NewUser, User
from ..tenants._guard import is_derived
from . import settle
from .outcomes import Action, DatabaseDone, Removed, UserDone
from .run import DoneT_co, Job, SpecT, name_spec
from .settings import (
    AUTH_PLUGIN,
    NOTHING_SHOWN,
    Returned,
    differences,
    is_provider_own,
    unknown_settings,
    wanted_settings,
)
from .settle import create_settled, if_found, readable, unsettled

if TYPE_CHECKING:  # ``users`` and ``dbs`` import this module
    from ..dbs import DatabasesAPI
    from ..users import UsersAPI

IfExists = Literal["keep", "reset", "error", "update"]


class Login(Protocol):
    """A credential on record."""

    @property
    def username(self) -> str: ...


class TenantRecord(Protocol):
    """What a store has of a tenant, or of a tenant's reader or writer."""

    @property
    def name(self) -> str: ...

    @property
    def current(self) -> Login | None: ...

    @property
    def previous(self) -> Login | None: ...


class TenantRecords(Protocol):
    """What a run reads of a store of ``aiodbclient.tenants``."""

    def records(self) -> AsyncIterator[TenantRecord]: ...


class ClusterJob(Job[SpecT, DoneT_co]):
    """A job on one cluster."""

    def __init__(self, context: ClusterContext) -> None:
        super().__init__()
        self.retry = context.options.retry
        self._context = context.for_bulk(RequestStats(), self.pause)

    async def prepare(self) -> int:
        """Read the engine if it is unknown, and return how many names at a time the engine supports."""
        engine = await self._context.learn_engine()
        return capabilities_of(engine).concurrent_user_writes


def user_spec(given: object) -> NewUser:
    """Return ``given`` as a NewUser."""
    spec = NewUser(given) if isinstance(given, str) else given
    if isinstance(spec, NewUser) and isinstance(spec.name, str):
        check_settings(spec.mysql_settings, spec.settings, spec.readonly)
        return spec
    raise InvalidArgumentError(f"a run takes names and NewUsers, not {given!r}; nothing was sent")


class UserJob(ClusterJob[NewUser, DoneT_co]):
    """A job on users, given by name or as NewUser."""

    returns_passwords = True  # whether reads return passwords, as far as the run knows

    def __init__(self, api: type[UsersAPI], context: ClusterContext) -> None:
        super().__init__(context)
        self._api = api

    def calls(self, meter: RequestStats) -> UsersAPI:
        """Return the calls for the bulk lane of the rate budget. ``meter`` counts their requests."""
        return self._api(self._context.for_bulk(meter))

    def spec_of(self, given: object) -> NewUser:
        return user_spec(given)

    async def reset(self, users: UsersAPI, spec: NewUser) -> User:
        """Give the user a new password."""
        user = await readable(partial(users.reset_auth, spec.name, spec.mysql_settings), self.retry)
        user = await self.read_password(users, user)
        if user.password is None:
            raise InvalidResponseError(
                f"the password of {spec.name!r} was reset, but the API does not return the new one: "
                "check that the token has the scope database:view_credentials",
                may_have_applied=True,
            )
        return user

    async def read_password(self, users: UsersAPI, user: User) -> User:
        """Return ``user`` with its password, or as it was if the API returns none."""
        if not self.returns_passwords:
            return user
        return await with_password(user, partial(users.get, user.name), settle.FRESH, first=settle.LOOK)


class ProvisionUsers(UserJob[UserDone]):
    """Create each user that does not exist. For users that exist, see ``UsersAPI.provision``."""

    def __init__(self, api: type[UsersAPI], context: ClusterContext, if_exists: IfExists) -> None:
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "keep", "reset", "error" or "update", not {if_exists!r}')
        super().__init__(api, context)
        self._if_exists = if_exists
        self._existing: dict[str, User] = {}
        self._returned = NOTHING_SHOWN
        self._listed = False

    async def prepare(self) -> int:
        """Read which users exist."""
        at_a_time = await super().prepare()
        # Without the list, the answer to each create shows whether the name is taken, or why there are no users.
        with suppress(UnsupportedOperationError, PermissionDeniedError):
            existing = await readable(self._api(self._context).list, self.retry)
            self._existing = {user.name: user for user in existing}
            self._listed = True
            self._returned = Returned.by(existing)
            self.returns_passwords = any(user.password is not None for user in existing)
        return at_a_time

    async def do(self, spec: NewUser, meter: RequestStats) -> UserDone:
        action, user = await self._provision(self.calls(meter), spec)
        return UserDone(name=spec.name, action=action, user=user, tries=meter.requests)

    async def _provision(self, users: UsersAPI, spec: NewUser) -> tuple[Action, User]:
        before, returned = await self._there_before(users, spec.name), NOTHING_SHOWN
        if before is not None:
            is_new, user = False, before
            if before is self._existing.get(spec.name):  # a single read does not show which members the API returns
                returned = self._returned
        else:
            create = partial(users.create, spec.name, spec.mysql_settings, spec.settings, spec.readonly)
            is_new, user = await create_settled(create, partial(users.get, spec.name), self.retry)
        if is_new:
            return Action.CREATED, await self._password_or_reset(users, spec, user)
        if self._if_exists == "error":
            raise NameTakenError(f"the user {spec.name!r} exists, and was not changed", status=409)
        if self._if_exists == "update":
            return await self._update(users, spec, user, returned)
        _refuse_other_settings(spec, user, returned, reset_follows=self._if_exists == "reset")
        if self._if_exists == "reset":
            return Action.RESET, await self.reset(users, spec)
        return Action.KEPT, user

    async def _there_before(self, users: UsersAPI, name: str) -> User | None:
        """Return the user if it existed before: from the list, or by a read if the list may be wrong."""
        user = self._existing.get(name)
        if user is not None:
            deletions = self._context.memory.deletions
            list_is_right = not deletions.may_be_listed_still(self._context.cluster_id, name, monotonic())
        else:
            list_is_right = self.returns_passwords or not self._listed  # ``settle`` explains why
        if list_is_right:
            return user
        return await if_found(readable(partial(users.get, name), self.retry))

    async def _password_or_reset(self, users: UsersAPI, spec: NewUser, user: User) -> User:
        """Return a user that this run created, with its password. If the API does not return the password, reset it."""
        user = await self.read_password(users, user)
        if user.password is not None:
            return user
        if not self._listed:
            raise InvalidResponseError(
                f"{spec.name!r} exists, but its password is unknown. It was not reset, because the users could not be "
                "listed at the start of the run, so it may belong to somebody else",
                may_have_applied=True,
            )
        try:
            return await self.reset(users, spec)
        except DatabaseClientError as error:
            failure = error
        raise unsettled(failure, "it was created, but its password was lost and could not be reset")

    async def _update(self, users: UsersAPI, spec: NewUser, user: User, returned: Returned) -> tuple[Action, User]:
        """Give ``user`` the settings of ``spec`` if its own differ or are unknown."""
        # Not an unknown authentication plugin, which would reset the password, nor MongoDB's ``readonly`` alone: an
        # update without the user's databases would remove them.
        differ = {difference.setting for difference in differences(spec, user, returned)}
        if spec.settings is not None and "settings" in unknown_settings(spec, user, returned):
            differ.add("settings")
        if not differ:
            return Action.KEPT, user
        if is_provider_own(user):
            if differ == {"settings"}:  # unknown, and the client must not change this user
                return Action.KEPT, user
            raise SettingsDifferError(
                f"{spec.name!r} came with the cluster, so its settings were not changed",
                settings=tuple(sorted(differ)),
            )
        settings = wanted_settings(spec, user)
        if settings is not None and differ != {AUTH_PLUGIN}:
            updated = await readable(partial(users.update, spec.name, settings), self.retry)
            user = evolve(user, settings=updated.settings or settings)
        if AUTH_PLUGIN not in differ:
            return Action.UPDATED, user
        # The API changes a MySQL user's authentication plugin only together with its password.
        return Action.RESET, await self.reset(users, spec)


class RotateUsers(UserJob[UserDone]):
    """Reset the password of each user."""

    async def do(self, spec: NewUser, meter: RequestStats) -> UserDone:
        user = await self.reset(self.calls(meter), spec)
        return UserDone(name=spec.name, action=Action.RESET, user=user, tries=meter.requests)


class DeprovisionUsers(UserJob[Removed]):
    """Delete each user that exists, and is no tenant's."""

    def __init__(self, api: type[UsersAPI], context: ClusterContext, store: TenantRecords | None = None) -> None:
        super().__init__(api, context)
        self._store = store
        self._is_tenants: Callable[[str], bool] = lambda name: False

    async def prepare(self) -> int:
        """Read which users are tenants'."""
        at_a_time = await super().prepare()
        self._is_tenants = await tenants_logins(self._context, self._store)
        return at_a_time

    async def do(self, spec: NewUser, meter: RequestStats) -> Removed:
        if self._is_tenants(spec.name):
            raise InvalidArgumentError(
                f"the user {spec.name!r} may be a tenant's login, and was not deleted: tenants.remove removes a "
                "tenant, users.delete a user who is none"
            )
        return await removed(self.calls(meter).delete, spec.name, meter)


async def removed(delete: Callable[[str], Awaitable[None]], name: str, meter: RequestStats) -> Removed:
    """Delete ``name`` and return the outcome."""
    try:
        await delete(name)
    except NotFoundError:
        return Removed(name=name, action=Action.ABSENT, tries=meter.requests)
    return Removed(name=name, action=Action.DELETED, tries=meter.requests)


class DatabaseJob(ClusterJob[str, DoneT_co]):
    """A job on databases, given by name."""

    def __init__(self, api: type[DatabasesAPI], context: ClusterContext) -> None:
        super().__init__(context)
        self._api = api

    def calls(self, meter: RequestStats) -> DatabasesAPI:
        """Return the calls for the bulk lane of the rate budget. ``meter`` counts their requests."""
        return self._api(self._context.for_bulk(meter))

    def spec_of(self, given: object) -> str:
        return name_spec(given)


class ProvisionDatabases(DatabaseJob[DatabaseDone]):
    """Create each database that does not exist."""

    def __init__(self, api: type[DatabasesAPI], context: ClusterContext) -> None:
        super().__init__(api, context)
        self._existing: frozenset[str] = frozenset()

    async def prepare(self) -> int:
        """Read which databases exist."""
        at_a_time = await super().prepare()
        # Without the list, the answer to each create shows whether the name is taken, or why there are no databases.
        with suppress(UnsupportedOperationError, PermissionDeniedError):
            self._existing = frozenset(db.name for db in await readable(self._api(self._context).list, self.retry))
        return at_a_time

    async def do(self, spec: str, meter: RequestStats) -> DatabaseDone:
        if spec in self._existing:
            return DatabaseDone(name=spec, action=Action.KEPT, db=Database(spec))
        dbs = self.calls(meter)
        is_new, db = await create_settled(partial(dbs.create, spec), partial(dbs.get, spec), self.retry)
        action = Action.CREATED if is_new else Action.KEPT
        return DatabaseDone(name=spec, action=action, db=db, tries=meter.requests)


class DeprovisionDatabases(DatabaseJob[Removed]):
    """Delete each database that exists."""

    async def do(self, spec: str, meter: RequestStats) -> Removed:
        return await removed(self.calls(meter).delete, spec, meter)


def _refuse_other_settings(spec: NewUser, user: User, returned: Returned, *, reset_follows: bool) -> None:
    """Raise SettingsDifferError if the settings of ``user`` differ from ``spec``."""
    differ = [each for each in differences(spec, user, returned) if not (reset_follows and each.setting == AUTH_PLUGIN)]
    if differ:
        raise SettingsDifferError(
            f"the user {spec.name!r} exists with other settings ({'; '.join(map(str, differ))}) and was not "
            'changed: pass if_exists="update" to give it those of the NewUser',
            settings=tuple(each.setting for each in differ),
        )


async def tenants_logins(context: ClusterContext, store: TenantRecords | None) -> Callable[[str], bool]:
    """Return whether a name is, or may be, that of a tenant's login.

    A tenant's first login has the name of its database. The names of the others have a form that no other user has.
    """
    if not capabilities_of(await context.learn_engine()).tenants:
        return lambda name: False
    taken = {db.name for db in await readable(partial(context.list, LIST_DBS, Database), context.options.retry)}
    if store is not None:
        async for record in store.records():
            credentials = (record.current, record.previous)
            taken |= {record.name, *(each.username for each in credentials if each is not None)}
    return lambda name: name in taken or is_derived(name)
