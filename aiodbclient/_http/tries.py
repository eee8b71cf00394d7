"""The tries of a call that failed, and the error that describes all of them. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from attrs import field, frozen

from .._masking import Secrets, Token
from .._pacing.limiter import Slot
from ..errors import APIError, DatabaseClientError
from .call import Call
from .retry import RULES, Failure, RetryDecision

ErrorT = TypeVar("ErrorT", bound=DatabaseClientError)

_LONGEST_NAME = 300  # characters of the name of a call in an error


class Waited(NamedTuple):
    """For how many seconds a request waited."""

    for_slot: float  # of the rate limit
    for_turn: float  # of writes on the cluster


@frozen(eq=False)
class FailedTry:
    """One try of a call that failed."""

    failure: Failure
    error: DatabaseClientError  # of this try alone
    is_unclear: bool = False  # whether the server may have done the work
    timed_out: bool = False  # whether the server may still be at work
    was_tried: bool = True  # otherwise it ended before a request
    waited: float = 0.0  # seconds, for its slot and its turn
    slot: Slot | None = None  # which the next try keeps, with its place in the queue
    token: Token | None = None  # that it sent
    ended: float = field(factory=perf_counter)


def was_lost(tries: Sequence[FailedTry]) -> bool:
    """Whether the answer to one of the tries was lost."""
    return any(each.failure is Failure.LOST for each in tries)


def why_not_retried(call: Call, failure: Failure, counted: int) -> str | None:
    """Return the reason not to send another try after so many ``counted`` ones; None if there is none."""
    stats, most = call.options.stats, call.options.retry.max_tries
    if RULES[failure][call.operation.idempotency] is RetryDecision.RAISE:
        return "it may have been applied" if failure is Failure.LOST else "another try would not help"
    if most in (1, counted):
        return f"max_tries is {most}"
    return "its run was stopped" if stats is not None and stats.gives_up else None


def error_of(call: Call, tries: Sequence[FailedTry], secrets: Secrets) -> DatabaseClientError:
    """Return the error of a call whose last try failed for good, which describes the whole call."""
    last = tries[-1].error
    changes: dict[str, Any] = {"tries": sum(each.was_tried for each in tries)}
    text = f"{secrets.line(call.what, _LONGEST_NAME)}: {last}"
    request_ids = [each.error.request_id for each in tries if isinstance(each.error, APIError)]
    if request_id := next(filter(None, reversed(request_ids)), None):
        text = f"{text} (request id {request_id})"
        if isinstance(last, APIError):
            changes["request_id"] = request_id
    if isinstance(last, APIError) and last.status == 404 and call.not_found:
        text = f"{text}; {call.not_found}"
    if call.operation.writes and any(each.is_unclear for each in tries):
        text = f"{text}; it may have been applied"
        changes |= {"may_have_applied": True, "advice": _SETTLE.get(call.operation.name, "")}
    elif all(each.failure is Failure.NOT_SENT or not each.was_tried for each in tries):
        text = f"{text}; it was not sent"
    return with_message(last, text, **changes)


def with_message(error: ErrorT, message: str, **changes: Any) -> ErrorT:
    """Return a copy of ``error`` with another message, and with other values of its attributes."""
    copied = copy.copy(error)
    copied.args = (message,)
    vars(copied).update(changes)
    return copied


_SETTLE = {
    "users.create": "read the name back; if it is there without a password that you know, reset_auth it, else create "
    "it again",
    "users.reset_auth": "the old password may be revoked, so reset_auth it again",
    "dbs.create": "read the name back, and create it again if it is not there",
}
