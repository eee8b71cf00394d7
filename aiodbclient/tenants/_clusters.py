"""``JobClusters``: the clusters of one job. One that is away fails its own tenants, and no others."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import copy
from time import monotonic

from .._bulk.job import OUTAGE, UNANSWERED
from .._request.call import Meter
from .._request.pause import Pause
from ..clusters import ClusterClient, for_work
from ..engines import CAPABILITIES
from ..errors import (
    ConfigurationError,
    DatabaseClientError,
    GrantError,
    InvalidResponseError,
    NoRoomError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ServerError,
    TransportError,
)
from ._events import Timer
from ._listing import Listing
from ._rooms import Seat
from ._site import Site
from ._stores import Record
from ._tenancy import Tenancy, check_engines

AWAY = (
    ConfigurationError,
    GrantError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ServerError,
    TransportError,
)
_AWAY_SECONDS = 30.0  # for which nothing is sent to a cluster that is away


class JobClusters:
    """The clusters of one job, by id.

    Attributes:
        pause: The pause of the run; None for a single name, whose requests are not in the bulk lane.
        turns: How many tenants of each cluster to work on: all single calls together, or (``begin``) this run.
        listings: The users and databases of each cluster, listed once for this job.
    """

    def __init__(self, tenancy: Tenancy, pause: Pause | None) -> None:
        self.pause = pause
        self._tenancy = tenancy
        self.turns = {id: site.turns for id, site in tenancy.sites.items()}
        self.listings = defaultdict[str, Listing](Listing)
        self._reading = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._away: dict[str, tuple[DatabaseClientError, float]] = {}
        self._unanswered = Counter[str]()

    @property
    def are_many(self) -> bool:
        """Whether one may be away while others are not."""
        return len(self.turns) > 1

    def calls(
        self,
        cluster: str,
        meter: Meter,
        tenant: str | None = None,
        before_sending: Callable[[], object] | None = None,
    ) -> ClusterClient:
        """The cluster, in the lane of this job. ``meter`` counts the requests."""
        given = self._tenancy.sites[cluster].cluster
        return for_work(given, meter, self.pause, tenant, before_sending)

    async def begin(self) -> int:
        """Return how many tenants each cluster takes at a time. Raises as ``any_site``."""
        at_a_time = CAPABILITIES[(await self.any_site()).engine].concurrent_user_writes
        self.turns = {id: asyncio.Semaphore(at_a_time) for id in self.turns}
        return at_a_time

    async def any_site(self) -> Site:
        """The facts about the first cluster that can be reached. Raises the first error if none can."""
        failure: DatabaseClientError | None = None
        for cluster in self.turns:
            try:
                return await self.site(cluster, Meter())
            except AWAY as error:
                failure = failure or error
        assert failure is not None
        raise failure

    async def site(self, cluster: str, meter: Meter) -> Site:
        """The facts about the cluster. For some seconds after a failure it raises the same error, and sends nothing."""
        async with self._reading[cluster]:
            self.check_away(cluster)
            try:
                site = await self._tenancy.sites[cluster].read(self.calls(cluster, meter))
            except AWAY as error:
                self._away[cluster] = error, monotonic()
                raise
        check_engines(self._tenancy.sites)
        return site

    async def locate(self, name: str, record: Record | None, timer: Timer, *, places: bool) -> tuple[Site, Seat | None]:
        """The site of the tenant's cluster. If it has none yet and the job ``places`` tenants, also its new seat there.

        A new tenant goes to a cluster that can be reached, unless the caller of ``Tenants`` chooses.
        """
        cluster = await self._tenancy.home(name, record, timer)
        if cluster is None and not places:
            cluster = next(iter(self.turns))
        if cluster is not None:
            return await self.site(cluster, timer.meter), None
        away: dict[str, DatabaseClientError] = {}
        rooms = self._tenancy.rooms
        while True:
            try:
                seat = await rooms.take(name, away)
            except NoRoomError:
                if away:
                    raise next(iter(away.values())) from None
                raise
            try:
                return await self.site(seat.cluster, timer.meter), seat
            except BaseException as error:
                rooms.give_back(seat)
                if not isinstance(error, AWAY) or rooms.place is not None or not self.are_many:
                    raise
                away[seat.cluster] = error

    @contextmanager
    def watched(self, cluster: str) -> Generator[None]:
        """Notice if tenant after tenant of one of many clusters gets no answer. Then the cluster is away."""
        try:
            yield
        except UNANSWERED as error:
            self._unanswered[cluster] += 1
            if self.are_many and self._unanswered[cluster] >= OUTAGE:
                self._away[cluster] = error, monotonic()
            raise
        self._unanswered[cluster] = 0

    def check_away(self, cluster: str) -> None:
        """Raise what the cluster failed with, if that was a moment ago."""
        if cluster in self._away:
            error, since = self._away[cluster]
            if monotonic() - since < _AWAY_SECONDS:
                raise copy(error)  # each outcome has its own, since raising it adds to its traceback
            del self._away[cluster]
