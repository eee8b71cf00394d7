"""The users of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.jobs import DeprovisionUsers, IfExists, ProvisionUsers, RotateUsers
from ._bulk.outcomes import RemovalOutcome, UserOutcome
from ._bulk.run import Run
from ._request.user_calls import UserCalls
from .models import NewUser


class UsersAPI(UserCalls):
    """``cluster.users``: the users of one cluster, one at a time or in bulk.

    Every method can raise the errors of ``aiodbclient.errors``. Two of them mean that nothing was sent:
    UnsupportedOperationError (Redis and Valkey, and settings of another engine), and InvalidArgumentError (a name that
    a URL cannot hold, or an argument of the wrong type).
    """

    __slots__ = ()

    def provision(
        self,
        specs: Iterable[str | NewUser] | AsyncIterable[str | NewUser],
        if_exists: IfExists = "keep",
        *,
        concurrency: int | None = None,
    ) -> Run[UserOutcome]:
        """Create each of the users that does not exist, and return each outcome as soon as it is known.

        If the answer to a create is lost, the run reads the name back, creates it again if it is missing, and resets
        its password if the API does not return it. Safe to run again. To stop or cancel it, see Run.

        Args:
            specs: Names, or NewUsers with settings. The run reads the iterable as it goes. If a name comes twice, the
                second one fails, and nothing is sent for it.
            if_exists: What to do with a user that existed before the run.
                ``"keep"``: it is KEPT as it is.
                ``"reset"``: it is RESET, with a new password.
                ``"error"``: it fails with NameTakenError.
                ``"update"``: it is UPDATED if the NewUser has ``settings``: the API replaces all settings of the user.
                It is RESET if the NewUser has ``mysql_settings``, because the API changes the authentication plugin
                only with the password. Otherwise it is KEPT.
            concurrency: Names at a time. None: as many as the engine allows, 1 for MongoDB and 16 for the others.

        Returns:
            The run. A user that was CREATED or RESET has its current password. One that was KEPT or UPDATED has it if
            the API returns it. The run waits for the rate budget as long as it takes, in the bulk lane; ``max_wait``
            does not apply.

        Raises:
            InvalidArgumentError: At once, if an argument is invalid.
            DatabaseClientError: In the loop, if the whole run ends; see Run.
        """
        return Run(specs, ProvisionUsers(self._context, if_exists), concurrency)

    def rotate(
        self, names: Iterable[str | NewUser] | AsyncIterable[str | NewUser], *, concurrency: int | None = None
    ) -> Run[UserOutcome]:
        """Give each of the users a new password.

        If a user fails with ``may_have_applied`` set, its old password may be invalid, and its new password is unknown:
        rotate it again.

        Args:
            names: Names, or NewUsers. Their ``mysql_settings`` are set together with the password.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are RESET, with the new password, or FAILED.
        """
        return Run(names, RotateUsers(self._context), concurrency)

    def deprovision(
        self, names: Iterable[str | NewUser] | AsyncIterable[str | NewUser], *, concurrency: int | None = None
    ) -> Run[RemovalOutcome]:
        """Delete each of the users. Safe to run again.

        Args:
            names: Names, or NewUsers; only the name matters.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are DELETED, ABSENT if there was no such user, or FAILED.
        """
        return Run(names, DeprovisionUsers(self._context), concurrency)
