"""``Placement``: which cluster a new tenant goes to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import inf
from time import monotonic
from typing import TypeAlias

from attrs import define, field, frozen

from .._http.call import RequestStats
from ..clusters import Cluster
from ..errors import DatabaseClientError, InvalidArgumentError
from ._clusters import UNREACHABLE, TenantCluster, TenantClusters
from ._records import TenantRecord
from ._stores import Store, entries_of
from .errors import CapacityError

_FRESH = 30.0  # s for which the store is not read again to count the tenants


@frozen
class ClusterCapacity:
    """A cluster, and how many tenants it has.

    Attributes:
        cluster: The id of the cluster.
        tenants: How many tenants are on record for it, whatever their prefix.
        max_tenants: How many it may have; None if there is no limit.
        name: The name of the cluster; None until it was read.
        bytes: The size of the databases of its tenants. None if the cluster cannot be reached. ``choose_cluster``
            gets None.
    """

    cluster: str
    tenants: int
    max_tenants: int | None
    name: str | None = None
    bytes: int | None = None


ChooseCluster: TypeAlias = Callable[[str, Sequence[ClusterCapacity]], Awaitable[Cluster | str]]
_Names: TypeAlias = defaultdict[str, set[str]]  # of each cluster's tenants


@define(eq=False)
class Placement:
    """Chooses the cluster of each new tenant, by the tenants on record and those that this process is adding."""

    _store: Store
    _clusters: Sequence[str]
    _max_tenants: int | None
    _choose_cluster: ChooseCluster | None
    on_record: _Names = field(init=False, factory=lambda: defaultdict(set))
    _chosen: defaultdict[str, list[str]] = field(init=False, factory=lambda: defaultdict(list))  # names not stored yet
    _counted_at: float = field(init=False, default=-inf)
    _lock: asyncio.Lock = field(init=False, factory=asyncio.Lock)

    async def capacities(self) -> list[ClusterCapacity]:
        """Read the store, and return the capacities in the order of the clusters."""
        found: _Names = defaultdict(set)
        await self._read(found)
        return [ClusterCapacity(each, len(found[each]), self._max_tenants) for each in self._clusters]

    def start_run(self) -> None:
        """Make the next ``choose`` read the store."""
        self._counted_at = -inf

    @property
    def may_choose(self) -> bool:
        """Whether a new tenant may go to another cluster than the one that was chosen first."""
        return len(self._clusters) > 1 and self._choose_cluster is None

    async def choose(
        self, name: str, clusters: TenantClusters, stats: RequestStats, without: Collection[str] = ()
    ) -> TenantCluster:
        """Choose a cluster, none of ``without``, for the new tenant ``name``, which counts there until ``leave``."""
        unreachable = dict[str, DatabaseClientError]()
        while True:
            try:
                cluster = await self.pick(name, {*without, *unreachable})
            except CapacityError as full:
                raise next(iter(unreachable.values()), full) from None
            try:
                return await clusters.get(cluster, stats)
            except BaseException as error:
                self.leave(name, cluster)
                # A new tenant goes to a cluster that can be reached, unless the caller of ``Tenants`` chooses.
                if not isinstance(error, UNREACHABLE) or not self.may_choose:
                    raise
                unreachable[cluster] = error

    async def pick(self, name: str, without: Collection[str] = ()) -> str:
        """Choose a cluster that has capacity, whether it can be reached or not."""
        async with self._lock:
            cluster = await self._pick(name, without)
            self._chosen[cluster].append(name)
            return cluster

    def leave(self, name: str, cluster: str) -> None:
        """End a choice: the tenant is on record now, or was not made there."""
        self._chosen[cluster].remove(name)

    def note(self, name: str, before: TenantRecord | None, now: TenantRecord | None) -> None:
        """Count a tenant whose record was changed."""
        if before is not None:
            self.on_record[before.cluster].discard(name)
        if now is not None:
            self.on_record[now.cluster].add(name)

    async def _read(self, found: _Names) -> None:
        async for entry in entries_of(self._store):
            if isinstance(entry, TenantRecord):
                found[entry.cluster].add(entry.name)

    def _tenants(self, cluster: str) -> int:
        on_record = self.on_record[cluster]
        return len(on_record) + len(set(self._chosen[cluster]) - on_record)

    async def _pick(self, name: str, without: Collection[str]) -> str:
        if len(self._clusters) == 1 and self._max_tenants is None and self._choose_cluster is None:
            return self._clusters[0]
        if monotonic() - self._counted_at >= _FRESH:
            self.on_record = defaultdict(set)  # ``note`` adds what is stored while it is read
            await self._read(self.on_record)
            self._counted_at = monotonic()
        capacities = [
            ClusterCapacity(each, self._tenants(each), self._max_tenants)
            for each in self._clusters
            if each not in without
        ]
        free = [each for each in capacities if each.max_tenants is None or each.tenants < each.max_tenants]
        if not free:
            raise CapacityError(
                f"no cluster has capacity for the tenant {name!r}: each has its {self._max_tenants} tenants; "
                "nothing was sent, and nothing is on record",
                advice="give Tenants another cluster, or a larger max_tenants",
            )
        if self._choose_cluster is None or (without and len(capacities) == 1):
            return min(free, key=lambda each: each.tenants).cluster
        chosen = await self._choose_cluster(name, capacities)
        cluster = chosen.id if isinstance(chosen, Cluster) else chosen
        if cluster not in self._clusters:
            raise InvalidArgumentError(
                f"choose_cluster must return one of the clusters of these tenants, or its id, not {cluster!r}; nothing "
                "was sent"
            )
        if cluster not in [each.cluster for each in free]:
            raise CapacityError(
                f"the cluster {cluster} that choose_cluster returned for the tenant {name!r} is full: it has its "
                f"{self._max_tenants} tenants; nothing was sent, and nothing is on record"
            )
        return cluster
