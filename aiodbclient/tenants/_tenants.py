"""``Tenants``: the class for users. It creates a job for each verb and passes it to a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from .._bulk.run import Run
from .._request.call import Meter
from ..clusters import ClusterClient
from ..errors import InvalidArgumentError
from ._checking import CheckTenants
from ._credential import Credential
from ._events import Spent, TenantEvent
from ._naming import check_tenant
from ._outcomes import TenantCheckOutcome, TenantOutcome, TenantRemovalOutcome, TenantRepairOutcome
from ._plans import GivenNames, Plan, make_plan
from ._provisioning import IfExists, ProvisionTenants
from ._removal import RemoveTenants
from ._repairing import RepairTenants
from ._roles import Role
from ._rotation import RetireTenants, RotateTenants
from ._site import SiteReader
from ._stores import Record, Store
from ._stores.sealing import check_lease
from ._tenancy import Setup, Tenancy, usable


class Tenants:
    """The tenants of one cluster: each has a database and a login that owns it and reaches no other.

    It stores a tenant's name before it sends anything for it, and its credential before it returns it. Every method is
    safe to repeat and to cancel: if a process dies or is cancelled, the next call for the same name continues. Any
    number of processes may work with the same store at once.

    Making a ``Tenants`` connects to nothing and needs no event loop.

    Args:
        cluster: The cluster. Its options apply to ``ensure``; the requests of runs wait in the bulk lane of the budget.
        store: Holds the credentials. It must be open. Each cluster, and each prefix, needs its own.
        prefix: The beginning of the names of databases and logins. The names of the tenants do not have it.
        private: Whether credentials, and the SQL that gives tenants their rights, use the private connection.
        admin: The DSN of an administrator of a PostgreSQL or MySQL cluster, which gives the tenants their rights. None:
            the cluster's primary user. Then the token needs the scope ``database:view_credentials``.
        lease: Seconds for which a claim on a name holds unless it is renewed. A working process renews it. The name of
            a dead process is free when its lease ends, or earlier if the store knows that the process is dead.
        connection_limit: How many connections a tenant may have at a time. On PostgreSQL it is the limit of the
            database; None: half of the server's. The owner can lift it, until its rights are given again. On MySQL the
            tenant's logins have equal parts of it; None: a third of the server's.
        setup: An async function for migrations and extensions. It is called with the credential of a new tenant, before
            that is stored. If it raises, the tenant fails, and the next call runs it again. So it runs at least once.
        on_event: Called with a ``TenantEvent`` after the work on each tenant.

    Raises:
        InvalidArgumentError: ``cluster`` is not from ``DatabaseClient.cluster``, ``store`` is not a store, ``prefix``
            is not a string, ``lease`` or ``connection_limit`` is not a positive number, or ``setup`` or ``on_event`` is
            not callable.
    """

    __slots__ = ("_tenancy",)

    def __init__(
        self,
        cluster: ClusterClient,
        store: Store,
        prefix: str = "",
        private: bool = False,
        admin: str | None = None,
        lease: float = 60.0,
        connection_limit: int | None = None,
        setup: Setup | None = None,
        on_event: Callable[[TenantEvent], object] | None = None,
    ) -> None:
        if not isinstance(cluster, ClusterClient):
            raise InvalidArgumentError(
                f"cluster must be what DatabaseClient.cluster returns, not {type(cluster).__name__}"
            )
        if not isinstance(store, Store):
            raise InvalidArgumentError(f"store must have the methods of a Store, and {type(store).__name__} has not")
        if not isinstance(prefix, str):
            raise InvalidArgumentError(f"prefix must be a string, not {prefix!r}")
        for name, value in (("setup", setup), ("on_event", on_event)):
            if value is not None and not callable(value):
                raise InvalidArgumentError(f"{name} must be callable, not {value!r}")
        if connection_limit is not None and (type(connection_limit) is not int or connection_limit < 1):
            raise InvalidArgumentError(
                f"connection_limit must be an int of at least 1 or None, not {connection_limit!r}"
            )
        check_lease(lease)
        site = SiteReader(private=private, admin=admin, connection_limit=connection_limit)
        self._tenancy = Tenancy(
            cluster=cluster, store=store, prefix=prefix, lease=lease, site=site, setup=setup, on_event=on_event
        )

    def __repr__(self) -> str:
        tenancy = self._tenancy
        what = "Tenants" if tenancy.role is Role.OWNER else f"Tenants ({tenancy.role})"
        return f"<{what} of {tenancy.cluster!r} in {tenancy.store!r}>"

    def role(self, role: Role | str) -> Tenants:
        """Return the readers or writers of these tenants: a ``Tenants`` with the same methods, on the same store.

        A tenant must be on record before it can have a reader or a writer, and ``remove`` of the tenant removes them.

        Args:
            role: ``"reader"``, ``"writer"``, or ``"owner"`` for the tenants themselves.

        Raises:
            InvalidArgumentError: There is no such role.
        """
        if role not in list(Role):
            raise InvalidArgumentError(f'role must be "reader", "writer" or "owner", not {role!r}')
        other = object.__new__(Tenants)
        other._tenancy = self._tenancy.for_role(Role(role))
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
            InvalidArgumentError: The name is invalid, or the store belongs to another cluster or prefix. Nothing
                was created.
            ConflictError: The login or the database exists, and ``if_exists`` is ``"error"``. Nothing was changed.
            UnsupportedOperationError: The engine does not support tenants, or is unknown. Nothing was created.
            ConfigurationError: The cluster is not online yet, or the token lacks a scope.
            GrantError: The database server refused a statement or the new login.
            StoreError: The store cannot be used. No request was sent that is not on record.
            DatabaseClientError: The API refused a request or did not answer.
        """
        job = ProvisionTenants(self._tenancy, if_exists, bulk=False)
        return (await job.do(job.check(name), Meter())).credential

    async def get(self, name: str) -> Credential | None:
        """Return the credential on record. Sends no request; safe to repeat and to cancel.

        Args:
            name: The tenant.

        Returns:
            The credential to use now. None if none is on record, or if it is being replaced or removed.

        Raises:
            InvalidArgumentError: The name is invalid, or the store belongs to another cluster or prefix.
            UnsupportedOperationError: The credential on record is of an engine without tenants.
            StoreError: The store cannot be read.
        """
        return usable(await self._tenancy.record(check_tenant(name), Spent(Meter())))

    def records(self) -> AsyncIterator[Record]:
        """Yield the record of each tenant, in the order of their names. Sends no request.

        Raises:
            InvalidArgumentError: The store belongs to another cluster or prefix.
            StoreError: The store cannot be read.
        """
        return self._tenancy.records()

    def provision(self, names: GivenNames, if_exists: IfExists = "error") -> Run[TenantOutcome]:
        """Do what ``ensure`` does for each of ``names``. Safe to repeat and to cancel.

        Args:
            names: The tenants. May be long, lazy or async.
            if_exists: What happens if a login or a database of that name exists and is not on record. ``"error"``: the
                name fails with ConflictError, and nothing is changed. ``"adopt"``: both become the tenant's; the login
                keeps its password and all that it could do before, and other logins can no longer use the database.
                ``"reset"``: the same, and the login gets a new password.

        Returns:
            The run. Its outcomes are CREATED, KEPT (it was on record), ADOPTED, RESET, or FAILED with an error of
            ``ensure``.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or ``if_exists`` is none of the three.
        """
        return Run(names, ProvisionTenants(self._tenancy, if_exists))

    def check(self, names: GivenNames | None = None) -> Run[TenantCheckOutcome]:
        """Check whether tenants work: compare their records with the cluster.

        It only reads and logs in. The users and databases are listed once for the run.

        Args:
            names: The tenants. None: all on record.

        Returns:
            The run. Its outcomes are CHECKED, with the ``problems`` (empty if all is well), or FAILED: the tenant could
            not be checked.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable.
        """
        return Run(self._names(names), CheckTenants(self._tenancy))

    def repair(self, names: GivenNames | None = None, recreate: bool = False) -> Run[TenantRepairOutcome]:
        """Repair what ``check`` finds, in place. It never drops data. Safe to repeat after an error and to cancel.

        It creates a missing login, replaces a refused password, gives rights again, and finishes what a dead process
        began.

        Args:
            names: The tenants. None: all on record.
            recreate: Whether to create a missing database, empty. Otherwise such a tenant fails with NotFoundError.

        Returns:
            The run. Its outcomes are REPAIRED, with the ``problems`` that it fixed, KEPT (nothing was wrong) or FAILED.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable.
        """
        return Run(self._names(names), RepairTenants(self._tenancy, recreate=recreate))

    def rotate(
        self, names: GivenNames | None = None, older_than: timedelta | None = None, force: bool = False
    ) -> Run[TenantOutcome]:
        """Give each tenant a credential with its other login, and leave the one in use as it is.

        The new credential is tested by a login (PostgreSQL and MySQL) and stored before the outcome is yielded. The old
        one works until ``retire``. Safe to repeat after an error and to cancel. Any number of processes may run the
        same at once: each tenant is rotated once.

        Args:
            names: The tenants. May be long, lazy or async. None: all on record.
            older_than: Leave tenants alone whose credential is younger, by the store's clock.
            force: Whether to rotate a tenant again that is not retired yet, which ends the credential from before.

        Returns:
            The run. Its outcomes are ROTATED, with the new credential, KEPT (it is younger, or another process rotated
            it meanwhile), or FAILED: with RotationPendingError if the credential from before is not retired, with
            InvalidArgumentError if the tenant has no credential on record, or with an error of ``ensure``.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or ``older_than`` is not a timedelta of 0 or
                more.
        """
        return Run(self._names(names), RotateTenants(self._tenancy, older_than, force=force))

    def retire(
        self, names: GivenNames | None = None, after: timedelta | None = None, end_sessions: bool = True
    ) -> Run[TenantOutcome]:
        """End the credential from before ``rotate``: its password and its sessions.

        PostgreSQL: its login is deleted. MySQL: its login is locked. Otherwise its login gets a random password.

        Safe to repeat after an error and to cancel.

        Args:
            names: The tenants. May be long, lazy or async. None: all on record.
            after: Leave tenants alone whose rotation is younger, by the store's clock.
            end_sessions: Whether to end the open sessions of that login (PostgreSQL and MySQL). Otherwise they stay
                open and can set another password for the login.

        Returns:
            The run. Its outcomes are RETIRED, KEPT (there was no credential to end, or the rotation is younger) or
            FAILED.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, or ``after`` is not a timedelta of 0 or more.
        """
        return Run(self._names(names), RetireTenants(self._tenancy, after, end_sessions=end_sessions))

    def remove(self, names: GivenNames, keep_database: bool = False) -> Run[TenantRemovalOutcome]:
        """Remove the logins of each tenant, its database with all that is in it, and last its record.

        Its readers and writers are removed first. Safe to repeat and to cancel. Once begun, ``get`` returns None for
        the tenant.

        Args:
            names: The tenants. May be long, lazy or async.
            keep_database: Whether to keep the database. Then nobody but the administrator can connect to it.

        Returns:
            The run. Its outcomes are DELETED, ABSENT (nothing is on record, and nothing was sent) or FAILED.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable.
        """
        return Run(names, RemoveTenants(self._tenancy, keep_database=keep_database))

    async def plan(
        self, names: GivenNames, prune: bool = False, refresh: bool = False, if_exists: IfExists = "error"
    ) -> Plan:
        """Compare ``names`` with the store and the cluster. Only reads; safe to repeat and to cancel.

        Args:
            names: The tenants that should exist.
            prune: Whether ``plan.apply()`` removes the tenants on record that are not among ``names``.
            refresh: Whether to check the tenants on record, as ``check`` does.
            if_exists: What ``plan.apply()`` does with somebody else's login or database, as for ``provision``.

        Returns:
            What would change.

        Raises:
            InvalidArgumentError: ``names`` is not an iterable, a name is invalid, or the store belongs to another
                cluster or prefix.
            UnsupportedOperationError: The engine does not support tenants, or is unknown.
            ConfigurationError: The cluster is not online yet, or the token lacks a scope.
            GrantError: The administrator cannot log in to the database server.
            StoreError: The store cannot be read.
            DatabaseClientError: The cluster could not be read.
        """
        return await make_plan(self._tenancy, names, prune=prune, refresh=refresh, if_exists=if_exists)

    def _names(self, names: GivenNames | None) -> GivenNames:
        return self._tenancy.names() if names is None else names
