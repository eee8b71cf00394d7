"""Where the commands ``aiodbclient tenants`` work, and on which tenants."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen

from ..engines import guard_tenants
from ..errors import InvalidArgumentError
from ..tenants import Role, SQLiteStore, Store, Tenants
from .names import read_names
from .opening import AnyBudget, cluster_by_id, find_cluster, is_id, open_client
from .output import tell
from .stores import check_exists, is_missing, keys, make_store


@frozen
class Place:
    """The tenants of a cluster, and the budget of the requests.

    Attributes:
        tenants: The tenants, with the role that the options name.
        budget: The budget.
    """

    tenants: Tenants
    budget: AnyBudget

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
async def open_place(where: Where, *, makes: bool = False, plans: bool = False) -> AsyncGenerator[Place]:
    """Find the cluster, then open the store, so that a cluster which can have no tenants leaves no new store behind.

    Args:
        where: The cluster and the store.
        makes: Whether a store that does not exist is made.
        plans: Whether a store that does not exist counts as one with nothing in it. None is made.

    Raises:
        StoreError: The store does not exist, and neither ``makes`` nor ``plans`` is set.
        UnsupportedOperationError: The cluster can have no tenants.
    """
    with TemporaryDirectory() as folder:
        if plans and is_missing(where.store):
            tell(f"the store {where.store} does not exist yet: `tenants provision` makes it")
            store: Store = SQLiteStore(Path(folder) / "nothing.db")
        else:
            store = make_store(where.store, keys())
        async with open_client(where.budget) as (client, budget):
            cluster = await find_cluster(client, where.cluster)
            if cluster.engine is not None:
                guard_tenants(cluster.engine)
            if not makes and not plans:
                check_exists(where.store)
            async with store:
                tenants = Tenants(cluster, store, prefix=where.prefix, private=where.private, admin=where.admin)
                yield Place(tenants.role(where.role), budget)


@asynccontextmanager
async def open_records(where: Where) -> AsyncGenerator[Tenants]:
    """Open the store to read it. Sends nothing and needs no token if the cluster is given by its id.

    Raises:
        StoreError: The store does not exist.
        UnsupportedOperationError: The cluster can have no tenants.
    """
    store = make_store(where.store, keys())
    async with open_client(where.budget, offline=is_id(where.cluster)) as (client, _):
        cluster = cluster_by_id(client, where.cluster) or await find_cluster(client, where.cluster)
        if cluster.engine is not None:
            guard_tenants(cluster.engine)
        check_exists(where.store)
        async with store:
            yield Tenants(cluster, store, prefix=where.prefix).role(where.role)


def chosen(names: list[str] | None, file: Path | None, everybody: bool) -> list[str] | None:
    """The names that a command is for; None for all tenants in the store.

    Raises:
        InvalidArgumentError: As ``read_names``; or there are names and ``--all``.
    """
    if not everybody:
        return read_names(names, file)
    if names or file:
        raise InvalidArgumentError("give names, --from or --all, only one of them. Nothing was sent")
    return None
