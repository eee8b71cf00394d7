"""The jobs of bulk runs over users and databases.

A user that existed before the run may belong to somebody else. So a run resets its password only if the caller requests
that.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Generic, Literal, get_args

from attrs import evolve

from .._http.call import RequestStats
from .._http.context import ClusterContext
from .._http.operations import (
    CREATE_DB,
    CREATE_USER,
    GET_DB,
    GET_USER,
    LIST_DBS,
    LIST_USERS,
    UPDATE_USER,
    Operation,
)
from .._http.pages import ListedT
from .._http.resets import reset_auth, with_password
from .._http.retry import with_message
from .._json import UserChange, check_settings, encode
from ..engines import capabilities_of, guard
from ..errors import (
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    NameTakenError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedOperationError,
)
from ..models import Database, NewUser, User
from . import settle
from .outcomes import Action, DatabaseDone, Failed, Removed, UserDone
from .run import DoneT_co, Job, SpecT, parse_name
from .settle import create_and_settle, none_if_not_found, send_until_readable, unsettled

IfExists = Literal["keep", "reset", "error", "update"]


class ClusterJob(Job[SpecT, DoneT_co, Failed], Generic[SpecT, DoneT_co]):
    """A job on one cluster. Its calls wait behind all others."""

    def __init__(self, context: ClusterContext) -> None:
        super().__init__(context.transport.limiter)
        self.retry = context.options.retry
        self.cluster = context.with_stats(RequestStats(), self.maintenance)

    async def prepare(self) -> int:
        """Read the engine if it is unknown, and return how many names at a time the engine supports."""
        return capabilities_of(await self.cluster.learn_engine()).concurrent_user_writes

    async def read_list(self, operation: Operation, model: type[ListedT]) -> list[ListedT] | None:
        """Read what exists. None: it cannot be read, and each create shows whether its name is taken, or why not."""
        with suppress(UnsupportedOperationError, PermissionDeniedError):
            return await send_until_readable(partial(self.cluster.list, operation, model), self.retry)
        return None

    def failed(self, name: str, error: Exception, requests: int) -> Failed:
        return Failed(name=name, error=error, requests=requests)


class UserJob(ClusterJob[NewUser, UserDone]):
    """A job on users, given by name or as NewUser."""

    returns_passwords = True  # whether reads return passwords, as far as the run knows

    def parse(self, given: object) -> NewUser:
        spec = NewUser(given) if isinstance(given, str) else given
        if not isinstance(spec, NewUser) or not isinstance(spec.name, str):
            raise InvalidArgumentError(f"a user is a name or a NewUser, not {given!r}; nothing was sent")
        check_settings(spec)
        return spec

    async def reset(self, cluster: ClusterContext, spec: NewUser) -> User:
        """Give the user a new password, and return the user with the valid one."""
        # The server may perform a reset after its unreadable answer, and the one that is read has to be the last.
        pause = max(settle.RESET_DELAY, 2 * self.retry.base_delay)
        reset = partial(reset_auth, cluster, spec.name, spec.mysql_settings)
        user = await self.read_password(cluster, await send_until_readable(reset, self.retry, pause))
        if user.password is None:
            raise InvalidResponseError(
                f"the password of {spec.name!r} was reset, but the API does not return the new one: "
                "check that the token has the scope database:view_credentials",
                may_have_applied=True,
            )
        return user

    async def read_password(self, cluster: ClusterContext, user: User) -> User:
        """Return ``user`` with its password, or as it was if the API returns none."""
        if not self.returns_passwords:
            return user
        return await with_password(cluster, user, settle.READ_DELAY, first=settle.FIRST_POLL)


class ProvisionUsers(UserJob):
    """Create each user that does not exist. For users that exist, see ``UsersAPI.provision``."""

    def __init__(self, context: ClusterContext, if_exists: IfExists) -> None:
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "keep", "reset", "error" or "update", not {if_exists!r}')
        super().__init__(context)
        self._if_exists = if_exists
        self._existing: dict[str, User] | None = None  # None: they could not be listed
        self._reads_first = False  # whether it reads each new name before its create: ``settle`` explains why

    async def prepare(self) -> int:
        """Read which users exist."""
        at_a_time = await super().prepare()
        existing = await self.read_list(LIST_USERS, User)
        if existing is not None:
            self._existing = {user.name: user for user in existing}
            self.returns_passwords = any(user.password is not None for user in existing)
            self._reads_first = not self.returns_passwords
        return at_a_time

    async def do(self, spec: NewUser, stats: RequestStats) -> UserDone:
        action, user = await self._provision(self.cluster.with_stats(stats), spec)
        return UserDone(name=spec.name, action=action, user=user, requests=stats.requests)

    async def ensure(self, cluster: ClusterContext, spec: NewUser) -> User:
        """Do the work on one name with single calls of ``cluster``, without a run."""
        self._existing, self._reads_first = {}, True
        self.returns_passwords = capabilities_of(await cluster.learn_engine()).returns_passwords
        return (await self._provision(cluster, spec))[1]

    async def _provision(self, cluster: ClusterContext, spec: NewUser) -> tuple[Action, User]:
        if spec != NewUser(spec.name):  # before the first request, also for a user that exists
            guard(await cluster.learn_engine(), "users.create", encode(spec)[1])
        before = await self._read_existing(cluster, spec.name)
        if before is not None:
            is_new, user = False, before
        else:
            create = partial(cluster.call, CREATE_USER, spec.name, User, spec)
            read = partial(cluster.call, GET_USER, spec.name, User)
            is_new, user = await create_and_settle(create, read, self.retry)
        if is_new:
            return Action.CREATED, await self._password_or_reset(cluster, spec, user)
        if self._if_exists == "error":
            raise NameTakenError(f"the user {spec.name!r} exists, and was not changed", status=409)
        if self._if_exists == "update":
            return await self._update(cluster, spec, user)
        if self._if_exists == "reset":
            return Action.RESET, await self.reset(cluster, spec)
        return Action.KEPT, user

    async def _read_existing(self, cluster: ClusterContext, name: str) -> User | None:
        """Return the user if it exists: from the list, or by a read if the list may be wrong."""
        user = (self._existing or {}).get(name)
        list_may_be_wrong = self._reads_first if user is None else cluster.may_be_listed_still(name)
        if not list_may_be_wrong:
            return user
        return await none_if_not_found(send_until_readable(partial(cluster.call, GET_USER, name, User), self.retry))

    async def _password_or_reset(self, cluster: ClusterContext, spec: NewUser, user: User) -> User:
        """Return a user that this run created, with its password. If the API does not return the password, reset it."""
        user = await self.read_password(cluster, user)
        if user.password is not None:
            return user
        if self._existing is None:
            raise InvalidResponseError(
                f"{spec.name!r} exists, but its password is unknown. It was not reset, because the users could not be "
                "listed at the start of the run, so it may belong to somebody else",
                may_have_applied=True,
            )
        try:
            return await self.reset(cluster, spec)
        except DatabaseClientError as error:
            failure = error
        raise unsettled(failure, "it was created, but its password was lost and could not be reset")

    async def _update(self, cluster: ClusterContext, spec: NewUser, user: User) -> tuple[Action, User]:
        """Send the settings and the authentication plugin of ``spec``, if it has them."""
        action = Action.KEPT
        if spec.settings is not None:
            update = partial(cluster.call, UPDATE_USER, spec.name, User, UserChange(spec.settings))
            updated = await send_until_readable(update, self.retry)
            action, user = Action.UPDATED, evolve(user, settings=updated.settings or spec.settings)
        if spec.mysql_settings is not None:
            # The API changes a MySQL user's authentication plugin only together with its password.
            action, user = Action.RESET, await self.reset(cluster, spec)
        return action, user


class RotateUsers(UserJob):
    """Reset the password of each user."""

    def parse(self, given: object) -> NewUser:
        return super().parse(given.name if isinstance(given, User) else given)

    async def do(self, spec: NewUser, stats: RequestStats) -> UserDone:
        user = await self.reset(self.cluster.with_stats(stats), spec)
        return UserDone(name=spec.name, action=Action.RESET, user=user, requests=stats.requests)


class ProvisionDatabases(ClusterJob[str, DatabaseDone]):
    """Create each database that does not exist."""

    _existing: frozenset[str] = frozenset()

    def parse(self, given: object) -> str:
        return parse_name(given, Database)

    async def prepare(self) -> int:
        """Read which databases exist."""
        at_a_time = await super().prepare()
        self._existing = frozenset(db.name for db in await self.read_list(LIST_DBS, Database) or ())
        return at_a_time

    async def do(self, spec: str, stats: RequestStats) -> DatabaseDone:
        if spec in self._existing:
            return DatabaseDone(name=spec, action=Action.KEPT, db=Database(spec))
        is_new, db = await create_db(self.cluster.with_stats(stats), spec)
        action = Action.CREATED if is_new else Action.KEPT
        return DatabaseDone(name=spec, action=action, db=db, requests=stats.requests)


class Deprovision(ClusterJob[str, Removed]):
    """Delete each user or database that exists."""

    _cluster_exists = False  # whether the run knows that

    def __init__(self, context: ClusterContext, listing: Operation, deletion: Operation, *models: type) -> None:
        super().__init__(context)
        self._listing, self._deletion, self._models = listing, deletion, models

    def parse(self, given: object) -> str:
        return parse_name(given, *self._models)

    async def prepare(self) -> int:
        """Check that the cluster exists."""
        with suppress(UnsupportedOperationError, PermissionDeniedError):  # the calls for the names show it
            await self.cluster.check_exists(self._listing)
            self._cluster_exists = True
        return await super().prepare()

    async def do(self, spec: str, stats: RequestStats) -> Removed:
        cluster, action = self.cluster.with_stats(stats), Action.DELETED

        async def delete() -> None:
            (await cluster.send(self._deletion, spec)).read_nothing()

        try:
            await send_until_readable(delete, self.retry)  # a 404 after an unreadable answer: it was deleted
        except NotFoundError as error:
            if not (error.may_have_applied or self._cluster_exists):
                text = f"{error.args[0]}; it is unknown whether the cluster exists: the token may not read it"
                raise with_message(error, text) from None
            if not error.may_have_applied:
                action = Action.ABSENT
        return Removed(name=spec, action=action, requests=stats.requests)


async def create_db(cluster: ClusterContext, name: str) -> tuple[bool, Database]:
    """Create a database unless it exists, and return whether it is new, and it."""
    create = partial(cluster.call, CREATE_DB, name, Database, Database(name))
    return await create_and_settle(create, partial(cluster.call, GET_DB, name, Database), cluster.options.retry)
