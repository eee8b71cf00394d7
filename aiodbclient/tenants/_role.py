"""``TenantRole``: the operations that tenants, and their readers and writers, have in common."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Iterable
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, overload

from .._bulk.outcomes import Done
from .._bulk.run import Run
from .._checks import check_version, check_whole
from .._http.call import RequestStats
from ..errors import InvalidArgumentError
from ._context import Context
from ._credential import Credential
from ._naming import Role, check_tenant
from ._operations.check import CheckTenants
from ._operations.each import EachTenant
from ._operations.loop import TenantJob
from ._operations.provision import IfExists, ProvisionTenants
from ._operations.remove import RemoveTenants
from ._operations.rotate import RevokePrevious, RotateTenants
from ._outcomes import (
    TenantCheckOutcome,
    TenantFailed,
    TenantOutcome,
    TenantRemovalOutcome,
    TenantResult,
    TenantSkipped,
)
from ._records import TenantRecord
from ._stores import readable

GivenNames: TypeAlias = Iterable[str] | AsyncIterable[str]

T = TypeVar("T")
DoneT = TypeVar("DoneT", bound=Done)


class TenantRole:
    """The readers or writers of the tenants, or the tenants themselves. ``Tenants.role`` returns it.

    A tenant must be on record before it can have a reader or a writer. ``Tenants.suspend``, ``resume``, ``remove`` and
    ``move`` of a tenant take its readers and writers with it. What ``Tenants`` says of all its methods holds here too.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        clusters = [*self._context.clusters.clients.values()]
        where = repr(clusters[0]) if len(clusters) == 1 else f"{len(clusters)} clusters"
        role = "" if self._context.role is Role.OWNER else f" {self._context.role}"
        return f"<{type(self).__name__}{role} of {where} in {self._context.store!r}>"

    async def ensure(self, name: str, *, if_exists: IfExists = "error") -> Credential:
        """Return the credential of the tenant ``name``. If it has none on record, create its database and login first.

        The credential is stored before it is returned. A second call, in any process, returns the same one; two calls
        at once create one login, and both return it.

        Args:
            name: The tenant.
            if_exists: As for ``provision``.

        Returns:
            The credential to use now.

        Raises:
            InvalidArgumentError: The name is invalid. Nothing was created.
            CapacityError: All clusters are full. Nothing was sent, and nothing is on record.
            NameTakenError: The login or the database exists and is not on record, or the name is on record with another
                prefix. Nothing was changed.
            ConflictError: The name is on record for another cluster, its database may not be adopted, or its template
                cannot be copied. Nothing was changed.
            TenantNotFoundError: These are readers or writers, and the tenant is not on record.
            TenantUnavailableError: The tenant is suspended or being moved, or another process works on it for more than
                30 s. The subclass says which.
            UnsupportedOperationError: The engine does not support tenants, or is unknown. Nothing was created.
            ConfigurationError: The cluster is not online yet, or the token lacks a scope.
            GrantError: The database server refused a statement or the new login.
            ClaimLostError: The process was stopped for longer than a lease, five times. Call it again.
            StoreError: The store failed. No request was sent that is not on record.
            DatabaseClientError: The API refused a request or did not answer.
        """
        job = ProvisionTenants(self._context, if_exists)
        job.foreground(self._context.clusters.limits)
        return (await job.do(job.parse(name), RequestStats())).credential

    async def get(self, name: str) -> Credential | None:
        """Return the credential on record. Sends no request.

        Args:
            name: The tenant.

        Returns:
            The credential to use now. None if none is on record, if it is being replaced or removed, or if the
            tenant is suspended or being moved.

        Raises:
            InvalidArgumentError: The name is invalid.
            ConflictError: The name is on record for another cluster, or, as a NameTakenError, with another prefix.
            StoreError: The store cannot be read.
        """
        record = await self._context.record(check_tenant(name))
        return None if record is None else record.credential(self._context.role)

    async def records(self) -> AsyncIterator[TenantRecord]:
        """Yield the record of each tenant of these clusters, in the order of their names. Sends no request.

        Raises:
            StoreError: The store cannot be read.
        """
        async for entry in readable(self._context.entries()):
            yield entry

    def provision(self, names: GivenNames, *, if_exists: IfExists = "error") -> Run[TenantOutcome]:
        """Do what ``ensure`` does for each of ``names``.

        Args:
            names: The tenants.
            if_exists: What happens if a login or a database of that name exists and is not on record. ``"error"``: the
                name fails with NameTakenError, and nothing is changed. ``"adopt"``: the database and what is in it
                become the tenant's, with a new login. The login that was there goes on working, as the previous one,
                until ``revoke_previous`` ends it. Logins of others can no longer use the database.

        Returns:
            The run. Its outcomes are CREATED, KEPT (it was on record), ADOPTED or FAILED.

        Raises:
            InvalidArgumentError: ``if_exists`` is neither.
            NameTakenError: By the run: the store is empty, and the clusters have tenants of these names, as if it was
                the wrong store. Nothing was created.
        """
        return self._run(names, ProvisionTenants(self._context, if_exists, names))

    def check(self, names: GivenNames | None = None, *, not_on_record: bool = False) -> Run[TenantCheckOutcome]:
        """Check whether tenants work, with their readers and writers: compare their records with the server.

        It only reads and logs in.

        Args:
            names: The tenants. None: all on record, except names whose process died before it began anything.
            not_on_record: Whether to find also the tenants whose database is on a server and not on record here, as
                after a restore of the store. Only without ``names``.

        Returns:
            The run. Its outcomes are CHECKED, with the ``problems`` (empty if all is well), or FAILED: the tenant could
            not be checked.

        Raises:
            InvalidArgumentError: ``names`` is given with ``not_on_record``.
        """
        if names is not None and not_on_record:
            raise InvalidArgumentError("not_on_record is for all tenants: check takes no names with it")
        job = CheckTenants(self._context)
        return self._run(job.every_name() if not_on_record else names, job)

    def rotate(
        self,
        names: GivenNames | None = None,
        *,
        all: bool = False,
        older_than: timedelta | None = None,
        force: bool = False,
    ) -> Run[TenantOutcome]:
        """Give each tenant a credential with a new login, and leave the one in use as it is.

        The new credential is tested by a login and stored before the outcome is yielded. The previous one works until
        ``revoke_previous``.

        With ``older_than`` the call is safe to repeat and to run in several processes at once: each tenant is rotated
        once. Without it, a tenant whose previous credential is not revoked fails with RotationPendingError.
        With ``force`` and without ``older_than`` it is rotated again, which revokes the login that programs still use.

        Args:
            names: The tenants.
            all: Whether to rotate all on record, instead of ``names``.
            older_than: Leave tenants alone whose credential is younger, by the store's clock, unless their rotation is
                unfinished. Without ``names``: all on record that are older.
            force: Whether to rotate a tenant again whose previous credential is not revoked yet, which revokes it.

        Returns:
            The run. Its outcomes are ROTATED, with the new credential, KEPT (it is younger, or another process rotated
            it meanwhile), or FAILED: with RotationPendingError if the previous credential is not revoked, or with
            TenantNotFoundError if the tenant has no credential on record.

        Raises:
            InvalidArgumentError: None of ``names``, ``all`` and ``older_than`` is given, or both ``names`` and ``all``;
                ``older_than`` is not a timedelta of 0 or more.
        """
        check_selected("rotate", names, all=all, older_than=older_than)
        return self._run(names, RotateTenants(self._context, older_than, force=force))

    def revoke_previous(
        self,
        names: GivenNames | None = None,
        *,
        all: bool = False,
        older_than: timedelta | None = None,
        unused: bool = False,
    ) -> Run[TenantOutcome]:
        """End the previous login of each tenant for good, with its sessions, and drop it.

        What it owns in the tenant's database stays the tenant's. If others keep it from being dropped, it stays, ended,
        and the next revocation tries again.

        Args:
            names: The tenants.
            all: Whether to do it for all on record, instead of ``names``.
            older_than: Leave tenants alone whose rotation is younger, by the store's clock, unless their revocation is
                unfinished. Without ``names``: all on record that were rotated before.
            unused: Whether to leave tenants alone while a session of the previous login is open.

        Returns:
            The run. Its outcomes are REVOKED, KEPT (there was no previous credential, the rotation is younger, or the
            previous login has so many open ``sessions``) or FAILED.

        Raises:
            InvalidArgumentError: As for ``rotate``.
        """
        check_selected("revoke_previous", names, all=all, older_than=older_than)
        return self._run(names, RevokePrevious(self._context, older_than, unused=unused))

    def remove(
        self, names: GivenNames | None = None, *, suspended_for: timedelta | None = None
    ) -> Run[TenantRemovalOutcome]:
        """Remove the logins of each tenant, its database with all that is in it, and last its record.

        Its readers and writers are removed first. Once begun, ``get`` returns None for the tenant, and a removal that
        failed is finished by the next ``remove``, ``repair`` or ``provision`` of it.

        Args:
            names: The tenants. None, only with ``suspended_for``: all on record.
            suspended_for: Remove only tenants that are suspended for so long, by the store's clock.

        Returns:
            The run. Its outcomes are DELETED, ABSENT (nothing is on record, and nothing was sent), KEPT (it is not
            suspended for so long) or FAILED.

        Raises:
            InvalidArgumentError: Neither is given, or ``suspended_for`` is not a timedelta of 0 or more.
        """
        if names is None and suspended_for is None:
            raise InvalidArgumentError("remove needs the names of the tenants, unless suspended_for is given")
        _check_age("suspended_for", suspended_for)
        return self._run(names, RemoveTenants(self._context, suspended_for))

    @overload
    def each(
        self,
        work: Callable[[Credential], Awaitable[T]],
        names: GivenNames | None = None,
        *,
        version: None = None,
        concurrency: int = 16,
    ) -> Run[TenantResult[T] | TenantFailed]: ...

    @overload
    def each(
        self,
        work: Callable[[Credential], Awaitable[T]],
        names: GivenNames | None = None,
        *,
        version: str | None,
        concurrency: int = 16,
    ) -> Run[TenantResult[T] | TenantSkipped | TenantFailed]: ...

    def each(
        self,
        work: Callable[[Credential], Awaitable[T]],
        names: GivenNames | None = None,
        *,
        version: str | None = None,
        concurrency: int = 16,
    ) -> Run[Any]:
        """Call ``work`` with the credential of each tenant, some at a time. It sends no request itself.

        ```python
        async for outcome in tenants.each(migrate):
            print(outcome.name, outcome.error or outcome.value)
        ```

        An exception of ``work`` fails that tenant, and the others go on. ``stop`` lets the calls in progress finish;
        cancelling the loop cancels them. Whether it is safe to repeat depends on ``work``.

        With ``version`` the call continues where an earlier one stopped: it skips the tenants that have the version,
        and stores it after ``work`` has returned. Several processes may call it at once: a tenant is one process's at
        a time. If a process dies after ``work`` and before the version is stored, ``work`` runs again. Other operations
        do not wait for ``work``. If they take away its login, as ``suspend``, ``remove`` and ``move`` do, ``work`` is
        cancelled, and the version is not stored.

        Args:
            work: An async function. Code that blocks needs ``asyncio.to_thread`` or a process of its own.
            names: The tenants. None: all on record.
            version: The version that a tenant has after ``work``, such as the revision of your migrations.
            concurrency: How many calls of ``work`` at a time.

        Returns:
            The run. Its outcomes are DONE, with the ``value`` that ``work`` returned, SKIPPED (the tenant has the
            ``version``), or FAILED: with the exception of ``work``, with TenantNotFoundError or TenantUnavailableError
            if the tenant has no credential to use, or with ClaimLostError. Each has the ``cluster``.

        Raises:
            InvalidArgumentError: ``work`` is not callable, ``version`` is not a printable string or not the owner's, or
                ``concurrency`` is not an int of at least 1.
        """
        if not callable(work):
            raise InvalidArgumentError(f"work must be an async function, not {work!r}")
        check_version(version)
        if version is not None and self._context.role is not Role.OWNER:
            raise InvalidArgumentError(f"version needs the role owner, not {self._context.role}: it is the tenant's")
        check_whole("concurrency", concurrency)
        return self._run(names, EachTenant(self._context, work, version), concurrency)

    def _run(
        self, names: GivenNames | None, job: TenantJob[DoneT], concurrency: int | None = None
    ) -> Run[DoneT | TenantFailed]:
        """Make a run, to which ``max_wait`` applies, as to ``ensure``, if it is over a collection of one name."""
        if isinstance(names, Collection) and not isinstance(names, str) and len(names) == 1:
            job.foreground()
        return Run(self._context.names() if names is None else names, job, concurrency)


def _check_age(option: str, age: object) -> None:
    if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
        raise InvalidArgumentError(f"{option} must be a timedelta of 0 or more, not {age!r}")


def check_selected(operation: str, names: Any, *, all: bool, older_than: timedelta | None = None) -> None:
    """Refuse an operation on every tenant in the store, unless the caller says so."""
    _check_age("older_than", older_than)
    if names is not None and all:
        raise InvalidArgumentError(f"{operation} takes names or all=True, not both")
    if names is None and not all and older_than is None:
        raise InvalidArgumentError(
            f"{operation} needs names; all=True is every tenant on record"
            + (", or pass older_than" * (operation != "repair"))
        )
