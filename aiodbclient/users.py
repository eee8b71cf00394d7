"""The users of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.jobs import DeprovisionUsers, IfExists, ProvisionUsers, RotateUsers, TenantRecords
from ._bulk.outcomes import RemovalOutcome, UserOutcome
from ._bulk.plan import UserPlan, plan_users
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
                second one fails, and nothing is sent for it. A name alone accepts any settings of an existing user.
            if_exists: What to do with a user that existed before the run.
                ``"keep"``: it is KEPT as it is.
                ``"reset"``: it is RESET, with a new password.
                ``"error"``: it fails with NameTakenError.
                ``"update"``: it is UPDATED if its settings differ from those of the NewUser, or if the API does not
                return them; otherwise it is KEPT. If a MySQL user's authentication plugin differs, it is RESET, since
                the API changes the plugin only with the password.
                ``"keep"`` and ``"reset"`` fail with SettingsDifferError if the user is known to have other settings.
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
        self,
        names: Iterable[str | NewUser] | AsyncIterable[str | NewUser],
        *,
        store: TenantRecords | None = None,
        concurrency: int | None = None,
    ) -> Run[RemovalOutcome]:
        """Delete each of the users, except logins of tenants. Safe to run again.

        On PostgreSQL and MySQL, a user with the name of a database, or with a name such as
        ``alpha_53ce71e1b09c4582_b``, may be a tenant's login, and fails with InvalidArgumentError. If it is none, call
        ``delete``.

        Args:
            names: Names, or NewUsers; only the name matters.
            store: The open store of a ``Tenants``. Each login that is on record there fails too.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are DELETED, ABSENT if there was no such user, or FAILED.
        """
        return Run(names, DeprovisionUsers(self._context, store), concurrency)

    async def plan(
        self,
        specs: Iterable[str | NewUser] | AsyncIterable[str | NewUser],
        *,
        prune: bool = False,
        store: TenantRecords | None = None,
    ) -> UserPlan:
        """Compare the users of the cluster with the users you want. It only reads: safe to repeat and to cancel.

        It lists the users once, however many there are. It also reads each name that the list has only in another
        spelling (other case, or white space around it).

        Args:
            specs: Names, or NewUsers with settings. ``plan`` reads all of them before it sends anything. A name alone
                accepts any settings.
            prune: Whether ``plan.apply()`` deletes the users that are not in ``specs``. It never deletes what may be a
                tenant's login (see ``deprovision``): ``plan.tenants`` names those. Reads the databases once.
            store: The open store of a ``Tenants``. Each login that is on record there is left alone too.

        Returns:
            The plan. ``str(plan)`` reads like a diff, and ``plan.apply()`` is a run that makes the changes.

        Raises:
            InvalidArgumentError: A spec is invalid, or a name comes twice; nothing was sent.
            UnsupportedOperationError: The cluster's engine has no users, or does not have a setting.
            DatabaseClientError: The users could not be read.
        """
        return await plan_users(self._context, specs, prune=prune, store=store)
