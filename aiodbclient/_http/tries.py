"""The tries of a call that failed, and the error that describes all of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from .._masking import Secrets, Token
from .._pacing.slots import Slot
from ..errors import DatabaseClientError, MaxWaitError
from .call import Call
from .retry import Failure

_LONGEST_NAME = 300  # characters of the name of a call in an error


@frozen
class FailedTry:
    """One try of a call that failed."""

    failure: Failure
    error: type[DatabaseClientError]  # what the call raises if no other try follows
    text: str
    details: Mapping[str, Any] = MappingProxyType({})  # the attributes of the error
    is_unclear: bool = False  # whether the server may have done the work
    timed_out: bool = False  # whether the server may still be at work
    was_tried: bool = True  # otherwise it ended before a request
    waited: float = 0.0  # seconds
    slot: Slot | None = None  # which the next try keeps, with its place in the queue
    token: Token | None = None  # that it sent
    ended: float = field(factory=perf_counter)

    @property
    def status(self) -> object:
        """The status of the answer; 0 if there was none."""
        return self.details.get("status", 0)

    @property
    def retry_after(self) -> float | None:
        """The seconds until the next try that the API asked for, or None."""
        wait: float | None = self.details.get("retry_after")
        return wait


def failed_before_sending(error: DatabaseClientError) -> FailedTry:
    """Return the try that ``error`` ended before a request was sent."""
    details = {"retry_after": error.retry_after} if isinstance(error, MaxWaitError) else {}
    return FailedTry(Failure.REFUSED, type(error), str(error), details, was_tried=False)


def was_lost(tries: Sequence[FailedTry]) -> bool:
    """Whether the answer to one of the tries was lost."""
    return any(each.failure is Failure.LOST for each in tries)


def error_of(call: Call, tries: Sequence[FailedTry], secrets: Secrets) -> DatabaseClientError:
    """Make the error of a call whose last try failed for good. It describes the whole call."""
    last, details = tries[-1], dict(tries[-1].details)
    may_have_applied = call.operation.writes and any(each.is_unclear for each in tries)
    text, advice = f"{secrets.line(call.what, _LONGEST_NAME)}: {last.text}", ""
    request_id = next((id for each in reversed(tries) if (id := each.details.get("request_id"))), None)
    if "request_id" in details:
        details["request_id"] = request_id
    if request_id:
        text = f"{text} (request id {request_id})"
    if last.status == 404 and call.not_found:
        text = f"{text}; {call.not_found}"
    if may_have_applied:
        text = f"{text}; it may have been applied"
        advice = _SETTLE.get(call.operation.name, "")
    elif all(each.failure is Failure.NOT_SENT or not each.was_tried for each in tries):
        text = f"{text}; it was not sent"
    tried = sum(each.was_tried for each in tries)
    return last.error(text, may_have_applied=may_have_applied, tries=tried, advice=advice, **details)


_SETTLE = {
    "users.create": "read the name back; if it is there without a password that you know, reset_auth it, else create "
    "it again",
    "users.reset_auth": "the old password may be revoked, so reset_auth it again",
    "dbs.create": "read the name back, and create it again if it is not there",
}
