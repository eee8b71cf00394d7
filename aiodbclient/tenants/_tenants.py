"""``Tenants``: the class for users. Each operation makes a job and passes it to a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TypeAlias

from attrs import evolve, frozen

from .._bulk.run import Run, check_iterable
from .._checks import check_hook, check_version, check_whole, is_async
from .._http.call import RequestStats
from .._http.maintenance import MaintenanceWait
from .._masking import hidden
from ..clusters import Cluster
from ..engines import Engine
from ..errors import DatabaseClientError, InvalidArgumentError
from ._clusters import TenantClusters
from ._context import Context, Setup
from ._move.job import MoveTenants
from ._naming import LIMITED_ROLES, Role, check_tenant, names_of
from ._operations.repair import RepairTenants
from ._operations.suspend import ResumeTenants, SuspendTenants
from ._options import DatabaseOptions
from ._outcomes import TenantEvent, TenantMoveOutcome, TenantOutcome, TenantRepairOutcome
from ._placement import ChooseCluster, ClusterCapacity, Placement
from ._records import TenantRecord, TenantState, no_database, unusable
from ._role import GivenNames, TenantRole, check_selected
from ._servers import AdminLogin
from ._stores import Store
from .errors import StoreError

_Sizes: TypeAlias = Mapping[str, tuple[int, int]]  # the bytes and the sessions of each database of a server


@frozen(kw_only=True)
class Usage:
    """How much of its cluster a tenant uses.

    Attributes:
        name: The tenant.
        cluster: The id of its cluster; None if it has none.
        bytes: The size of its database; None if it is unknown.
        connections: How many sessions are open in its database; on MySQL those of its logins. None if it is unknown.
        error: Why they are unknown, or None.
    """

    name: str
    cluster: str | None = None
    bytes: int | None = None
    connections: int | None = None
    error: DatabaseClientError | None = None


class Tenants(TenantRole):
    """The tenants of one or more clusters: each has a database, and a login with all rights in it alone.

    It stores a tenant's name before it sends anything for it, and its credential before it returns it. Every method is
    safe to cancel, and each is safe to repeat but ``rotate``, and ``move`` without ``to``: if a process dies or is
    cancelled, the next call for the same name continues. Any number of processes may work with the same store at once.

    A method that takes ``names`` takes any iterable, also an async one; for another argument it raises
    InvalidArgumentError. Most return a run: it works on several tenants at once, and yields an outcome for each. One
    that is FAILED has its ``error``, which is one of ``ensure`` unless the method says otherwise.

    Making a ``Tenants`` connects to nothing and needs no event loop. With several clusters each tenant is on one of
    them, which is on record before the first request that changes something. One that is unreachable fails its own
    tenants, and no others.

    Args:
        cluster: The cluster, or several of one engine: PostgreSQL or MySQL. It is read once, and again when a
            connection to its server fails. Everything else is done by SQL.
        store: Holds the credentials. It must be open. It may hold tenants of other clusters and prefixes. They are left
            alone, and their names are taken.
        prefix: The beginning of the names of databases and logins. The names of the tenants do not have it.
        private: Whether credentials, and the SQL of the administrator, use the private connection.
        admin: The user and the password of an administrator, who makes the tenants' databases and logins, or a mapping
            of cluster ids to such pairs. None, or no pair for a cluster: ``doadmin``. Then the token needs the scope
            ``database:view_credentials``.
        connection_limit: How many connections a login of a tenant may have at a time, to all databases together. The
            tenant cannot lift it. None: a tenth of the server's, at least 2.
        setup: An async function for migrations. It is called with the credential of a new tenant, before that is
            stored, and by the first ``ensure`` of a tenant that was made without one. If it raises, the tenant fails,
            and the next call runs it again. So it runs at least once.
        version: The version of what ``setup`` makes, such as the revision of your migrations. It is stored with that,
            so that ``each(work, version=...)`` skips the tenant. Needs ``setup``.
        on_event: A function, not async, that is called with a ``TenantEvent`` after the work on each tenant.
        max_tenants: How many tenants each cluster may have on record. None: no limit. The store is read when a run or
            the first ``ensure`` begins, and again after 30 s. Several processes may exceed ``max_tenants`` by what they
            create at once.
        choose_cluster: An async function that chooses the cluster of a new tenant. It is called with the name and the
            ``ClusterCapacity`` of each cluster, for one name at a time, and returns a cluster or its id. None: the
            cluster with the fewest tenants, of those that are not full and can be reached.
        template: PostgreSQL: a suspended tenant. A new tenant's database is a copy of its database. With several
            clusters, a mapping of cluster ids to tenants. ``setup`` runs afterwards.
        extensions: PostgreSQL: the extensions of each database, by name, or a mapping of names to schemas. Without a
            schema, an extension is made in its own, or in ``public``. The administrator makes them in a new database.
            ``repair`` makes a missing one as the tenant, if it is trusted. A tenant drops them with their schema.
        settings: PostgreSQL: settings of each database, such as ``{"statement_timeout": "30s"}``. They are defaults: a
            login can override each in its session.

    Raises:
        InvalidArgumentError: ``cluster`` is not from ``DatabaseClient.cluster``, or holds none, one twice, or clusters
            of several engines; ``store`` is not a store, no database's name can begin with ``prefix``,
            ``connection_limit`` or ``max_tenants`` is not a positive number, ``admin`` is not such a pair or names
            another cluster, ``choose_cluster`` is not callable, ``setup`` is not async, ``on_event`` is,
            ``version`` is not a printable string or is given without ``setup``, or ``template``, ``extensions`` or
            ``settings`` has a name or value that is invalid or that no tenant may have, or is given for MySQL.
    """

    def __init__(
        self,
        cluster: Cluster | Sequence[Cluster],
        store: Store,
        *,
        prefix: str = "",
        private: bool = False,
        admin: AdminLogin | Mapping[str, AdminLogin] | None = None,
        connection_limit: int | None = None,
        setup: Setup | None = None,
        version: str | None = None,
        on_event: Callable[[TenantEvent], object] | None = None,
        max_tenants: int | None = None,
        choose_cluster: ChooseCluster | None = None,
        template: str | Mapping[str, str] | None = None,
        extensions: Collection[str] | Mapping[str, str] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        admin = hidden(admin)
        # `isinstance` does not see methods that a store passes on to another by `__getattr__` (Python 3.12 and newer).
        if lacks := [name for name in dir(Store) if not name.startswith("_") and not hasattr(store, name)]:
            raise InvalidArgumentError(f"store is not a Store: {type(store).__name__} lacks {', '.join(lacks)}")
        _check_prefix(prefix)
        check_hook("on_event", on_event)
        if choose_cluster is not None and not callable(choose_cluster):
            raise InvalidArgumentError(f"choose_cluster must be callable, not {choose_cluster!r}")
        if setup is not None and not is_async(setup):
            raise InvalidArgumentError(f"setup must be an async function, and {setup!r} is not")
        check_version(version)
        if version is not None and setup is None:
            raise InvalidArgumentError("version is of what setup makes, and there is no setup")
        for name, number in (("connection_limit", connection_limit), ("max_tenants", max_tenants)):
            if number is not None:
                check_whole(name, number)
        clients = _checked_clusters(cluster)
        options = DatabaseOptions.checked(clients, template, extensions, settings)
        clusters = TenantClusters(clients, _checked_admins(admin, clients), private, connection_limit, options)
        clusters.check_engines({})
        context = Context(
            clusters=clusters,
            placement=Placement(store, [*clients], max_tenants, choose_cluster),
            store=store,
            prefix=prefix,
            setup=setup,
            version=version,
            on_event=on_event,
        )
        super().__init__(context)

    def role(self, role: Role | str) -> TenantRole:
        """Return the readers or writers of these tenants, on the same store.

        Args:
            role: ``"reader"`` or ``"writer"``.

        Raises:
            InvalidArgumentError: There is no such role.
        """
        if role not in LIMITED_ROLES:
            raise InvalidArgumentError(f"role must be one of {', '.join(LIMITED_ROLES)}, not {role!r}")
        return TenantRole(evolve(self._context, role=Role(role)))

    async def capacity(self) -> list[ClusterCapacity]:
        """Return how many tenants each cluster has, in their order, and the size of their databases.

        It sends one query to each cluster.

        Raises:
            StoreError: The store cannot be read.
        """
        capacities = await self._context.placement.capacities()
        sizes, _ = await _read_sizes(self._context, [each.cluster for each in capacities])
        totals = {cluster: sum(size for size, _ in its.values()) for cluster, its in sizes.items()}
        name = self._context.clusters.name
        return [evolve(each, name=name(each.cluster), bytes=totals.get(each.cluster)) for each in capacities]

    def repair(self, names: GivenNames | None = None, *, all: bool = False) -> Run[TenantRepairOutcome]:
        """Repair what ``check`` finds, in place.

        It makes a missing login again, replaces one whose password was changed by a new one, gives rights again, for
        readers and writers too, and finishes what a dead process began. It deletes data in two cases only:
        it finishes a removal, and it drops what a move or an interrupted creation left on another cluster.

        Args:
            names: The tenants.
            all: Whether to repair all on record, instead of ``names``.

        Returns:
            The run. Its outcomes are REPAIRED, with the ``problems`` that it fixed, KEPT (nothing was wrong), FAILED,
            or what it finished: DELETED, SUSPENDED or RESUMED.

        Raises:
            InvalidArgumentError: Neither ``names`` nor ``all`` is given, or both.
        """
        check_selected("repair", names, all=all)
        return self._run(names, RepairTenants(self._context))

    def suspend(self, names: GivenNames) -> Run[TenantOutcome]:
        """End all logins of each tenant and of its readers and writers, with their sessions, and keep the data.

        Until ``resume``, no login of the tenant enters: ``get`` returns None, ``ensure`` and ``TenantPools.use`` raise
        SuspendedError, and ``check``, ``repair``, ``rotate`` and ``revoke_previous`` leave the tenant as it is.
        Rights of others on its database are revoked.

        Args:
            names: The tenants.

        Returns:
            The run. Its outcomes are SUSPENDED, KEPT (it is suspended) or FAILED. The ``suspended`` of their record
            says since when.
        """
        return self._run(names, SuspendTenants(self._context))

    def resume(self, names: GivenNames) -> Run[TenantOutcome]:
        """Give each suspended tenant, and its readers and writers, a new login.

        It does not call ``setup``: run the migrations that the tenant missed with ``each``.

        Args:
            names: The tenants.

        Returns:
            The run. Its outcomes are RESUMED, with the new credential, KEPT (it is not suspended) or FAILED: with
            TenantNotFoundError if the tenant is not on record.
        """
        return self._run(names, ResumeTenants(self._context))

    def move(
        self,
        names: GivenNames,
        *,
        to: Cluster | str | None = None,
        max_frozen: timedelta = timedelta(minutes=10),
    ) -> Run[TenantMoveOutcome]:
        """Move each tenant, with its readers and writers, to another cluster of these ``Tenants``.

        First everything is checked while the tenant works. Then no login may enter its database until the copy is
        complete: ``get`` returns None, and ``ensure`` and ``TenantPools.use`` raise TenantMovingError. Every write
        that was acknowledged before is in the copy. Last, the leftover database is dropped.

        Needs PostgreSQL, ``pg_dump`` and ``pg_restore``, and room for a dump in the temporary folder. If a process
        dies, ``repair`` opens the tenant again where it was, or finishes the move if the copy was complete.

        Args:
            names: The tenants.
            to: The cluster, or its id. None: ``choose_cluster`` chooses among the others, as for a new tenant. A second
                call moves the tenant again, so pass ``to``, or the ``names`` that are still on the old cluster.
            max_frozen: Leave a tenant where it is if no login could enter for longer: if its size says so, it is KEPT,
                and if the copy takes longer, it fails and is opened again.

        Returns:
            The run. Its outcomes are MOVED, with the new credential and for how long the tenant was ``frozen``, KEPT
            (it is on that cluster, or too large), or FAILED: with MoveError, RotationPendingError if its previous login
            was adopted and is not revoked, CapacityError, ConflictError if the other cluster has such a database or
            login, ConfigurationError if a program is missing, or UnsupportedOperationError on MySQL.

        Raises:
            InvalidArgumentError: ``to`` is not one of the clusters, or there is only one; ``max_frozen`` is not a
                timedelta of more than 0.
        """
        return self._run(names, MoveTenants(self._context, to, max_frozen))

    async def usage(self, names: GivenNames | None = None) -> AsyncIterator[Usage]:
        """Yield how much each tenant uses, with one query for each cluster.

        Args:
            names: The tenants. None: all on record.

        Raises:
            InvalidArgumentError: A name is invalid.
            StoreError: The store cannot be read.
        """
        context = self._context
        if names is None:
            found = [
                Usage(name=each.damaged[0], error=each) if isinstance(each, StoreError) else each
                async for each in context.entries()
            ]
        else:
            check_iterable(names, "usage")
            given = [each async for each in names] if isinstance(names, AsyncIterable) else names
            found = [await _record_of(context, check_tenant(each)) for each in given]
        records = [each for each in found if isinstance(each, TenantRecord)]
        sizes, errors = await _read_sizes(context, {each.cluster for each in records})
        if any(each.cluster in sizes and each.database not in sizes[each.cluster] for each in records):
            # A database that is missing may be on another cluster.
            others, _ = await _read_sizes(context, context.clusters.clients.keys() - sizes.keys() - errors.keys())
            sizes |= others
        for each in found:
            yield each if isinstance(each, Usage) else _usage_of(each, sizes, errors.get(each.cluster))


async def _record_of(context: Context, name: str) -> TenantRecord | Usage:
    """Return a tenant's record, or why there is none."""
    try:
        return await context.record(name) or Usage(name=name, error=unusable(None, name, Role.OWNER))
    except DatabaseClientError as error:
        return Usage(name=name, error=error)


def _usage_of(record: TenantRecord, sizes: Mapping[str, _Sizes], error: DatabaseClientError | None) -> Usage:
    """What a tenant uses, or why that is unknown: its cluster's ``error``, its state, or that it has no database."""
    usage, database = Usage(name=record.name, cluster=record.cluster, error=error), record.database
    if error is not None:
        return usage
    if database in sizes[record.cluster]:
        size, sessions = sizes[record.cluster][database]
        return evolve(usage, bytes=size, connections=sessions)
    if record.state() in (TenantState.ABSENT, TenantState.PROVISIONING, TenantState.REMOVING):
        return evolve(usage, error=unusable(record, record.name, Role.OWNER))
    other = next((cluster for cluster, its in sizes.items() if database in its), None)
    return evolve(usage, error=no_database(record.name, database, other))


async def _read_sizes(
    context: Context, clusters: Iterable[str]
) -> tuple[dict[str, _Sizes], dict[str, DatabaseClientError]]:
    """Ask all servers at the same time how large their databases are, and return sizes and errors by cluster."""
    clusters_of_job = context.clusters.for_job(MaintenanceWait())
    sizes, errors = dict[str, _Sizes](), dict[str, DatabaseClientError]()

    async def read(cluster: str) -> None:
        try:
            sizes[cluster] = await (await clusters_of_job.get(cluster, RequestStats())).server.usage()
        except DatabaseClientError as error:
            errors[cluster] = error

    async with asyncio.TaskGroup() as tasks:
        for cluster in clusters:
            tasks.create_task(read(cluster))
    return sizes, errors


def _check_prefix(prefix: str) -> None:
    try:
        names_of("x", Engine.MYSQL, prefix)  # the engine may not be read yet, and MySQL allows the longer names
    except (InvalidArgumentError, TypeError):
        raise InvalidArgumentError(f"prefix is invalid: no database's name can begin with {prefix!r:.200}") from None


def _checked_clusters(given: Cluster | Sequence[Cluster]) -> dict[str, Cluster]:
    """Return the clusters by id, or raise InvalidArgumentError if there is none, or one twice."""
    clusters = [given] if isinstance(given, Cluster) else list(given) if isinstance(given, Iterable) else []
    if not clusters or not all(isinstance(each, Cluster) for each in clusters):
        raise InvalidArgumentError(
            f"cluster must be what DatabaseClient.cluster returns, or a list of those, not {given!r:.200}"
        )
    by_id = {each.id: each for each in clusters}
    if len(by_id) < len(clusters):
        raise InvalidArgumentError("cluster has the same cluster twice")
    return by_id


def _checked_admins(
    admin: AdminLogin | Mapping[str, AdminLogin] | None, clusters: Collection[str]
) -> dict[str, AdminLogin | None]:
    """Return the administrator of each cluster, or raise InvalidArgumentError, whose message has no password."""
    by_cluster = admin if isinstance(admin, Mapping) else dict.fromkeys(clusters, admin)
    if unknown := [id for id in by_cluster if id not in clusters]:
        raise InvalidArgumentError(f"admin has a login for {unknown[0]!r}, which is none of the clusters")
    for login in by_cluster.values():
        if login is not None and not (
            isinstance(login, tuple) and len(login) == 2 and all(isinstance(each, str) and each for each in login)
        ):
            raise InvalidArgumentError("admin must be a user and a password, or a mapping of cluster ids to such pairs")
    return {id: by_cluster.get(id) for id in clusters}
