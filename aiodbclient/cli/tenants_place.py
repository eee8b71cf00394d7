"""Where the commands ``aiodbclient tenants`` work: the cluster, the store, and the tenants that both make up."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen

from ..engines import guard_tenants
from ..tenants import SQLiteStore, Store, Tenants
from .opening import AnyBudget, cluster_by_id, find_cluster, is_id, open_client
from .output import tell
from .stores import check_exists, is_missing, keys, make_store


@frozen
class Place:
    """The tenants of a cluster, their open store, and the budget of the requests.

    Attributes:
        tenants: The tenants.
        store: The store.
        budget: The budget.
    """

    tenants: Tenants
    store: Store
    budget: AnyBudget


@frozen(kw_only=True)
class Where:
    """What the options say of the place.

    Attributes:
        cluster: The cluster's id or name.
        store: The store, as ``--store`` has it.
        budget: The URL of a shared budget, or None.
        prefix: As for ``Tenants``.
        private: As for ``Tenants``.
        admin: As for ``Tenants``.
    """

    cluster: str
    store: str
    budget: str | None = None
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
                yield Place(
                    Tenants(cluster, store, prefix=where.prefix, private=where.private, admin=where.admin),
                    store,
                    budget,
                )


@asynccontextmanager
async def open_records(where: Where) -> AsyncGenerator[Place]:
    """Open the store to read it. Sends nothing and needs no token if the cluster is given by its id.

    Raises:
        StoreError: The store does not exist.
        UnsupportedOperationError: The cluster can have no tenants.
    """
    store = make_store(where.store, keys())
    async with open_client(where.budget, offline=is_id(where.cluster)) as (client, budget):
        cluster = cluster_by_id(client, where.cluster) or await find_cluster(client, where.cluster)
        if cluster.engine is not None:
            guard_tenants(cluster.engine)
        check_exists(where.store)
        async with store:
            yield Place(Tenants(cluster, store, prefix=where.prefix), store, budget)
