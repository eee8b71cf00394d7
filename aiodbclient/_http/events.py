"""The events that a client reports for metrics and the log, one for each request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter

from attrs import asdict, frozen

from ..errors import DatabaseClientError
from .call import Call
from .response import Response

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
        waited: Seconds that it waited for the rate budget.
        duration: Seconds from sending it to the end of the answer.
        blocked: Seconds that it waited for other user writes on the cluster. MongoDB supports only one at a time.
        request_id: The id that the provider's support asks for, or None.
        tenant: The tenant that ``aiodbclient.tenants`` sent the request for. None for all other requests.
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
    tenant: str | None = None


def report(
    call: Call,
    answer: Response | None,
    failure: DatabaseClientError | None,
    asked: float,
    granted: float,
    started: float,
    on_event: Callable[[RequestEvent], object] | None,
) -> None:
    """Report the last request of ``call`` to the log, and to the caller's hook if there is one."""
    event = RequestEvent(
        operation=call.operation.name,
        method=call.operation.method,
        status=None if answer is None else answer.status,
        error=None if failure is None else type(failure).__name__,
        attempt=call.requests,
        waited=granted - asked,
        duration=perf_counter() - started,
        blocked=started - granted,
        request_id=None if answer is None else answer.request_id,
        tenant=call.options.tenant,
    )
    logger.debug(
        "%s %s: %s in %.3f s, try %d",
        event.method,
        call.path,
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
