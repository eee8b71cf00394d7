"""What bulk runs over users do for each name.

A user that was there before a run was not made by it, so it gets a new password only where the caller asked for that.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Literal, get_args

from attrs import evolve

from .._request.call import Meter
from .._request.context import ClusterContext
from .._request.user_calls import UserCalls
from ..errors import (
    ConflictError,
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    SettingsDifferError,
    UnsupportedOperationError,
)
from ..models import NewUser, User
from .job import ClusterJob, DoneT_co, removed
from .outcomes import Action, Removed, UserDone
from .settings import (
    AUTH_PLUGIN,
    NOTHING_SHOWN,
    Returned,
    differences,
    is_provider_own,
    unknown_settings,
    wanted_settings,
)
from .settle import create_settled, looks, readable, unsettled
from .specs import user_spec

IfExists = Literal["keep", "reset", "error", "update"]


class UserJob(ClusterJob[NewUser, DoneT_co]):
    """A job on users, each given by its name or as a NewUser.

    Attributes:
        returns_passwords: Whether the API returns a user's password when it is read, as far as is known.
    """

    returns_passwords = True

    def calls(self, meter: Meter) -> UserCalls:
        """Return the calls, in the bulk lane of the rate budget, with their requests counted by ``meter``."""
        return UserCalls(self._context.for_bulk(meter))

    def check(self, given: object) -> NewUser:
        return user_spec(given)

    async def reset(self, users: UserCalls, spec: NewUser) -> User:
        """Give the user a new password.

        Raises:
            InvalidResponseError: It was reset, and the API does not return the new password.
        """
        user = await readable(partial(users.reset_auth, spec.name, spec.mysql_settings), self.retry)
        if user.password is None:
            user = await self.read_password(users, user)
        if user.password is None:
            raise InvalidResponseError(
                f"the password of {spec.name!r} was reset, but the API does not return the new one: "
                "has the token the scope database:view_credentials?",
                may_have_applied=True,
            )
        return user

    async def read_password(self, users: UserCalls, user: User) -> User:
        """Read a user until the API returns its password, which is empty for a moment after a create or reset.

        Returns:
            ``user`` with its password, or as it was if the API returns none.
        """
        for wait in looks() if self.returns_passwords else ():
            await asyncio.sleep(wait)
            with suppress(DatabaseClientError):  # what hinders reading meets whoever goes on without the password
                read = await users.get(user.name)
                if read.password is not None:
                    return evolve(user, password=read.password)
        return user


class ProvisionUsers(UserJob[UserDone]):
    """Create each user that is not there. What becomes of one that is there, ``UsersAPI.provision`` says."""

    def __init__(self, context: ClusterContext, if_exists: IfExists) -> None:
        if if_exists not in get_args(IfExists):
            raise InvalidArgumentError(f'if_exists must be "keep", "reset", "error" or "update", not {if_exists!r}')
        super().__init__(context)
        self._if_exists = if_exists
        self._existing: dict[str, User] = {}
        self._returned = NOTHING_SHOWN
        self._listed = False

    async def prepare(self, meter: Meter) -> int:
        """Read which users are there already.

        If the token may not list them, each create is sent, and its answer shows it. If the engine has no users,
        each name fails with the same error.
        """
        at_a_time = await super().prepare(meter)
        with suppress(UnsupportedOperationError, PermissionDeniedError):
            existing = await readable(self.calls(meter).list, self.retry)
            self._existing = {user.name: user for user in existing}
            self._listed = True
            self._returned = Returned.by(existing)
            self.returns_passwords = any(user.password is not None for user in existing)
        return at_a_time

    async def do(self, spec: NewUser, meter: Meter) -> UserDone:
        action, user = await self._provision(self.calls(meter), spec)
        return UserDone(name=spec.name, action=action, user=user, tries=meter.requests)

    async def _provision(self, users: UserCalls, spec: NewUser) -> tuple[Action, User]:
        before, returned = await self._there_before(users, spec.name), NOTHING_SHOWN
        if before is not None:
            ours, user = False, before
            if before is self._existing.get(spec.name):  # a user that was read alone shows nothing but its own
                returned = self._returned
        else:
            create = partial(users.create, spec.name, spec.mysql_settings, spec.settings, spec.readonly)
            ours, user = await create_settled(create, partial(users.get, spec.name), self.retry)
        if ours:
            return Action.CREATED, await self._with_password(users, spec, user)
        if self._if_exists == "error":
            raise ConflictError(f"the user {spec.name!r} exists, and was left as it is", status=409)
        if self._if_exists == "update":
            return await self._update(users, spec, user, returned)
        _refuse_other_settings(spec, user, returned, reset_follows=self._if_exists == "reset")
        if self._if_exists == "reset":
            return Action.RESET, await self.reset(users, spec)
        return Action.KEPT, user

    async def _there_before(self, users: UserCalls, name: str) -> User | None:
        """The user if it was there before: from the list, or read now if the list is not to be trusted.

        It is not to be trusted with a user that this client deleted a moment ago, which is listed for a while. If the
        API returns no passwords, it is not to be trusted with one that it lacks either; ``settle`` says why.
        """
        user = self._existing.get(name)
        if user is not None:
            deletions = self._context.memory.deletions
            list_is_right = not deletions.may_be_listed_still(self._context.cluster_id, name, monotonic())
        else:
            list_is_right = self.returns_passwords or not self._listed
        if list_is_right:
            return user
        try:
            return await readable(partial(users.get, name), self.retry)
        except NotFoundError:
            return None

    async def _with_password(self, users: UserCalls, spec: NewUser, user: User) -> User:
        """A user that this run created, with its password; with a new one if the API does not return it.

        Raises:
            DatabaseClientError: The password is not known; ``may_have_applied`` is set.
        """
        if user.password is None:
            user = await self.read_password(users, user)
        if user.password is not None:
            return user
        if not self._listed:
            raise InvalidResponseError(
                f"{spec.name!r} is there and its password is not known; it was not reset, since the users could not be "
                "listed at the start of the run and it may be somebody else's",
                may_have_applied=True,
            )
        try:
            return await self.reset(users, spec)
        except DatabaseClientError as error:
            failure = error
        raise unsettled(failure, "it was created, but its password was lost and could not be reset")

    async def _update(self, users: UserCalls, spec: NewUser, user: User, returned: Returned) -> tuple[Action, User]:
        """Give ``user`` the settings of ``spec`` if it has others, or if nobody knows which it has.

        An authentication plugin that the API does not return is left alone, since it is changed with the password.
        MongoDB's ``readonly`` alone is too, since an update without the user's databases would take them away.
        """
        differ = {difference.setting for difference in differences(spec, user, returned)}
        if spec.settings is not None and "settings" in unknown_settings(spec, user, returned):
            differ.add("settings")
        if not differ:
            return Action.KEPT, user
        if is_provider_own(user):
            if differ == {"settings"}:  # unknown, and none of ours to change
                return Action.KEPT, user
            raise SettingsDifferError(
                f"{spec.name!r} is a user that came with the cluster, and its settings are not changed",
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
    """Give each user a new password."""

    async def do(self, spec: NewUser, meter: Meter) -> UserDone:
        user = await self.reset(self.calls(meter), spec)
        return UserDone(name=spec.name, action=Action.RESET, user=user, tries=meter.requests)


class DeprovisionUsers(UserJob[Removed]):
    """Delete each user that is there."""

    async def do(self, spec: NewUser, meter: Meter) -> Removed:
        return await removed(self.calls(meter).delete, spec.name, meter)


def _refuse_other_settings(spec: NewUser, user: User, returned: Returned, *, reset_follows: bool) -> None:
    """Raise SettingsDifferError if ``user`` has other settings than ``spec`` asks for.

    Args:
        spec: What is asked for.
        user: What is there.
        returned: Which of its members the API returns.
        reset_follows: Whether the user is about to be reset, which sets its authentication plugin too.
    """
    differ = [each for each in differences(spec, user, returned) if not (reset_follows and each.setting == AUTH_PLUGIN)]
    if differ:
        raise SettingsDifferError(
            f"the user {spec.name!r} exists with other settings than asked for ({'; '.join(map(str, differ))}) and was "
            'left as it is: if_exists="update" gives it those of the NewUser',
            settings=tuple(each.setting for each in differ),
        )
