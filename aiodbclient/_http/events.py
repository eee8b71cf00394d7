"""The events that a client reports for metrics and the log, one for each request."""

from __future__ import annotations

import logging
from collections.abc import Callable

from attrs import asdict, frozen

from .call import Call
from .response import Response
from .tries import FailedTry

logger = logging.getLogger("aiodbclient")


@frozen
class RequestEvent:
    """One request and its outcome. It holds no credential and no name of a user or db.

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
        label: What the request was for, if the library knows it. Otherwise None.
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
    path: str,
    result: Response | FailedTry,
    attempt: int,
    waited: float,
    blocked: float,
    duration: float,
    on_event: Callable[[RequestEvent], object] | None,
) -> None:
    """Report a request of ``call`` to the log, and to the caller's hook if there is one. ``path``: without a secret."""
    event = RequestEvent(
        operation=call.operation.name,
        method=call.operation.method,
        status=result.status if isinstance(result, Response) else None,
        error=None if isinstance(result, Response) else result.error.__name__,
        attempt=attempt,
        waited=waited,
        duration=duration,
        blocked=blocked,
        request_id=result.request_id if isinstance(result, Response) else None,
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
