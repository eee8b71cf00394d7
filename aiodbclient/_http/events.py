"""The events that a client reports for metrics and the log, one for each request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from attrs import asdict, frozen

from .call import Call
from .response import Response
from .retry import FailedTry, Waited

logger = logging.getLogger("aiodbclient")


@frozen
class RequestEvent:
    """One request and its outcome. It holds no credential, and no name of a user or db but in ``label``.

    Attributes:
        operation: Like ``"users.create"``.
        method: The HTTP method.
        status: The HTTP status, or None without an answer.
        error: The name of the exception if there was no answer, else None.
        attempt: The number of the try within its call, from 1.
        waited: Seconds that it waited for the rate limit.
        duration: Seconds from sending it to the end of the answer.
        blocked: Seconds that it waited for other user writes on the cluster. MongoDB supports only one at a time.
        request_id: The id that the provider's support asks for, or None.
        label: The name of the tenant, if the request is one of ``Tenants``. Otherwise None.
    """

    operation: str
    method: str
    status: int | None
    error: str | None
    attempt: int
    waited: float
    duration: float
    blocked: float = 0.0
    request_id: str | None = None
    label: str | None = None


def report(
    call: Call,
    result: Response | FailedTry,
    attempt: int,
    waited: Waited,
    duration: float,
    path: str,
    on_event: Callable[[RequestEvent], object] | None,
) -> None:
    """Report a request to the log, and to the caller's hook if there is one, with a ``path`` that has no secret."""
    response = result if isinstance(result, Response) else None
    event = RequestEvent(
        operation=call.operation.name,
        method=call.operation.method,
        status=response.status if response else None,
        error=type(result.error).__name__ if isinstance(result, FailedTry) else None,
        attempt=attempt,
        waited=waited.for_slot,
        duration=duration,
        blocked=waited.for_writes,
        request_id=response.request_id if response else None,
        label=call.options.label,
    )
    logger.debug(
        "%s %s: %s in %.3f s, try %d",
        event.method,
        path,
        event.status or event.error,
        event.duration,
        event.attempt,
        extra=asdict(event),
    )
    if on_event is not None:
        try:
            on_event(event)
        except Exception:  # a faulty hook must not change the outcome of the call
            logger.exception("on_event raised")


def log_decision(call: Call, failed: Sequence[FailedTry], decision: str) -> None:
    """Log what follows the last of the failed tries."""
    logger.debug("%s, try %d failed: %s; %s", call.operation.name, len(failed), failed[-1].error, decision)
