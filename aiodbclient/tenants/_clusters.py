"""``JobClusters``: the clusters of one job. One that is away fails its own tenants, and no others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from copy import copy
from time import monotonic

from .._bulk.job import OUTAGE, UNANSWERED
from .._request.call import Meter
from .._request.pause import Pause
from ..clusters import ClusterClient, for_work
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
from ._site import Site, SiteReader
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
        sites: What reads each cluster.
        bulk: Whether the job is on many names: then its requests wait in the bulk lane.
        listings: The users and databases of each cluster, listed once for this job.
    """

    def __init__(self, sites: Mapping[str, SiteReader], pause: Pause, *, bulk: bool = True) -> None:
        self.sites = sites
        self.bulk = bulk
        self.listings = defaultdict[str, Listing](Listing)
        self._pause = pause
        self._away: dict[str, tuple[DatabaseClientError, float]] = {}
        self._unanswered = defaultdict[str, set[str]](set)  # tenants in a row, by cluster

    @property
    def are_many(self) -> bool:
        """Whether one may be away while others are not."""
        return len(self.sites) > 1

    def calls(
        self,
        cluster: str,
        meter: Meter,
        tenant: str | None = None,
        before_sending: Callable[[], object] | None = None,
    ) -> ClusterClient:
        """The cluster, in the lane of this job. ``meter`` counts the requests."""
        pause = self._pause if self.bulk else None
        return for_work(self.sites[cluster].cluster, meter, pause, tenant, before_sending)

    async def any_site(self) -> Site:
        """The facts about the first cluster that can be reached. Raises the first error if none can."""
        failures = list[DatabaseClientError]()
        for cluster in self.sites:
            try:
                return await self.site(cluster, Meter())
            except AWAY as error:
                failures.append(error)
        raise failures[0]

    async def site(self, cluster: str, meter: Meter) -> Site:
        """The facts about the cluster. For some seconds after a failure it raises the same error, and sends nothing."""
        reader = self.sites[cluster]
        async with reader.turn:
            self.check_away(cluster)
            try:
                site = await reader.read(self.calls(cluster, meter))
            except AWAY as error:
                self._away[cluster] = error, monotonic()
                raise
        check_engines(self.sites)
        return site

    async def locate(
        self, tenancy: Tenancy, name: str, record: Record | None, timer: Timer, *, places: bool = False
    ) -> tuple[Site, Seat | None]:
        """The site of the tenant's cluster. If it has none yet and the job ``places`` tenants, also its new seat there.

        A new tenant goes to a cluster that can be reached, unless the caller of ``Tenants`` chooses.
        """
        cluster = await tenancy.home(name, record, timer)
        if cluster is not None or not places:
            return await self.site(cluster or next(iter(self.sites)), timer.meter), None
        rooms, away = tenancy.rooms, dict[str, DatabaseClientError]()
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
    def watched(self, cluster: str, tenant: str) -> Generator[None]:
        """Notice if tenant after tenant of one of many clusters gets no answer. Then the cluster is away."""
        try:
            yield
        except UNANSWERED as error:
            self._unanswered[cluster].add(tenant)
            if self.are_many and len(self._unanswered[cluster]) >= OUTAGE:
                self._away[cluster] = error, monotonic()
            raise
        self._unanswered[cluster].clear()

    def check_away(self, cluster: str) -> None:
        """Raise what the cluster failed with, if that was a moment ago."""
        if cluster in self._away:
            error, since = self._away[cluster]
            if monotonic() - since < _AWAY_SECONDS:
                raise copy(error)  # each outcome has its own, since raising it adds to its traceback
            del self._away[cluster]
