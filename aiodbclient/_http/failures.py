"""Make the error of a failed request, and store in its call how it failed. Maps aiohttp's exceptions."""

from __future__ import annotations

from .._json.masking import Secrets
from ..errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    DatabaseClientError,
    InvalidResponseError,
    RateLimitError,
    RequestTimeoutError,
)
from .aiohttp_compat import BROKEN, NOT_SENT, text_of
from .call import Call
from .operations import Kind
from .response import Response
from .retry import LOST_STATUSES, Failure


class BodyError(Exception):
    """The body is invalid. The message continues a sentence that starts with "the answer"."""


# The exceptions that sending a request and reading its answer can raise, except a cancellation.
FAILURES = (*BROKEN, OSError, TimeoutError, BodyError, MemoryError, ValueError)

# The API or a gateway timed out. The server may still work on the request.
_TIMED_OUT_STATUSES = frozenset({504, 522, 524})
_NO_WAIT = 0.05  # seconds: the windows have room, and only calls in flight are in the way


def without_answer(call: Call, host: str | None, error: BaseException, secrets: Secrets) -> DatabaseClientError:
    """Make the error for a request to ``host`` without a complete answer, and store in ``call`` how it failed."""
    # aiohttp's exceptions can hold the request headers. So our error masks secrets and is not chained.
    if isinstance(error, NOT_SENT):
        call.failure = Failure.NOT_SENT
        call.sent -= 1
        call.refuse()
        nothing = "" if call.sent else ", nothing was sent"
        return ConnectError(f"{call.what}: no connection{nothing}: {secrets.line(text_of(error), 500)}")
    if isinstance(error, TimeoutError):
        call.failure = Failure.LOST
        call.lost = True
        call.timed_out = True
        return RequestTimeoutError(f"{call.what}: no whole answer within {call.options.timeout:g} s from {host}")
    if isinstance(error, (*BROKEN, OSError)):
        call.failure = Failure.LOST
        call.lost = True
        text = secrets.line(text_of(error), 500)
        return ConnectionLostError(f"{call.what}: the connection broke before the whole answer: {text}")
    if isinstance(error, BodyError):
        return InvalidResponseError(f"{call.what}: the answer ({call.status}) {error}", status=call.status)
    if isinstance(error, MemoryError):
        return InvalidResponseError(f"{call.what}: the answer does not fit into memory", status=call.status)
    call.may_have_applied |= call.operation.writes
    return ConfigurationError(
        f"{call.what}: aiohttp refused the request or the answer ({type(error).__name__}); a session of yours must not "
        "find credentials of its own, as trust_env=True does in a netrc file"
    )


def refused(call: Call, answer: Response) -> DatabaseClientError:
    """Make the error for an answer that is not a success, and store in ``call`` how it failed."""
    error = answer.error()
    call.request_id = answer.request_id
    if isinstance(error, RateLimitError):
        call.failure = Failure.THROTTLED
        error.retry_after = call.closed_for if error.retry_after is None else error.retry_after
    elif answer.status == 404 and call.operation.kind is Kind.CREATE and call.name is not None:
        error.args = (f"{error.args[0]}; a cluster that has just come online may not be ready yet",)
    elif answer.status in LOST_STATUSES:
        call.failure = Failure.LOST
        call.lost = True
        call.timed_out |= answer.status in _TIMED_OUT_STATUSES
    return error


def no_slot(call: Call, wait: float | None) -> RateLimitError:
    """Make the error for a call that would wait longer than ``max_wait``: for ``wait`` seconds, if known."""
    if wait is None:
        how_long = "within max_wait"
    elif wait < _NO_WAIT:
        how_long = "within max_wait: other calls have it until they are answered"
    else:
        how_long = f"for another {wait:.1f} s, longer than max_wait allows"
    request = f" (request id {call.request_id})" if call.request_id else ""
    text = f"{call.what}: the rate budget has no slot {how_long}{request}"
    return RateLimitError(text, retry_after=wait)
