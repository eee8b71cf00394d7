"""The users of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from time import monotonic
from typing import Any

from ._bulk.outcomes import RemovalOutcome, UserOutcome
from ._bulk.plan import UserPlan, plan_users
from ._bulk.run import Run
from ._bulk.user_jobs import DeprovisionUsers, IfExists, ProvisionUsers, RotateUsers
from ._json.converter import setting_names, write
from ._request.context import ClusterContext
from ._request.operations import CREATE_USER, DELETE_USER, GET_USER, LIST_USERS, UPDATE_USER
from ._request.paths import check_name
from ._request.reset import reset_password
from ._user_settings import check_settings
from .errors import DatabaseClientError, InvalidArgumentError, NotFoundError
from .models import MySQLSettings, NewUser, User, UserSettings


class UsersAPI:
    """``cluster.users``: the users of one cluster, one at a time or in bulk.

    Beside what it says itself, every method raises the errors of ``aiodbclient.errors``. Two of them mean that nothing
    was sent: UnsupportedOperationError on Redis and Valkey and for settings of another engine, and
    InvalidArgumentError for a name that no URL can carry or an argument of the wrong type.
    """

    __slots__ = ("_context",)

    def __init__(self, context: ClusterContext) -> None:
        self._context = context

    async def list(self) -> list[User]:
        """Read all users of the cluster. Safe to repeat and to cancel.

        Returns:
            The users. Their passwords need the scope ``database:view_credentials``; MongoDB tells none.
        """
        return await self._context.list(LIST_USERS, User)

    async def get(self, name: str) -> User:
        """Read one user. Safe to repeat and to cancel.

        Args:
            name: The user.

        Returns:
            The user. Its password needs the scope ``database:view_credentials``; MongoDB tells none.

        Raises:
            NotFoundError: There is no such user. A fresh one can answer so for a moment.
        """
        return (await self._context.send(GET_USER, name)).read(User)

    async def create(
        self,
        name: str,
        mysql_settings: MySQLSettings | None = None,
        settings: UserSettings | None = None,
        readonly: bool | None = None,
    ) -> User:
        """Create a user.

        A create that may have been applied is not sent again: its error has ``may_have_applied`` set and says how to
        find out. A cancelled call may have been applied too, and nothing tells. ``provision`` finds out by itself.

        Args:
            name: The user.
            mysql_settings: How a MySQL user proves its password.
            settings: What the user may do, by engine.
            readonly: MongoDB's older way to say ``MongoUserSettings(role="readOnly")``.

        Returns:
            The user with its password, which MongoDB tells only here. It is all you need: ``get`` right after it may
            raise NotFoundError for a moment.

        Raises:
            ConflictError: The name is taken, which UnprocessableEntityError may say too.
        """
        given: Sequence[str] = ()
        body: dict[str, Any] = {"name": name}
        if mysql_settings is not None or settings is not None or readonly is not None:
            check_settings(mysql_settings, settings, readonly)
            given = setting_names(mysql_settings, settings, readonly)
            body = write(NewUser(name, mysql_settings, settings, readonly))
        user = (await self._context.send(CREATE_USER, name, body, given)).read(User)
        self._context.memory.deletions.forget(self._context.cluster_id, name)
        return user

    async def update(self, name: str, settings: UserSettings) -> User:
        """Replace the settings of a user. Safe to repeat; a cancelled call may have been applied.

        Args:
            name: The user.
            settings: All of its settings. What is left out goes back to the API's default: ``pg_allow_replication`` to
                false, an ACL to none.

        Returns:
            The user with its name and settings.

        Raises:
            NotFoundError: There is no such user.
        """
        if settings is None:
            raise InvalidArgumentError("settings must be a UserSettings, not None; nothing was sent")
        check_settings(settings=settings)
        body = {"settings": write(settings)}
        return (await self._context.send(UPDATE_USER, name, body, setting_names(None, settings))).read(User)

    async def delete(self, name: str) -> None:
        """Delete a user. Safe to repeat; a cancelled call may have been applied.

        Args:
            name: The user.

        Raises:
            NotFoundError: There is no such user. Where an earlier try of this call may have deleted it, that is
                success.
        """
        check_name(name)
        deletions, cluster_id = self._context.memory.deletions, self._context.cluster_id
        deletions.note(cluster_id, name, monotonic())
        try:
            (await self._context.send(DELETE_USER, name)).read_nothing()
        except DatabaseClientError as error:
            if not (error.may_have_applied or isinstance(error, NotFoundError)):
                deletions.forget(cluster_id, name)
            raise

    async def reset_auth(self, name: str, mysql_settings: MySQLSettings | None = None) -> User:
        """Give a user a new password. The old one ends at once.

        Safe to repeat. A cancelled call may have been applied, and then nobody knows the password: reset it again.

        If the answer to a first try was lost and a second try was answered, the server may perform the two in either
        order. So the password is then read back before it is returned.

        Args:
            name: The user.
            mysql_settings: How it proves its password from now on.

        Returns:
            The user with its new password.

        Raises:
            NotFoundError: There is no such user.
            InvalidResponseError: The password cannot be known, since two resets were sent and the API does not tell it
                (MongoDB, or a token without the scope): ``may_have_applied`` is set. Or it is no documented answer.
        """
        check_settings(mysql_settings)
        return await reset_password(self._context, name, mysql_settings)

    def provision(
        self,
        specs: Iterable[str | NewUser] | AsyncIterable[str | NewUser],
        if_exists: IfExists = "keep",
        *,
        concurrency: int | None = None,
    ) -> Run[UserOutcome]:
        """See to it that each of the users is there, and tell each one's outcome as soon as it is known.

        A create whose answer was lost is settled: the name is read back, created again if it is not there, and given a
        new password where nothing tells its own. Safe to run again. Stopping and cancelling: see Run.

        Args:
            specs: Names, or NewUsers with settings, taken from the iterable as the run gets to them. A name that comes
                twice fails the second time, with nothing sent. A bare name asks for no settings, and any will do.
            if_exists: What becomes of a user that existed before. ``"keep"``: it is KEPT as the API tells it.
                ``"reset"``: it is RESET, with a new password. ``"error"``: it fails with ConflictError. ``"update"``:
                it is UPDATED where its settings differ from the NewUser's, and else KEPT; where a MySQL user's
                authentication plugin differs it is RESET, since the API changes that with the password alone.
                ``"keep"`` and ``"reset"`` fail a user with other settings, with SettingsDifferError.
            concurrency: Names at a time. None: what the engine bears, which is 1 for MongoDB and else 16.

        Returns:
            The run. A user that was CREATED or RESET has the password that the API knows; one that was KEPT or UPDATED
            has it where the API tells it. The run waits for the rate budget however long it takes (``max_wait`` does
            not apply), in its bulk lane.

        Raises:
            InvalidArgumentError: At once, for an argument that cannot be.
            DatabaseClientError: In the loop, for what ends the whole run; see Run.
        """
        return Run(specs, ProvisionUsers(self._context, UsersAPI, if_exists), concurrency)

    def rotate(
        self, names: Iterable[str | NewUser] | AsyncIterable[str | NewUser], *, concurrency: int | None = None
    ) -> Run[UserOutcome]:
        """Give each of the users a new password.

        Where one failed with ``may_have_applied`` set, its old password may have ended and its new one is not known:
        rotate it again.

        Args:
            names: Names, or NewUsers, whose ``mysql_settings`` are set with the password.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are RESET, with the new password, or FAILED.
        """
        return Run(names, RotateUsers(self._context, UsersAPI), concurrency)

    def deprovision(
        self, names: Iterable[str | NewUser] | AsyncIterable[str | NewUser], *, concurrency: int | None = None
    ) -> Run[RemovalOutcome]:
        """Delete each of the users. Safe to run again.

        Args:
            names: Names, or NewUsers, of which the name counts.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are DELETED, ABSENT where there was none, or FAILED.
        """
        return Run(names, DeprovisionUsers(self._context, UsersAPI), concurrency)

    async def plan(
        self, specs: Iterable[str | NewUser] | AsyncIterable[str | NewUser], *, prune: bool = False
    ) -> UserPlan:
        """Compare the users of the cluster with those that are asked for. Changes nothing.

        It costs one list, however many users there are, and a read for each name that the list has in another spelling
        alone (case, white space around it).

        Args:
            specs: Names, or NewUsers with settings; all of them are read before anything is sent. A bare name asks for
                no settings, and any will do.
            prune: Whether ``plan.apply()`` deletes the users that are not asked for.

        Returns:
            The plan. ``str(plan)`` is for people, ``plan.apply()`` is a run that does it.

        Raises:
            InvalidArgumentError: A spec cannot be, or a name comes twice; nothing was sent.
            UnsupportedOperationError: The cluster's engine has no users, or not such a setting.
            DatabaseClientError: The users cannot be read.
        """
        return await plan_users(self._context, UsersAPI, specs, prune=prune)
