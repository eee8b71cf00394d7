"""``Tenants``: what users call. It makes the jobs of ``jobs.py`` and hands them to runs."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from .._bulk.run import Run
from .._request.call import Meter
from ..clusters import ClusterClient
from ..errors import InvalidArgumentError
from .credential import Credential
from .jobs import ProvisionTenants, RemoveTenants, RetireTenants, RotateTenants, Tenancy
from .naming import check_tenant
from .outcomes import TenantOutcome, TenantRemovalOutcome
from .plans import Plan, make_plan
from .stores import Store
from .stores.sealing import check_lease
from .work import IfLoginExists

GivenNames = Iterable[str] | AsyncIterable[str]


class Tenants:
    """The tenants of one cluster: each has a database and a login that owns it and reaches no other.

    A tenant's name is in the store before anything is sent for it, and its credential before the caller gets it. Every
    method is safe to repeat and to cancel: if a process dies or is cancelled, the next call for the same name goes on
    where it stopped. Any number of processes may work with the same store at once.

    Making a ``Tenants`` connects to nothing and needs no event loop.

    Args:
        cluster: The cluster. Its options apply to ``ensure``; the requests of runs wait in the bulk lane of the budget.
        store: Where the credentials are on record. It must be open. Each cluster, and each prefix, needs its own.
        prefix: What the names of the databases and logins begin with. The names of the tenants do not have it.
        private: Whether credentials, and the SQL that gives tenants their rights, use the private connection.
        admin: The DSN of an administrator of a PostgreSQL or MySQL cluster, which gives the tenants their rights. None:
            the cluster's primary user. Then the token needs the scope ``database:view_credentials``.
        lease: Seconds for which a claim on a name holds without being renewed. A process that works renews it; the name
            that a dead process worked on is free when its lease has run out, or earlier if the store knows it is dead.

    Raises:
        InvalidArgumentError: ``cluster`` is not from ``DatabaseClient.cluster``, ``store`` is no store, ``prefix`` is
            no string, or ``lease`` is no positive number.
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
    ) -> None:
        if not isinstance(cluster, ClusterClient):
            raise InvalidArgumentError(
                f"cluster must be what DatabaseClient.cluster gives, not {type(cluster).__name__}"
            )
        if not isinstance(store, Store):
            raise InvalidArgumentError(f"store must have the methods of a Store, and {type(store).__name__} has not")
        if not isinstance(prefix, str):
            raise InvalidArgumentError(f"prefix must be a string, not {prefix!r}")
        check_lease(lease)
        self._tenancy = Tenancy(cluster, store, prefix=prefix, private=private, admin=admin, lease=lease)

    def __repr__(self) -> str:
        return f"<Tenants of {self._tenancy.cluster!r} in {self._tenancy.store!r}>"

    async def ensure(self, name: str) -> Credential:
        """Return the credential of the tenant ``name``. If it has none on record, make its database and login first.

        The credential is on record before it is returned. A second call, in any process, returns the same one; two
        calls at once make one login, and both return it. A login of that name that is there and not on record is
        adopted, as by ``provision``. Safe to repeat and to cancel.

        Args:
            name: The tenant.

        Returns:
            The credential to use now.

        Raises:
            InvalidArgumentError: The name cannot be a tenant's, or the store is that of another cluster or prefix.
                Nothing was made.
            UnsupportedOperationError: The engine can have no tenants, or is not known. Nothing was made.
            ConfigurationError: The cluster is not online yet, or the token lacks a scope.
            GrantError: The database server refused a statement or the new login.
            StoreError: The store cannot be used. Nothing was sent that could not be put on record.
            DatabaseClientError: The API refused a request or did not answer.
        """
        job = ProvisionTenants(self._tenancy, bulk=False)
        done = await job.do(job.check(name), Meter())
        return done.credential

    async def get(self, name: str) -> Credential | None:
        """Return the credential on record. Sends no request; safe to repeat and to cancel.

        Args:
            name: The tenant.

        Returns:
            The credential to use now. None if none is on record, or if it is being replaced or removed.

        Raises:
            InvalidArgumentError: The name cannot be a tenant's, or the store is that of another cluster or prefix.
            UnsupportedOperationError: The credential on record is of an engine that can have no tenants.
            StoreError: The store cannot be read.
        """
        return self._tenancy.credential(await self._tenancy.store.get(check_tenant(name)))

    def provision(self, names: GivenNames, if_exists: IfLoginExists = "adopt") -> Run[TenantOutcome]:
        """Do what ``ensure`` does for each of ``names``. Safe to repeat and to cancel.

        Args:
            names: The tenants. May be long, lazy or async.
            if_exists: What becomes of a login that is there and not on record: ``"adopt"`` puts the password on record
                that the API tells, ``"reset"`` gives it a new password, ``"error"`` leaves it alone and fails the name
                with ConflictError. With the first two the login, and the database of the name, become the tenant's.

        Returns:
            The run. Its outcomes are CREATED, KEPT (it was on record), ADOPTED, RESET or FAILED, with an error that
            ``ensure`` tells of.

        Raises:
            InvalidArgumentError: ``names`` is no iterable, or ``if_exists`` is none of the three.
        """
        return Run(names, ProvisionTenants(self._tenancy, if_exists))

    def rotate(self, names: GivenNames) -> Run[TenantOutcome]:
        """Give each tenant a credential with its other login, and leave the one in use as it is.

        Before the outcome comes, the new credential has been tested by a login (PostgreSQL and MySQL) and is on record.
        The one before works until ``retire`` or the next ``rotate``, so rotate again only when every program has read
        the new one. Safe to repeat after an error and to cancel.

        Args:
            names: The tenants. May be long, lazy or async.

        Returns:
            The run. Its outcomes are ROTATED, with the new credential, or FAILED: with InvalidArgumentError if the
            tenant has no credential on record, else with an error that ``ensure`` tells of.

        Raises:
            InvalidArgumentError: ``names`` is no iterable.
        """
        return Run(names, RotateTenants(self._tenancy))

    def retire(self, names: GivenNames) -> Run[TenantOutcome]:
        """End the credential from before ``rotate``: its login gets a new password that nobody is told.

        The login is not deleted, since views and triggers of MySQL may name it. Its open connections stay open. Safe to
        repeat and to cancel.

        Args:
            names: The tenants. May be long, lazy or async.

        Returns:
            The run. Its outcomes are RETIRED, KEPT (there was no credential to end) or FAILED.

        Raises:
            InvalidArgumentError: ``names`` is no iterable.
        """
        return Run(names, RetireTenants(self._tenancy))

    def remove(self, names: GivenNames) -> Run[TenantRemovalOutcome]:
        """Remove the logins of each tenant, its database with all that is in it, and last its record.

        Safe to repeat and to cancel. Once begun, ``get`` returns None for the tenant.

        Args:
            names: The tenants. May be long, lazy or async.

        Returns:
            The run. Its outcomes are DELETED, ABSENT (nothing is on record, and nothing was sent) or FAILED.

        Raises:
            InvalidArgumentError: ``names`` is no iterable.
        """
        return Run(names, RemoveTenants(self._tenancy))

    async def plan(self, names: GivenNames, prune: bool = False) -> Plan:
        """Compare ``names`` with what is on record. Changes nothing and sends reads only; safe to repeat and to cancel.

        Args:
            names: The tenants that are to be there.
            prune: Whether ``plan.apply()`` removes the tenants on record that are not among ``names``.

        Returns:
            What would change.

        Raises:
            InvalidArgumentError: ``names`` is no iterable, a name cannot be a tenant's, or the store is that of another
                cluster or prefix.
            UnsupportedOperationError: The engine can have no tenants, or is not known.
            ConfigurationError: The cluster is not online yet, or the token lacks a scope.
            GrantError: The administrator cannot log in to the database server.
            StoreError: The store cannot be read.
            DatabaseClientError: The cluster could not be read.
        """
        return await make_plan(self._tenancy, names, prune=prune)
