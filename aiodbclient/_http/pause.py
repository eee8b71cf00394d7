"""``Pause``: a run waits while a cluster is not ready for writes. The API did not apply such a write.

It answers 412, or 404 to a create on a cluster that has just come online (mcp-digitalocean #334).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import TypeGuard

from .._backoff import expo
from .._pacing.budget import RateLimiter
from ..errors import APIError, ClusterNotOnlineError, DatabaseClientError, NotFoundError, PreconditionFailedError
from ..models import Cluster, ClusterStatus
from .call import Call
from .operations import Kind
from .response import Response

Send = Callable[[Call], Awaitable[Response]]
Read = Callable[[], Awaitable[Cluster]]

_SHORTEST, _LONGEST = 1.0, 30.0  # seconds between two reads of a cluster that is not online yet
_PATIENCE = 900.0  # seconds that a run waits unless the client has a max_wait: as ``wait_online``


def _is_not_ready(error: DatabaseClientError, call: Call) -> TypeGuard[APIError]:
    return isinstance(error, PreconditionFailedError) or (
        isinstance(error, NotFoundError) and call.operation.kind is Kind.CREATE
    )


def until_online() -> Iterator[float]:
    """Yield the seconds to wait before each further read of a cluster that is not online yet."""
    return expo(base=1.5, factor=_SHORTEST, max_value=_LONGEST)


class _Writes:
    """What a run knows of the writes on one cluster."""

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.turn = asyncio.Lock()  # of the one name that asks whether it accepts writes again
        self.since: float | None = None  # when it began to refuse writes; None while it accepts them
        self.status: ClusterStatus | str | None = None  # the last one that was read while it refused
        self.reason: str | None = None  # what the run waits for, once the status was read
        self.openings = 0  # how often it has accepted writes again
        self.failure: str | None = None  # why the run waits no longer

    def open(self) -> None:
        """Note that it accepts writes again."""
        self.since = self.reason = None
        self.openings += 1


class Pause:
    """The waits of one run for its clusters.

    The first name that is refused reads the cluster until it is online, then repeats its request. The others wait:
    those in flight after one refusal each, later ones before they send anything.
    """

    __slots__ = ("_clusters", "budget")

    def __init__(self) -> None:
        self.budget: RateLimiter | None = None  # of the run's calls, once they are made
        self._clusters: dict[str, _Writes] = {}

    @property
    def waiting(self) -> str | None:
        """What the run waits for, or None."""
        return next((cluster.reason for cluster in self._clusters.values() if cluster.reason is not None), None)

    async def send(self, call: Call, cluster_id: str, send: Send, read: Read) -> Response:
        """Send ``call`` with ``send``, and again after each refusal, when the cluster accepts writes.

        ``read`` reads the cluster.
        """
        cluster = self._clusters.setdefault(cluster_id, _Writes(cluster_id))
        while True:
            if cluster.turn.locked():
                with call.meter.wait():
                    async with cluster.turn:
                        pass
            if cluster.failure is not None:
                raise _not_online(cluster, call)
            openings = cluster.openings
            try:
                return await send(call)
            except APIError as error:
                if not _is_not_ready(error, call):
                    raise
                refusal = error
            call.refuse()
            with call.meter.wait():
                await cluster.turn.acquire()
            try:
                if cluster.openings == openings and cluster.failure is None:
                    return await _send_when_online(cluster, call, send, read, refusal)
            finally:
                cluster.turn.release()


async def _send_when_online(cluster: _Writes, call: Call, send: Send, read: Read, refusal: APIError) -> Response:
    """Send the refused ``call`` whenever the cluster is online, until it is not refused. The caller holds the turn."""
    if cluster.since is None:
        cluster.since = monotonic()
    patience = _PATIENCE if call.options.max_wait is None else call.options.max_wait
    for pause in until_online():
        try:
            cluster.status = (await read()).status
        except NotFoundError:
            raise refusal from None
        except DatabaseClientError:  # the write itself shows what is wrong
            cluster.status = None
        if cluster.status in (None, ClusterStatus.ONLINE):
            try:
                answer = await send(call)
            except DatabaseClientError as error:
                if not _is_not_ready(error, call):
                    cluster.open()
                    raise
                call.refuse()
                refusal = error  # such as during the first backup of a new cluster
                cluster.reason = "the cluster accepts no changes at the moment"
            else:
                cluster.open()
                return answer
        else:
            cluster.reason = f"the cluster is {cluster.status}"
        left = cluster.since + patience - monotonic()
        if left <= 0:
            break
        with call.meter.wait():
            await asyncio.sleep(min(pause, left))
    cluster.reason = None
    cluster.failure = (
        f"the cluster {cluster.cluster_id} has refused changes for {patience:g} s ({refusal.status}), and its status "
        f"is {cluster.status or 'not known'}: run it again when the cluster is online"
    )
    raise _not_online(cluster, call)


def _not_online(cluster: _Writes, call: Call) -> ClusterNotOnlineError:
    error = ClusterNotOnlineError(f"{call.what}: {cluster.failure}", status=cluster.status)
    call.complete(error)
    return error
