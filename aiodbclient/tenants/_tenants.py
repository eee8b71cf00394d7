"""``Tenants``: the class for users. Each verb makes a job and passes it to a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Literal, overload

from attrs import evolve

from .._bulk.run import Run
from .._checks import check_whole
from ..clusters import ClusterClient
from ..errors import InvalidArgumentError
from ._capacity import ChooseCluster, ClusterCapacity, Placement
from ._context import Context, Setup, TenantServers
from ._naming import ROLES, Role
from ._outcomes import TenantEvent, TenantMoveOutcome, TenantOutcome, TenantRepairOutcome
from ._role import GivenNames, TenantRole, check_chosen
from ._servers import Login
from ._stores import Store
from ._usage import Usage, capacity_of, usage_of
from ._verbs.changes import ResumeTenants, SuspendTenants
from ._verbs.move import MoveTenants
from ._verbs.repair import RepairTenants


class Tenants(TenantRole):
    """The tenants of one or more clusters: each has a database, and a login with all rights in it alone.

    It stores a tenant's name before it sends anything for it, and its credential before it returns it. Every method is
    safe to cancel, and each but ``rotate`` is safe to repeat: if a process dies or is cancelled, the next call for the
    same name continues. Any number of processes may work with the same store at once.

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
            ``max_tenants`` is not a positive number, ``admin`` is not such a pair or names another cluster, or
            ``setup``, ``on_event`` or ``choose_cluster`` is not callable.
    """

    __slots__ = ()

    def __init__(
        self,
        cluster: ClusterClient | Sequence[ClusterClient],
        store: Store,
        *,
        prefix: str = "",
        private: bool = False,
        admin: Login | Mapping[str, Login] | None = None,
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
        servers = TenantServers(cluster, private=private, admin=admin, connection_limit=connection_limit)
        context = Context(
            servers=servers,
            placement=Placement(store, [*servers.clients], max_tenants, choose_cluster),
            store=store,
            prefix=prefix,
            setup=setup,
            on_event=on_event,
        )
        super().__init__(context)

    def role(self, role: Role | str) -> TenantRole:
        """Return the readers or writers of these tenants, on the same store.

        A tenant must be on record before it can have a reader or a writer, and ``remove`` of the tenant removes them.

        Args:
            role: ``"reader"`` or ``"writer"``.

        Raises:
            InvalidArgumentError: There is no such role.
        """
        if role not in ROLES:
            raise InvalidArgumentError(f"role must be one of {', '.join(ROLES)}, not {role!r}")
        return TenantRole(evolve(self._context, role=Role(role)))

    async def capacity(self) -> list[ClusterCapacity]:
        """Return how many tenants each cluster has, in their order, and the size of their databases.

        It sends one query to each cluster.

        Raises:
            StoreError: The store cannot be read.
        """
        return await capacity_of(self._context)

    @overload
    def repair(self, names: GivenNames) -> Run[TenantRepairOutcome]: ...

    @overload
    def repair(self, names: None = None, *, all: Literal[True]) -> Run[TenantRepairOutcome]: ...

    def repair(self, names: GivenNames | None = None, *, all: bool = False) -> Run[TenantRepairOutcome]:
        """Repair what ``check`` finds, in place.

        It makes a missing login again, replaces one whose password was changed by a new one, gives rights again, for
        readers and writers too, and finishes what a dead process began. It drops nothing in the tenant's database,
        except that it finishes a removal.

        Args:
            names: The tenants.
            all: Whether to repair all on record, instead of ``names``.

        Returns:
            The run. Its outcomes are REPAIRED, with the ``problems`` that it fixed, KEPT (nothing was wrong), FAILED,
            or what it finished: DELETED, SUSPENDED or RESUMED.

        Raises:
            InvalidArgumentError: Neither ``names`` nor ``all`` is given, or both.
        """
        check_chosen("repair", names, all=all)
        return self._run(names, RepairTenants(self._context))

    def suspend(self, names: GivenNames) -> Run[TenantOutcome]:
        """End all logins of each tenant and of its readers and writers, with their sessions, and keep the data.

        Until ``resume``, no login of the tenant enters: ``get`` returns None, ``ensure`` and ``TenantPools.use`` raise
        SuspendedError, and ``check``, ``repair``, ``rotate`` and ``revoke_previous`` leave the tenant as it is.
        Rights of others on its database are revoked.

        Args:
            names: The tenants.

        Returns:
            The run. Its outcomes are SUSPENDED, KEPT (it is suspended) or FAILED. The ``suspended`` of their credential
            says since when.
        """
        return self._run(names, SuspendTenants(self._context))

    def resume(self, names: GivenNames) -> Run[TenantOutcome]:
        """Give each suspended tenant, and its readers and writers, a new login.

        It does not call ``setup``: run the migrations that the tenant missed with ``each(migrate, names)``.

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
        to: ClusterClient | str | None = None,
        *,
        max_frozen: timedelta = timedelta(minutes=10),
    ) -> Run[TenantMoveOutcome]:
        """Move each tenant, with its readers and writers, to another cluster of these ``Tenants``.

        First everything is checked while the tenant works. Then no login may enter its database until the copy is
        complete: ``get`` returns None, and ``ensure`` and ``TenantPools.use`` raise TenantMovingError. Every write
        that was acknowledged before is in the copy. Last, the database that is left behind is dropped.

        Needs ``pg_dump`` and ``pg_restore``, or ``mysqldump`` and ``mysql`` of MySQL, and room for a dump in the
        temporary folder. If a process dies, ``repair`` opens the tenant again where it was, or finishes the move if the
        copy was complete.

        Args:
            names: The tenants.
            to: The cluster, or its id. None: ``choose_cluster`` chooses among the others, as for a new tenant.
            max_frozen: Leave a tenant where it is if no login could enter for longer: if its size says so, it is KEPT,
                and if the copy takes longer, it fails and is opened again.

        Returns:
            The run. Its outcomes are MOVED, with the new credential and for how long the tenant was ``frozen``, KEPT
            (it is on that cluster, or too large), or FAILED: with MoveError, RotationPendingError if its previous login
            was adopted and is not revoked, CapacityError, ConflictError if the other cluster has such a database or
            login, or ConfigurationError if a program is missing.

        Raises:
            InvalidArgumentError: ``to`` is not one of the clusters, or there is only one; ``max_frozen`` is not a
                timedelta of more than 0.
        """
        return self._run(names, MoveTenants(self._context, to, max_frozen))

    def usage(self, names: GivenNames | None = None) -> AsyncIterator[Usage]:
        """Yield how much each tenant uses, with one query for each cluster.

        Args:
            names: The tenants. None: all on record.

        Raises:
            InvalidArgumentError: A name is invalid.
            StoreError: The store cannot be read.
        """
        return usage_of(self._context, names)
