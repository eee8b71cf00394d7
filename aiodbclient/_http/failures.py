"""Map the exceptions of aiohttp to failed tries."""

from __future__ import annotations

from .._masking import Secrets
from ..errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    InvalidResponseError,
    RequestTimeoutError,
)
from .aiohttp_compat import BROKEN, NOT_SENT, text_of
from .call import Call
from .retry import Failure
from .tries import FailedTry


class BodyError(Exception):
    """The body of a response is invalid; the arguments are its status, and the end of a sentence on the answer."""


# The exceptions that sending a request and reading its answer can raise, except a cancellation.
FAILURES = (*BROKEN, OSError, TimeoutError, BodyError, ValueError)


def failed_without_answer(call: Call, host: str | None, error: BaseException, secrets: Secrets) -> FailedTry:
    """Return the try that ``error`` ended before the answer was complete."""
    # aiohttp's exceptions can hold the request headers. So our error masks secrets and is not chained.
    if isinstance(error, NOT_SENT):
        return FailedTry(Failure.NOT_SENT, ConnectError(f"no connection: {secrets.line(text_of(error), 500)}"))
    if isinstance(error, TimeoutError):
        late = RequestTimeoutError(f"no whole answer within {call.options.timeout:g} s from {host}")
        return FailedTry(Failure.LOST, late, is_unclear=True, timed_out=True)
    if isinstance(error, (*BROKEN, OSError)):
        text = f"the connection broke before the whole answer: {secrets.line(text_of(error), 500)}"
        return FailedTry(Failure.LOST, ConnectionLostError(text), is_unclear=True)
    if isinstance(error, BodyError):
        status, problem = error.args
        unreadable = InvalidResponseError(f"the answer ({status}) {problem}", status=status)
        return FailedTry(Failure.REFUSED, unreadable, is_unclear=True)
    if "AUTHORIZATION header" in str(error):  # aiohttp found this out before it sent anything
        text = (
            "the given aiohttp.ClientSession has credentials of its own, from a netrc file: make it without trust_env"
        )
        return FailedTry(Failure.REFUSED, ConfigurationError(text), was_tried=False)
    text = f"aiohttp refused the request or the answer ({type(error).__name__})"
    return FailedTry(Failure.REFUSED, ConfigurationError(text), is_unclear=True)
