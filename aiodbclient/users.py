"""The users of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.jobs import Deprovision, IfExists, ProvisionUsers, RotateUsers
from ._bulk.outcomes import RemovalOutcome, UserOutcome
from ._bulk.run import Run
from ._http.context import ClusterContext
from ._http.operations import CREATE_USER, DELETE_USER, GET_USER, LIST_USERS, UPDATE_USER
from ._http.resets import reset_auth
from ._json import UserChange
from .errors import InvalidArgumentError
from .models import MySQLSettings, NewUser, User, UserSettings


class UsersAPI:
    """``cluster.users``: the users of one cluster, one at a time or in bulk.

    Every method can raise the errors of ``aiodbclient.errors``. Two of them mean that nothing was sent:
    UnsupportedOperationError (Redis and Valkey, and settings of another engine), and InvalidArgumentError (a name that
    a URL cannot hold, or an argument of the wrong type).
    """

    def __init__(self, context: ClusterContext) -> None:
        self._context = context

    async def list(self) -> list[User]:
        """Read all users of the cluster. Safe to repeat and to cancel.

        Returns:
            The users. Passwords need the scope ``database:view_credentials``; MongoDB returns none.
        """
        return await self._context.list(LIST_USERS, User)

    async def get(self, name: str) -> User:
        """Read one user. Safe to repeat and to cancel.

        Returns:
            The user. Its password needs the scope ``database:view_credentials``; MongoDB returns none.

        Raises:
            NotFoundError: There is no such user. The API can answer this for a moment after the create.
        """
        return (await self._context.send(GET_USER, name)).read(User)

    async def create(
        self,
        name: str,
        *,
        mysql_settings: MySQLSettings | None = None,
        settings: UserSettings | None = None,
        readonly: bool | None = None,
    ) -> User:
        """Create a user. Not safe to repeat: the second call raises NameTakenError.

        The client does not retry a create that may have been applied. The error then has ``may_have_applied`` set and
        says what to do. A cancelled call may have been applied too. ``ensure`` settles these cases for you.

        Args:
            name: The user.
            mysql_settings: The authentication plugin of a MySQL user.
            settings: What the user may do, by engine.
            readonly: MongoDB's older form of ``MongoUserSettings(role="readOnly")``.

        Returns:
            The user with its password. MongoDB returns the password only here and from ``reset_auth``. Use this result:
            ``get`` may raise NotFoundError for a moment. The password is None if the API does not have it yet: read it
            with ``get``.

        Raises:
            NameTakenError: The name is taken.
        """
        new_user = NewUser(name, mysql_settings, settings, readonly)
        return (await self._context.send(CREATE_USER, name, new_user)).read(User)

    async def ensure(self, name: str | NewUser, *, if_exists: IfExists = "keep") -> User:
        """Return the user, and create it if it does not exist. Safe to repeat, also after a cancellation.

        It reads the user first, which ``create`` does not. If the answer to the create is lost, it reads the user back,
        and creates it again if it is missing. If the API does not return the password of the new user, it resets it.

        Args:
            name: The user, or a NewUser: the arguments of ``create`` as one value.
            if_exists: As for ``provision``.

        Returns:
            The user. A user that was created or reset has its current password. Any other user has its password if the
            API returns it.

        Raises:
            NameTakenError: The user exists, and ``if_exists`` is ``"error"``.
        """
        job = ProvisionUsers(self._context, if_exists)
        return await job.ensure(self._context, job.parse(name))

    async def update(self, name: str, settings: UserSettings) -> User:
        """Replace the settings of a user. Safe to repeat; a cancelled call may have been applied.

        Args:
            name: The user.
            settings: All of its settings. The API resets a setting that you leave out to its default:
                ``pg_allow_replication`` to false, an ACL to none.

        Returns:
            The user with its name and settings.

        Raises:
            NotFoundError: There is no such user.
        """
        if settings is None:
            raise InvalidArgumentError("settings must be a UserSettings, not None; nothing was sent")
        return (await self._context.send(UPDATE_USER, name, UserChange(settings))).read(User)

    async def delete(self, name: str) -> None:
        """Delete a user. Safe to repeat; a cancelled call may have been applied.

        Raises:
            NotFoundError: There is no such user. If an earlier try of this call may have deleted it, the call succeeds.
        """
        (await self._context.send(DELETE_USER, name)).read_nothing()

    async def reset_auth(self, name: str, *, mysql_settings: MySQLSettings | None = None) -> User:
        """Give a user a new password. The old one stops working at once.

        Safe to repeat. A cancelled call may have been applied; the password is then unknown, so reset it again.

        If the answer to a first try is lost and a second try succeeds, the server may perform the two in either order.
        So the client then reads the password back before it returns it.

        Args:
            name: The user.
            mysql_settings: The authentication plugin of a MySQL user from now on.

        Returns:
            The user with its new password, or with None if the API does not have it yet: read it with ``get``.

        Raises:
            NotFoundError: There is no such user.
            InvalidResponseError: The client sent two resets, and the API does not return the password (MongoDB, or a
                token without the scope): ``may_have_applied`` is set. Or the answer is not the documented one.
        """
        return await reset_auth(self._context, name, mysql_settings)

    def provision(
        self,
        specs: Iterable[str | NewUser] | AsyncIterable[str | NewUser],
        *,
        if_exists: IfExists = "keep",
        concurrency: int | None = None,
    ) -> Run[UserOutcome]:
        """Create the users that do not exist. Safe to run again. To stop or cancel it, see Run.

        If the answer to a create is lost, the run reads the user back, and creates it again if it is missing. If the
        API does not return its password, the run resets it.

        Args:
            specs: Names, or NewUsers: the arguments of ``create`` as one value. The run reads the iterable as it goes.
                A duplicate name fails.
            if_exists: What to do with a user that existed before the run.
                ``"keep"``: it is KEPT as it is.
                ``"reset"``: it is RESET, with a new password.
                ``"error"``: it fails with NameTakenError.
                ``"update"``: it is UPDATED if the NewUser has ``settings``: the API replaces all settings of the user.
                It is RESET if the NewUser has ``mysql_settings``, because the API changes the authentication plugin
                only with the password. Otherwise it is KEPT.
            concurrency: Names at a time. None: as many as the engine allows, 1 for MongoDB and 16 for the others.

        Returns:
            The run. A user that was CREATED or RESET has its current password. A user that was KEPT or UPDATED has its
            password if the API returns it. The run waits for the rate limit as long as it takes, behind all other
            calls.

        Raises:
            InvalidArgumentError: At once, if an argument is invalid.
            DatabaseClientError: In the loop, if the whole run ends; see Run.
        """
        return Run(specs, ProvisionUsers(self._context, if_exists), concurrency)

    def rotate(
        self,
        names: Iterable[str | NewUser | User] | AsyncIterable[str | NewUser | User],
        *,
        concurrency: int | None = None,
    ) -> Run[UserOutcome]:
        """Give the users new passwords. A second run replaces them again. To stop or cancel it, see Run.

        If a user fails with ``may_have_applied`` set, its old password may be invalid, and its new one is unknown:
        rotate it again. If the run raises, ``run.outcomes`` has the new passwords so far.

        Args:
            names: Names, Users, or NewUsers. The ``mysql_settings`` of a NewUser are set together with the password.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are RESET, with the new password, or FAILED.
        """
        return Run(names, RotateUsers(self._context), concurrency)

    def deprovision(
        self,
        names: Iterable[str | NewUser | User] | AsyncIterable[str | NewUser | User],
        *,
        concurrency: int | None = None,
    ) -> Run[RemovalOutcome]:
        """Delete the users. Safe to run again. To stop or cancel it, see Run.

        Args:
            names: Names, Users, or NewUsers.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are DELETED, ABSENT if there was no such user, or FAILED. Nothing is ABSENT if the
            token may not read the cluster, since there may be no such cluster.

        Raises:
            NotFoundError: In the loop, if there is no such cluster.
        """
        return Run(names, Deprovision(self._context, LIST_USERS, DELETE_USER, NewUser, User), concurrency)
