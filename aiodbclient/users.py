"""The users of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.outcomes import RemovalOutcome, UserOutcome
from ._bulk.plan import UserPlan, plan_users
from ._bulk.run import Run
from ._bulk.user_jobs import DeprovisionUsers, IfExists, ProvisionUsers, RotateUsers
from ._request.user_calls import UserCalls
from .models import NewUser


class UsersAPI(UserCalls):
    """``cluster.users``: the users of one cluster, one at a time or in bulk.

    Beside what it says itself, every method raises the errors of ``aiodbclient.errors``. Two of them mean that nothing
    was sent: UnsupportedOperationError on Redis and Valkey and for settings of another engine, and
    InvalidArgumentError for a name that no URL can carry or an argument of the wrong type.
    """

    __slots__ = ()

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
        return Run(specs, ProvisionUsers(self._context, if_exists), concurrency)

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
        return Run(names, RotateUsers(self._context), concurrency)

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
        return Run(names, DeprovisionUsers(self._context), concurrency)

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
        return await plan_users(self._context, specs, prune=prune)
