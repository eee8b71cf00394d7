"""``Tenants``: the class for users. It creates a job for each verb and passes it to a run."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from copy import copy
from datetime import timedelta
from typing import TypeAlias, TypeVar

from .._bulk.outcomes import Done, Failed
from .._bulk.run import Run
from .._checks import check_whole
from .._http.call import RequestStats
from ..clusters import ClusterClient
from ..errors import InvalidArgumentError
from ._capacity import ChooseCluster, ClusterCapacity, Placement
from ._context import Context, Setup, Sites
from ._credential import Credential
from ._naming import Role, check_tenant
from ._outcomes import (
    TenantCheckOutcome,
    TenantEvent,
    TenantMoveOutcome,
    TenantOutcome,
    TenantRemovalOutcome,
    TenantRepairOutcome,
    TenantResult,
)
from ._stores import Record, Store
from ._usage import Usage, capacity_of, usage_of
from ._verbs import changes
from ._verbs.check import CheckTenants
from ._verbs.each import EachTenant
from ._verbs.jobs import TenantJob
from ._verbs.move import MoveTenants
from ._verbs.provision import IfExists, ProvisionTenants, RepairTenants

GivenNames: TypeAlias = Iterable[str] | AsyncIterable[str]

T = TypeVar("T")
DoneT = TypeVar("DoneT", bound=Done)


class Tenants:
    """The tenants of one or more clusters: each has a database, and a login with all rights in it alone.

    It stores a tenant's name before it sends anything for it, and its credential before it returns it. Every method is
    safe to repeat and to cancel: if a process dies or is cancelled, the next call for the same name continues. Any
    number of processes may work with the same store at once.

    Making a ``Tenants`` connects to nothing and needs no event loop. The names that a method takes may be long, lazy or
    async.

    With several clusters each tenant is on one of them, which is on record before the first request that changes
    something. Runs work on the clusters side by side. One that is away fails its own tenants, and no others.

    Args:
        cluster: The cluster, or several of one engine: PostgreSQL or MySQL. It is read once, and again when a
            connection to its server fails. Everything else is done by SQL.
        store: Holds the credentials. It must be open. It may hold tenants of other clusters and prefixes. They are left
            alone, and their names are taken.
        prefix: The beginning of the names of databases and logins. The names of the tenants do not have it.
        private: Whether credentials, and the SQL of the administrator, use the private connection.
        admin: The DSN of an administrator of the cluster, who makes the tenants' databases and logins. With several
            clusters: a mapping from their ids. None, or no DSN for a cluster: ``doadmin``. Then the token needs the
            scope ``database:view_credentials``. If its address is not the cluster's, as through a tunnel, ``doadmin``
            must be able to log in there too. Without that scope, such a tunnel must be on this machine.
        connection_limit: How many connections a login of a tenant may have at a time, to all databases together. The
            tenant cannot lift it. None: a quarter of the server's, at least 1.
        setup: An async function for migrations. It is called with the credential of a new tenant, before that is
            stored, and by the first ``ensure`` of a tenant that was made without one. If it raises, the tenant fails,
            and the next call runs it again. So it runs at least once.
        on_event: Called with a ``TenantEvent`` after the work on each tenant.
        max_tenants: How many tenants each cluster may have on record. None: no limit. The store is read when a run or
            the first ``ensure`` begins, and again after 30 s. Several processes may exceed ``max_tenants`` by what they
            create at once.
        choose_cluster: An async function that chooses the cluster of a new tenant. It is called with the name and the
            ``ClusterCapacity`` of each cluster, for one name at a time, and returns a cluster or its id. None: the
            cluster with the fewest tenants, of those that are not full and can be reached.

    Raises:
        InvalidArgumentError: ``cluster`` is not from ``DatabaseClient.cluster``, or holds none, one twice, or clusters
            of several engines; ``store`` is not a store, ``prefix`` is not a string, ``connection_limit`` or
            ``max_tenants`` is not a positive number, ``admin`` names another cluster, or ``setup``, ``on_event`` or
            ``choose_cluster`` is not callable.
    """

    __slots__ = ("_context",)

    def __init__(
        self,
        cluster: ClusterClient | Sequence[ClusterClient],
        store: Store,
        prefix: str = "",
        private: bool = False,
        admin: str | Mapping[str, str] | None = None,
        connection_limit: int | None = None,
        setup: Setup | None = None,
        on_event: Callable[[TenantEvent], object] | None = None,
        max_tenants: int | None = None,
        choose_cluster: ChooseCluster | None = None,
    ) -> None:
        if not isinstance(store, Store):
            raise InvalidArgumentError(f"store must have the methods of a Store, and {type(store).__name__} has not")
        if not isinstance(prefix, str):
            raise InvalidArgumentError(f"prefix must be a string, not {prefix!r}")
        for name, value in (("setup", setup), ("on_event", on_event), ("choose_cluster", choose_cluster)):
            if value is not None and not callable(value):
                raise InvalidArgumentError(f"{name} must be callable, not {value!r}")
        for name, number in (("connection_limit", connection_limit), ("max_tenants", max_tenants)):
            if number is not None:
                check_whole(name, number)
        sites = Sites(cluster, private=private, admin=admin, connection_limit=connection_limit)
        self._context = Context(
            sites=sites,
            placement=Placement(store, [*sites.clients], max_tenants, choose_cluster),
            store=store,
            prefix=prefix,
            setup=setup,
            on_event=on_event,
        )

    def __repr__(self) -> str:
        context = self._context
        what = "Tenants" if context.role is Role.OWNER else f"Tenants ({context.role})"
        clusters = [*context.sites.clients.values()]
        where = repr(clusters[0]) if len(clusters) == 1 else f"{len(clusters)} clusters"
        return f"<{what} of {where} in {context.store!r}>"

    def role(self, role: Role | str) -> Tenants:
        """Return the readers or writers of these tenants: a ``Tenants`` with the same methods, on the same store.

        A tenant must be on record before it can have a reader or a writer, and ``remove`` of the tenant removes them.

        Args:
            role: ``"reader"``, ``"writer"``, or ``"owner"`` for the tenants themselves.

        Raises:
            InvalidArgumentError: There is no such role.
        """
        if role not in list(Role):
            raise InvalidArgumentError(f"role must be one of {', '.join(Role)}, not {role!r}")
        other = copy(self)
        other._context = self._context.for_role(Role(role))
        return other

    async def ensure(self, name: str, if_exists: IfExists = "error") -> Credential:
        """Return the credential of the tenant ``name``. If it has none on record, create its database and login first.

        The credential is stored before it is returned. A second call, in any process, returns the same one; two calls
        at once create one login, and both return it. Safe to repeat and to cancel.

        Args:
            name: The tenant.
            if_exists: What happens if a login or a database of that name exists and is not on record, as for
                ``provision``.

        Returns:
            The credential to use now.

        Raises:
            InvalidArgumentError: The name is invalid, or on record for another cluster or prefix. Nothing was created.
            CapacityError: All clusters are full. Nothing was sent, and nothing is on record.
            NameTakenError: The login or the database exists and is not on record. Nothing was changed.
            ConflictError: It may not be adopted. Nothing was changed.
            TenantNotFoundError: These are readers or writers, and the tenant is not on record.
            SuspendedError: The tenant is suspended, or is being moved.
            UnsupportedOperationError: The engine does not support tenants, or is unknown. Nothing was created.
            ConfigurationError: The cluster is not online yet, or the token lacks a scope.
            GrantError: The database server refused a statement or the new login.
            ClaimLostError: The process was stopped for longer than a lease, five times. Call it again.
            TenantBusyError: Another process works on the tenant, for longer than 30 s.
            StoreError: The store failed. No request was sent that is not on record.
            DatabaseClientError: The API refused a request or did not answer.
        """
        return (await self._one(ProvisionTenants(self._context, if_exists), name)).credential

    async def get(self, name: str) -> Credential | None:
        """Return the credential on record. Sends no request; safe to repeat and to cancel.

        Args:
            name: The tenant.

        Returns:
            The credential to use now. None if none is on record, if it is being replaced or removed, or if the
            tenant is suspended.

        Raises:
            InvalidArgumentError: The name is invalid, or on record for another cluster or prefix.
            StoreError: The store cannot be read.
        """
        return (await self._context.record(check_tenant(name))).usable

    def records(self) -> AsyncIterator[Record]:
        """Yield the record of each tenant of these clusters, in the order of their names. Sends no request.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._context.records()

    async def capacity(self) -> list[ClusterCapacity]:
        """Return how many tenants each cluster has, in their order, and the size of their databases.

        It sends one query to each cluster. Safe to repeat and to cancel.

        Raises:
            StoreError: The store cannot be read.
        """
        return await capacity_of(self._context)

    def provision(self, names: GivenNames, if_exists: IfExists = "error") -> Run[TenantOutcome]:
        """Do what ``ensure`` does for each of ``names``. Safe to repeat and to cancel.

        Args:
            names: The tenants.
            if_exists: What happens if a login or a database of that name exists and is not on record. ``"error"``: the
                name fails with NameTakenError, and nothing is changed. ``"adopt"``: the database and what is in it
                become the tenant's, with a new login. The login that was there goes on working, as the previous one,
                until ``revoke_previous`` ends it. Logins of others can no longer use the database.

        Returns:
            The run. Its outcomes are CREATED, KEPT (it was on record), ADOPTED, or FAILED with an error of
            ``ensure``.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or ``if_exists`` is neither.
        """
        return self._run(names, ProvisionTenants(self._context, if_exists))

    def check(self, names: GivenNames | None = None) -> Run[TenantCheckOutcome]:
        """Check whether tenants work: compare their records with the server.

        It only reads and logs in.

        Args:
            names: The tenants. None: all on record, except names whose process died before it began anything; and the
                tenants whose database is on a server and is not on record here.

        Returns:
            The run. Its outcomes are CHECKED, with the ``problems`` (empty if all is well), or FAILED: the tenant could
            not be checked.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable.
        """
        job = CheckTenants(self._context)
        return self._run(job.every_name() if names is None else names, job)

    def repair(self, names: GivenNames | None = None) -> Run[TenantRepairOutcome]:
        """Repair what ``check`` finds, in place. Safe to repeat after an error and to cancel.

        It creates a missing login, replaces a refused password, gives rights again, and finishes what a dead process
        began. It drops nothing in the tenant's database, except that it finishes a removal.

        Args:
            names: The tenants. None: all on record.

        Returns:
            The run. Its outcomes are REPAIRED, with the ``problems`` that it fixed, KEPT (nothing was wrong), FAILED,
            or what it finished: DELETED, SUSPENDED or RESUMED.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable.
        """
        return self._run(names, RepairTenants(self._context))

    def rotate(
        self, names: GivenNames | None = None, older_than: timedelta | None = None, force: bool = False
    ) -> Run[TenantOutcome]:
        """Give each tenant a credential with its other login, and leave the one in use as it is.

        The new credential is tested by a login and stored before the outcome is yielded. The
        previous one works until ``revoke_previous``. Safe to repeat after an error and to cancel. Any number of
        processes may
        run the same at once with ``older_than``: each tenant is rotated once. Without it, a process that comes later to
        a name may find it rotated: its outcome is FAILED with RotationPendingError, or with ``force`` it rotates again.

        Args:
            names: The tenants. None: all on record.
            older_than: Leave tenants alone whose credential is younger, by the store's clock.
            force: Whether to rotate a tenant again that is not revoked yet, which revokes the previous credential.

        Returns:
            The run. Its outcomes are ROTATED, with the new credential, KEPT (it is younger, or another process rotated
            it meanwhile), or FAILED: with RotationPendingError if the previous credential is not revoked, with
            TenantNotFoundError if the tenant has no credential on record, or with an error of ``ensure``.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or ``older_than`` is not a timedelta of 0 or
                more.
        """
        return self._run(names, changes.RotateTenants(self._context, older_than, force=force))

    def revoke_previous(self, names: GivenNames | None = None, after: timedelta | None = None) -> Run[TenantOutcome]:
        """End the previous login of each tenant for good, with its sessions, and drop it.

        What it owns in the tenant's database stays the tenant's. If others keep it from being dropped, it stays, ended,
        and ``repair`` tries again.

        Safe to repeat after an error and to cancel.

        Args:
            names: The tenants. None: all on record.
            after: Leave tenants alone whose rotation is younger, by the store's clock.

        Returns:
            The run. Its outcomes are REVOKED, KEPT (there was no previous credential, or the rotation is younger)
            or FAILED.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or ``after`` is not a timedelta of 0 or more.
        """
        return self._run(names, changes.RevokePrevious(self._context, after))

    def suspend(self, names: GivenNames) -> Run[TenantOutcome]:
        """End all logins of each tenant and of its readers and writers, with their sessions, and keep the data.

        Until ``resume``, no login of the tenant enters: ``get`` returns None, ``ensure`` and ``TenantPools.use`` raise
        SuspendedError, and ``check``, ``repair``, ``rotate`` and ``revoke_previous`` leave the tenant as it is.
        Transactions
        that it prepared are rolled back, and rights of others on its database are revoked. Safe to repeat and to
        cancel.

        Args:
            names: The tenants.

        Returns:
            The run. Its outcomes are SUSPENDED, KEPT (it is suspended) or FAILED. The ``suspended`` of their credential
            says since when.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable.
        """
        return self._run(names, changes.SuspendTenants(self._context))

    def resume(self, names: GivenNames) -> Run[TenantOutcome]:
        """Give each suspended tenant, and its readers and writers, their logins back, with new passwords.

        It does not call ``setup``: run the migrations that the tenant missed with ``each(migrate, names)``. Safe to
        repeat and to cancel.

        Args:
            names: The tenants.

        Returns:
            The run. Its outcomes are RESUMED, with the new credential, KEPT (it is not suspended) or FAILED: with
            TenantNotFoundError if the tenant is not on record, with SuspendedError if these are readers or writers and
            the tenant itself is suspended, or with an error of ``ensure``.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable.
        """
        return self._run(names, changes.ResumeTenants(self._context))

    def remove(
        self, names: GivenNames | None = None, *, suspended_for: timedelta | None = None
    ) -> Run[TenantRemovalOutcome]:
        """Remove the logins of each tenant, its database with all that is in it, and last its record.

        Its readers and writers are removed first. Safe to repeat and to cancel. Once begun, ``get`` returns None for
        the tenant, and a removal that failed is finished by the next ``remove``, ``repair`` or ``provision`` of it.

        Args:
            names: The tenants. None, only with ``suspended_for``: all on record.
            suspended_for: Remove only tenants that are suspended for so long, by the store's clock.

        Returns:
            The run. Its outcomes are DELETED, ABSENT (nothing is on record, and nothing was sent), KEPT (it is not
            suspended for so long) or FAILED.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or is None without ``suspended_for``, which must be a
                timedelta of 0 or more.
        """
        if names is None and suspended_for is None:
            raise InvalidArgumentError("remove needs the names of the tenants, unless suspended_for is given")
        job = changes.RemoveTenants(self._context, suspended_for=suspended_for)
        return self._run(names, job)

    def move(
        self, names: GivenNames, to: ClusterClient | str | None = None, max_frozen: timedelta | None = None
    ) -> Run[TenantMoveOutcome]:
        """Move each tenant, with its readers and writers, to another cluster of these ``Tenants``.

        First everything is checked while the tenant works. Then no login may enter its database until the copy is
        complete: ``get`` returns None, and ``ensure`` and ``TenantPools.use`` raise SuspendedError. Every write that
        was acknowledged before is in the copy. Last, the database that is left behind is dropped.

        Needs ``pg_dump`` and ``pg_restore``, or ``mysqldump`` and ``mysql`` of MySQL, and room for a dump in the
        temporary folder. Safe to repeat and to cancel. If a process dies, ``repair`` opens the tenant again where it
        was, or finishes the move if the copy was complete.

        Args:
            names: The tenants.
            to: The cluster, or its id. None: ``choose_cluster`` chooses among the others, as for a new tenant.
            max_frozen: Leave a tenant where it is if no login could enter for longer: if its size says so, it is KEPT,
                and if the copy takes longer, it fails and is opened again.

        Returns:
            The run. Its outcomes are MOVED, with the new credential and for how long the tenant was ``frozen``, KEPT
            (it is on that cluster, or too large), or FAILED: with MoveError, RotationPendingError if its previous login
            was adopted and is not revoked, CapacityError, ConflictError if the other cluster has such a database or
            login, ConfigurationError if a program is missing, or with an error of ``ensure``.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, ``to`` is not one of the clusters, there is only one, or
                these are readers or writers; ``max_frozen`` is not a timedelta of more than 0.
        """
        return self._run(names, MoveTenants(self._context, to, max_frozen))

    def usage(self, names: GivenNames | None = None) -> AsyncIterator[Usage]:
        """Yield how much each tenant uses, with one query for each cluster. Safe to repeat and to cancel.

        Args:
            names: The tenants. None: all on record.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or a name is invalid.
            StoreError: The store cannot be read.
        """
        return usage_of(self._context, names)

    def each(
        self,
        work: Callable[[Credential], Awaitable[T]],
        names: GivenNames | None = None,
        concurrency: int = 16,
    ) -> Run[TenantResult[T] | Failed]:
        """Call ``work`` with the credential of each tenant, some at a time. It sends no request itself.

        ```python
        async for outcome in tenants.each(migrate):
            print(outcome.name, outcome.error or outcome.value)
        ```

        An exception of ``work`` fails that tenant, and the others go on. ``stop`` lets the calls in progress finish;
        cancelling the loop cancels them. Whether it is safe to repeat depends on ``work``.

        Args:
            work: An async function. Code that blocks needs ``asyncio.to_thread`` or a process of its own.
            names: The tenants. None: all on record.
            concurrency: How many calls of ``work`` at a time.

        Returns:
            The run. Its outcomes are DONE, with the ``value`` that ``work`` returned, or FAILED: with the exception of
            ``work``, or with TenantNotFoundError or SuspendedError if the tenant has no credential to use. Each has the
            ``cluster``.

        Raises:
            InvalidArgumentError: ``work`` is not callable, ``names`` is not an iterable, or ``concurrency`` is not
                an int of at least 1.
        """
        if not callable(work):
            raise InvalidArgumentError(f"work must be an async function, not {work!r}")
        check_whole("concurrency", concurrency)
        return self._run(names, EachTenant(self._context, work), concurrency)

    async def _one(self, job: TenantJob[DoneT], name: str) -> DoneT:
        """Do a job on one name. All such calls share their turns, and somebody waits: ``max_wait`` applies."""
        job.context.sites.turns = self._context.sites.turns
        job.context.sites.pause = None
        return await job.do(job.spec_of(name), RequestStats())

    def _run(
        self, names: GivenNames | None, job: TenantJob[DoneT], concurrency: int | None = None
    ) -> Run[DoneT | Failed]:
        """Make a run. Over a collection of one name, somebody waits for it: ``max_wait`` applies, as to ``ensure``."""
        if isinstance(names, Collection) and not isinstance(names, str) and len(names) == 1:
            job.context.sites.pause = None
        return Run(self._context.names() if names is None else names, job, concurrency)


async def credential_to_use(tenants: Tenants, name: str) -> Credential:
    """As ``Tenants.get``. Raises TenantNotFoundError or SuspendedError if there is none to use."""
    context = tenants._context  # pyright: ignore[reportPrivateUsage]
    return (await context.record(check_tenant(name))).required()
