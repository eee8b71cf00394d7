"""``MaintenanceWait``: a run waits while a cluster refuses changes. The API did not apply such a write.

It answers 412, or 404 to a create on a cluster that has just come online (mcp-digitalocean #334).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic

from .._backoff import expo
from .._masking import Secrets
from ..errors import APIError, ClusterNotOnlineError, DatabaseClientError, NotFoundError, PreconditionFailedError
from ..models import ClusterInfo, ClusterStatus
from .call import Call
from .events import logger
from .response import Response
from .retry import FailedTry, Failure, error_of
from .transport import Transport

Read = Callable[[], Awaitable[ClusterInfo]]

_MIN_INTERVAL, _MAX_INTERVAL = 1.0, 30.0  # seconds between two reads of a cluster that is not online yet
_MAX_WAIT = 900.0  # seconds that a run waits, as ``wait_online``
_NEW_CLUSTER = 60.0  # seconds for which a cluster that is online may answer 404 to creates


def until_online() -> Iterator[float]:
    """Yield the seconds to wait before each further read of a cluster that is not online yet."""
    return expo(base=1.5, factor=_MIN_INTERVAL, max_value=_MAX_INTERVAL)


class _ClusterState:
    """What a run knows of one cluster."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # of the name that waits until the cluster accepts changes
        self.failure: str | None = None  # why the run does not wait any longer
        self.status: ClusterStatus | str | None = None  # that was read last
        self.first_404: float | None = None  # when it began to answer 404 to creates although it is online

    async def try_to_send(self, call: Call, failed: list[FailedTry], transport: Transport) -> Response | APIError:
        """Send ``call``, and return the error if the cluster refuses it only because it does not accept changes yet."""
        try:
            response = await transport.send(call, failed)
        except PreconditionFailedError as error:
            return error
        except NotFoundError as error:
            if call.operation.idempotent:  # not a create
                raise
            self.first_404 = self.first_404 or monotonic()
            if monotonic() - self.first_404 >= _NEW_CLUSTER:
                raise
            return error
        self.first_404 = None
        return response

    async def send_when_online(
        self, call: Call, failed: list[FailedTry], transport: Transport, read: Read, refusal: APIError
    ) -> Response:
        """Under the caller's lock, send the refused ``call`` when the cluster is online, until it is not refused."""
        deadline = monotonic() + _MAX_WAIT
        logger.warning("the cluster %s refuses changes (%d): a run waits for it", call.cluster_id, refusal.status)
        for wait in until_online():
            try:
                self.status = (await read()).status
            except NotFoundError:
                raise refusal from None
            except DatabaseClientError:  # the write itself shows what is wrong
                self.status = None
            if self.status in (None, ClusterStatus.ONLINE):
                result = await self.try_to_send(call, failed, transport)
                if isinstance(result, Response):
                    return result
                refusal = result  # such as during the first backup of a new cluster
            else:
                self.first_404 = None
            left = deadline - monotonic()
            if left <= 0:
                break
            await transport.sleep(min(wait, left))
        self.failure = (
            f"the cluster {call.cluster_id} has refused changes for {_MAX_WAIT:g} s ({refusal.status}), and its status "
            f"is {self.status or 'not known'}: run it again when the cluster is online"
        )
        raise self.not_online(call, failed, transport.secrets)

    def not_online(self, call: Call, failed: Sequence[FailedTry], secrets: Secrets) -> DatabaseClientError:
        """Return the error of a call for which the run does not wait any longer."""
        error = ClusterNotOnlineError(self.failure or "", status=self.status)
        return error_of(call, (*failed, FailedTry(Failure.FINAL, error, was_tried=False)), secrets)


class MaintenanceWait:
    """How one run waits while its clusters refuse changes."""

    def __init__(self) -> None:
        self._clusters = defaultdict[str, _ClusterState](_ClusterState)

    async def send(self, call: Call, transport: Transport, read: Read) -> Response:
        """Send ``call``, and again after each refusal, when ``read`` shows that the cluster is online."""
        state = self._clusters[call.cluster_id or ""]
        failed: list[FailedTry] = []
        while True:
            if state.lock.locked():
                async with state.lock:  # whose holder was refused first, and waits until the cluster is online
                    pass
            if state.failure is not None:
                raise state.not_online(call, failed, transport.secrets)
            result = await state.try_to_send(call, failed, transport)
            if isinstance(result, Response):
                return result
            if call.options.stats is not None and call.options.stats.gives_up:
                raise result
            if not state.lock.locked():
                async with state.lock:
                    return await state.send_when_online(call, failed, transport, read, result)
