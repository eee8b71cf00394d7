"""The tries of a call that failed: which are sent again, after how long, and the error of all of them. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, TypeVar

import backoff
from attrs import frozen

from .._backoff import expo
from .._masking import Secrets, Token
from .._pacing.limiter import Slot
from ..errors import APIError, DatabaseClientError, ServerError
from .call import Call, RetryPolicy

ErrorT = TypeVar("ErrorT", bound=DatabaseClientError)

_MAX_NAME = 300  # characters of the name of a call in an error
_MAX_RETRY_AFTER = 60.0  # seconds, if its answer names a wait


class Failure(Enum):
    """The kinds of failure that the retry rules distinguish."""

    NOT_SENT = auto()  # the client could not connect: sent again
    THROTTLED = auto()  # a 429: sent again
    LOST = auto()  # the connection broke or timed out after sending, or one of ``LOST_STATUSES``: only if idempotent
    FINAL = auto()  # anything else: another error, no slot in time, a closed client, an unreadable body


# 408: a gateway gave up, as with 504. 520 to 524: Cloudflare, in front of the API, got no valid answer (godo #142).
LOST_STATUSES = frozenset({408, 500, 502, 503, 504, *range(520, 525)})


class Waited(NamedTuple):
    """For how many seconds a request waited."""

    for_slot: float  # of the rate limit
    for_writes: float  # of other writes on the cluster


@frozen(eq=False)
class FailedTry:
    """One try of a call that failed."""

    failure: Failure
    error: DatabaseClientError  # of this try alone
    may_have_applied: bool = False  # whether the server may have done the work
    timed_out: bool = False  # whether the server may still be at work
    was_tried: bool = True  # otherwise it ended before a request
    waited: float = 0.0  # seconds, for its slot and for other writes
    slot: Slot | None = None  # which the next try keeps, with its place in the queue
    token: Token | None = None  # that it sent


def was_lost(tries: Sequence[FailedTry]) -> bool:
    """Whether the answer to one of the tries was lost."""
    return any(each.failure is Failure.LOST for each in tries)


def answer_was_lost(error: DatabaseClientError) -> bool:
    """Whether the answer to a write was lost or unreadable, so that only a read shows if the write was applied."""
    return error.may_have_applied and (not isinstance(error, ServerError) or error.status in LOST_STATUSES)


def why_not_retried(call: Call, failure: Failure, counted: int) -> str | None:
    """Return the reason not to send another try after so many ``counted`` ones; None if there is none."""
    stats, most = call.options.stats, call.options.retry.max_tries
    if failure is Failure.FINAL:
        return "another try would not help"
    if failure is Failure.LOST and not call.operation.idempotent:  # nothing would show which of two creates counts
        return "it may have been applied"
    if most in (1, counted):
        return f"max_tries is {most}"
    return "its run was stopped" if stats is not None and stats.gives_up else None


def retry_waits(policy: RetryPolicy) -> Iterator[float]:
    """Yield the seconds to wait after each failed try."""
    return map(backoff.full_jitter, expo(factor=policy.base_delay, max_value=policy.max_delay))


def next_wait(waits: Iterator[float], asked: float | None) -> float:
    """Return the next of ``waits``, or the wait that the answer ``asked`` for if that is longer."""
    return max(next(waits), min(asked or 0.0, _MAX_RETRY_AFTER))


def error_of(call: Call, tries: Sequence[FailedTry], secrets: Secrets) -> DatabaseClientError:
    """Return the error of a call whose last try failed for good, which describes the whole call."""
    last = tries[-1].error
    changes: dict[str, Any] = {"tries": sum(each.was_tried for each in tries)}
    text = f"{secrets.line(call.what, _MAX_NAME)}: {last}"
    request_ids = [each.error.request_id for each in tries if isinstance(each.error, APIError)]
    if request_id := next(filter(None, reversed(request_ids)), None):
        text = f"{text} (request id {request_id})"
        if isinstance(last, APIError):
            changes["request_id"] = request_id
    if isinstance(last, APIError) and last.status == 404 and call.not_found:
        text = f"{text}; {call.not_found}"
    if call.operation.writes and any(each.may_have_applied for each in tries):
        text = f"{text}; it may have been applied"
        changes |= {"may_have_applied": True, "advice": _ADVICE.get(call.operation.name, "")}
    elif all(each.failure is Failure.NOT_SENT or not each.was_tried for each in tries):
        text = f"{text}; it was not sent"
    return with_message(last, text, **changes)


def with_message(error: ErrorT, message: str, **changes: Any) -> ErrorT:
    """Return a copy of ``error`` with another message, and with other values of its attributes."""
    copied = copy.copy(error)
    copied.args = (message,)
    vars(copied).update(changes)
    return copied


_ADVICE = {
    "users.create": "read the name back; if it is there without a password that you know, reset_auth it, else create "
    "it again",
    "users.reset_auth": "the old password may be revoked, so reset_auth it again",
    "dbs.create": "read the name back, and create it again if it is not there",
}
