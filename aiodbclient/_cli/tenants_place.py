"""Where the commands ``aiodbclient tenants`` work, and on which tenants."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import frozen

from ..engines import Engine, guard_tenants
from ..errors import InvalidArgumentError
from ..tenants import Role, Tenants
from .names import check_tenants, read_names
from .opening import AnyBudget, cluster_by_id, find_cluster, is_id, open_client
from .stores import IfMissing, open_store


@frozen
class Place:
    """The tenants of a cluster, and the budget of the requests.

    Attributes:
        tenants: The tenants, with the role that the options name.
        budget: The budget.
        engine: The engine of the cluster; None if the token may not read it.
        where: The cluster and the store.
    """

    tenants: Tenants
    budget: AnyBudget
    engine: Engine | str | None
    where: Where

    def check(self, names: Mapping[str, str]) -> None:
        """Check that all names can be tenants' names. Raises as ``check_tenants``."""
        if self.engine is not None:
            check_tenants(names, self.engine, self.where.prefix)

    async def names(self) -> list[str]:
        """The tenants in the store."""
        return [record.name async for record in self.tenants.records()]

    async def count(self) -> int:
        """The number of tenants in the store."""
        return len(await self.names())


@frozen(kw_only=True)
class Where:
    """What the options say of the place.

    Attributes:
        cluster: The cluster's id or name.
        store: The store, as ``--store`` has it.
        budget: The URL of a shared budget, or None.
        role: The role of the logins.
        prefix: As for ``Tenants``.
        private: As for ``Tenants``.
        admin: As for ``Tenants``.
    """

    cluster: str
    store: str
    budget: str | None = None
    role: Role = Role.OWNER
    prefix: str = ""
    private: bool = False
    admin: str | None = None


@asynccontextmanager
async def open_place(where: Where, if_missing: IfMissing = IfMissing.FAIL) -> AsyncGenerator[Place]:
    """Find the cluster, then open the store, so that a cluster which can have no tenants leaves no new store behind.

    Args:
        where: The cluster and the store.
        if_missing: What happens if the store does not exist.

    Raises:
        StoreError: The store cannot be used.
        UnsupportedOperationError: The cluster can have no tenants.
    """
    async with open_client(where.budget) as (client, budget):
        cluster = await find_cluster(client, where.cluster)
        if cluster.engine is not None:
            guard_tenants(cluster.engine)
        async with open_store(where.store, if_missing) as store:
            tenants = Tenants(cluster, store, prefix=where.prefix, private=where.private, admin=where.admin)
            yield Place(tenants.role(where.role), budget, cluster.engine, where)


@asynccontextmanager
async def open_records(where: Where) -> AsyncGenerator[Tenants]:
    """Open the store to read it. Sends nothing and needs no token if the cluster is given by its id.

    Raises:
        StoreError: The store does not exist.
        UnsupportedOperationError: The cluster can have no tenants.
    """
    async with open_client(where.budget, offline=is_id(where.cluster)) as (client, _):
        cluster = cluster_by_id(client, where.cluster) or await find_cluster(client, where.cluster)
        if cluster.engine is not None:
            guard_tenants(cluster.engine)
        async with open_store(where.store) as store:
            yield Tenants(cluster, store, prefix=where.prefix).role(where.role)


def chosen(names: list[str] | None, file: Path | None, everybody: bool) -> list[str] | None:
    """The names that a command is for; None for all tenants in the store.

    Raises:
        InvalidArgumentError: As ``read_names``; or there are names and ``--all``, or neither.
    """
    if not (everybody or names or file):
        raise InvalidArgumentError("which tenants? Give their names, a file (--from names.csv), or --all")
    if not everybody:
        return read_names(names, file)
    if names or file:
        raise InvalidArgumentError("give names, --from or --all, only one of them. Nothing was sent")
    return None
