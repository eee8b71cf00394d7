"""Tenants on one cluster: a database and a login that owns it and reaches nothing else, on record."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from math import inf

from .._bulk.run import Run
from .._request.call import Meter
from ..clusters import ClusterClient
from ..errors import InvalidArgumentError
from .credential import Credential
from .jobs import ProvisionTenants, RemoveTenants, RetireTenants, RotateTenants, Tenancy
from .naming import check_tenant
from .outcomes import TenantOutcome
from .plans import Plan, make_plan
from .stores import Store
from .work import IfExists

Names = Iterable[str] | AsyncIterable[str]


class Tenants:
    """The tenants of one cluster: each has a database and a login that owns it and reaches nothing else, on record.

    A name is in the store before anything is sent for it, and its credential before anybody is told. Whatever ends a
    process, whoever comes next goes on: every method is safe to repeat and to cancel, and any number of processes may
    work with the same store. Makes no connection and needs no event loop until the first call.

    Args:
        cluster: The cluster. Its options apply to ``ensure``; runs wait in the budget's bulk lane.
        store: Where the credentials are: a store for each cluster. It must have been opened.
        prefix: Begins the names of the databases and logins, not those of the tenants.
        private: Whether credentials, and the SQL that gives tenants their rights, use the private connection.
        admin: The DSN of an administrator of a PostgreSQL or MySQL cluster, which gives the tenants their rights. None:
            the cluster's primary user, for which the token needs the scope ``database:view_credentials``.
        lease: Seconds after which the claim of a process that has stopped is free, where nothing tells earlier that it
            has died. A working process renews it.

    Raises:
        InvalidArgumentError: An argument cannot be right.
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
        if not isinstance(prefix, str):
            raise InvalidArgumentError(f"prefix must be a string, not {prefix!r}")
        if not isinstance(lease, int | float) or not 0 < lease < inf:
            raise InvalidArgumentError(f"lease must be a positive number of seconds, not {lease!r}")
        self._tenancy = Tenancy(cluster, store, prefix=prefix, private=private, admin=admin, lease=lease)

    def __repr__(self) -> str:
        return f"<Tenants of {self._tenancy.cluster!r} in {self._tenancy.store!r}>"

    async def ensure(self, name: str) -> Credential:
        """The credential of the tenant ``name``, who is made if there is none.

        It is on record before it is returned. Who asks again, in whatever process, gets the same; two that ask at once
        make one login, and both get it. A login that was there before is adopted: see ``provision``.

        Raises:
            InvalidArgumentError: The name cannot be a tenant's; nothing was sent.
            UnsupportedOperationError: The engine can have no tenants, or is not known; nothing was made.
            GrantError: The database server refused a statement.
            StoreError: The store cannot be used; nothing was sent that could not be recorded.
            DatabaseClientError: The API's. Call it again: it goes on where this ended.
        """
        job = ProvisionTenants(self._tenancy, bulk=False)
        done = await job.do(job.check(name), Meter())
        assert done.credential is not None
        return done.credential

    async def get(self, name: str) -> Credential | None:
        """The credential on record, or None where there is none. Sends no request.

        None too while the tenant is being removed. Raises StoreError where the store cannot be read.
        """
        return self._tenancy.usable(await self._tenancy.store.get(check_tenant(name)))

    def provision(self, names: Names, if_exists: IfExists = "adopt") -> Run[TenantOutcome]:
        """``ensure`` each of ``names``. Outcomes are CREATED, KEPT (it was on record), ADOPTED, RESET or FAILED.

        Args:
            names: The tenants. May be long, lazy or async.
            if_exists: What becomes of a login that is there and on no record: ``"adopt"`` puts the password on record
                that the API tells, ``"reset"`` gives it a new one, ``"error"`` leaves it alone (ConflictError). It, and
                the database of the name, become the tenant's with the first two.
        """
        return Run(names, ProvisionTenants(self._tenancy, if_exists))

    def rotate(self, names: Names) -> Run[TenantOutcome]:
        """Let a second login of each tenant take over. Outcomes are ROTATED or FAILED.

        The new credential was tried and is on record before it is told. The one before still works, until ``retire`` or
        the next ``rotate``: rotate again only when every program has read the new one.
        """
        return Run(names, RotateTenants(self._tenancy))

    def retire(self, names: Names) -> Run[TenantOutcome]:
        """End the credential that ``rotate`` left: its login gets a password that nobody has.

        The login stays, since views and triggers of MySQL may name it; connections that are open stay too. Outcomes are
        RETIRED, KEPT where nothing was left to end, or FAILED.
        """
        return Run(names, RetireTenants(self._tenancy))

    def remove(self, names: Names) -> Run[TenantOutcome]:
        """Remove the logins and the database of each tenant, with all that is in it, and its record last.

        Outcomes are DELETED, ABSENT where nothing is on record (then nothing is sent), or FAILED.
        """
        return Run(names, RemoveTenants(self._tenancy))

    async def plan(self, names: Names, prune: bool = False) -> Plan:
        """Compare ``names`` with what is on record. Changes nothing, and sends reads alone.

        Args:
            names: The tenants that are to be there.
            prune: Whether ``plan.apply()`` removes those on record that are not among them.
        """
        return await make_plan(self._tenancy, names, prune=prune)
