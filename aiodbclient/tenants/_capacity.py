"""``Rooms``: how many tenants each cluster has, and which cluster gets the next one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import inf
from time import monotonic
from typing import Any, TypeAlias

from attrs import define, frozen

from ..clusters import ClusterClient
from ..errors import InvalidArgumentError
from ._naming import Role
from ._record import OnRecord, read_all
from ._stores import Store
from .errors import CapacityError

_FRESH = 30.0  # s for which the store is not read again


@frozen
class ClusterCapacity:
    """A cluster, and how many tenants it has.

    Attributes:
        cluster: The id of the cluster.
        tenants: How many tenants are on record for it, whatever their prefix.
        max_tenants: How many it may have; None if there is no limit.
        name: The name of the cluster; None until it was read.
        bytes: The size of the databases of its tenants; None unless ``capacity(usage=True)`` read it, or if the cluster
            cannot be reached.
    """

    cluster: str
    tenants: int
    max_tenants: int | None
    name: str | None = None
    bytes: int | None = None

    @property
    def free(self) -> int | None:
        """How many more tenants it may have, at least 0; None if there is no limit."""
        return None if self.max_tenants is None else max(0, self.max_tenants - self.tenants)


ChooseCluster: TypeAlias = Callable[[str, Sequence[ClusterCapacity]], Awaitable[ClusterClient | str]]


@define(eq=False)
class Seat:
    """A new tenant on its cluster, from before anything is made until it is on record."""

    name: str
    cluster: str
    holders: int = 0  # tasks of this process that make the same tenant
    on_record: bool = False


class Rooms:
    """Counts the tenants of each cluster: those in the store, and those that this process has added since."""

    def __init__(
        self,
        store: Store,
        clusters: Sequence[str],
        max_tenants: int | None,
        choose_cluster: ChooseCluster | None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.choose_cluster = choose_cluster
        self._store = store
        self._clusters = tuple(clusters)
        self._max_tenants = max_tenants
        self._clock = clock
        self._has_choice = len(clusters) > 1 or max_tenants is not None or choose_cluster is not None
        self._tenants = Counter[str | None]()  # by cluster; None: of those that have none yet
        self._seats: dict[str, Seat] = {}  # not counted when the store was read
        self._read_at = -inf
        self._choosing = asyncio.Lock()
        self._chooser: asyncio.Task[Any] | None = None  # waits for ``choose_cluster``

    def without_seats(self) -> Rooms:
        """The same rooms without the seats, for a plan."""
        return Rooms(self._store, self._clusters, self._max_tenants, self.choose_cluster, self._clock)

    async def read(self) -> list[ClusterCapacity]:
        """Read the store, and return the rooms in the order of the clusters."""
        if self._chooser is asyncio.current_task():  # ``choose_cluster`` asks, and was just told
            return self._rooms()
        async with self._choosing:
            await self._count()
            return self._rooms()

    def reread(self) -> None:
        """Make the next ``take`` read the store."""
        self._read_at = -inf

    async def take(self, name: str, without: Collection[str] = ()) -> Seat:
        """Choose a cluster for the new tenant ``name``. Return the seat with ``give_back``."""
        if not self._has_choice:
            return Seat(name, self._clusters[0], 1)
        async with self._choosing:
            seat = self._seats.get(name)
            if seat is not None and seat.cluster in without:
                if seat.on_record:  # it is moved from there
                    del self._seats[name]
                else:
                    self._drop(seat)
                seat = None
            if seat is None:
                if self._clock() - self._read_at >= _FRESH:
                    await self._count()
                seat = Seat(name, await self._choose(name, without))
                self._seats[name] = seat
                self._tenants[seat.cluster] += 1
            seat.holders += 1
            return seat

    def give_back(self, seat: Seat, *, on_record: bool = False) -> None:
        """Return a seat. The tenant is counted from now on if it is ``on_record``."""
        seat.holders -= 1
        seat.on_record |= on_record
        if not seat.holders and not seat.on_record and self._seats.get(seat.name) is seat:
            self._drop(seat)

    def removed(self, name: str, cluster: str) -> None:
        """Count a tenant of ``cluster`` less: it is not on record any more."""
        self._tenants[cluster] -= 1
        self._seats.pop(name, None)

    def _drop(self, seat: Seat) -> None:
        self._tenants[seat.cluster] -= 1
        del self._seats[seat.name]

    async def _count(self) -> None:
        """Count the records. No seat is taken meanwhile, and those that are taken are counted as such."""
        self._seats = {name: seat for name, seat in self._seats.items() if seat.holders}
        found = Counter[str | None]()
        async for entry in read_all(self._store):
            if isinstance(entry, OnRecord) and entry.role is Role.OWNER and entry.name not in self._seats:
                found[entry.cluster] += 1
        self._tenants = found + Counter(seat.cluster for seat in self._seats.values())
        self._read_at = self._clock()

    def _rooms(self) -> list[ClusterCapacity]:
        return [ClusterCapacity(each, self._tenants[each], self._max_tenants) for each in self._clusters]

    async def _choose(self, name: str, without: Collection[str]) -> str:
        rooms = [room for room in self._rooms() if room.cluster not in without]
        free = {room.cluster: room for room in rooms if room.free != 0}
        if not free:
            raise CapacityError(
                f"no cluster has capacity for the tenant {name!r}: each has its {self._max_tenants} tenants; nothing "
                "was sent, and nothing is on record",
                advice="give Tenants another cluster, or a larger max_tenants",
            )
        if self.choose_cluster is None or (without and len(rooms) == 1):
            return min(free.values(), key=lambda room: room.tenants).cluster
        self._chooser = asyncio.current_task()
        try:
            chosen = await self.choose_cluster(name, rooms)
        finally:
            self._chooser = None
        cluster = chosen.id if isinstance(chosen, ClusterClient) else chosen
        if cluster not in self._clusters:
            raise InvalidArgumentError(
                f"choose_cluster must return one of the clusters of these tenants, or its id, not {cluster!r}; "
                "nothing was sent"
            )
        if cluster not in free:
            raise CapacityError(
                f"the cluster {cluster} that choose_cluster returned for the tenant {name!r} is full: it has its "
                f"{self._max_tenants} tenants; nothing was sent, and nothing is on record"
            )
        return cluster
