"""A call on its way, and what its caller chose for it. Pure."""

from __future__ import annotations

import json
from asyncio import Lock
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from attrs import Attribute, field, frozen

from ..errors import APIError, DatabaseClientError, InvalidArgumentError, InvalidResponseError, ServerError
from .operations import Operation
from .retry import RULES, Failure, RetryPolicy, Then


class Meter:
    """Counts requests, and the seconds that their calls took, with all waits for the budget and between retries."""

    __slots__ = ("requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.seconds = 0.0


def _checked_timeout(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, int | float) or not 0 < value < inf:
        raise InvalidArgumentError(f"{attribute.name} must be a positive number of seconds, not {value!r}")


def _checked_max_wait(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and (not isinstance(value, int | float) or not 0 <= value < inf):
        raise InvalidArgumentError(
            f"{attribute.name} must be seconds of 0 or more, or None for as long as it takes, not {value!r}"
        )


def _checked_retry(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, RetryPolicy):
        raise InvalidArgumentError(f"{attribute.name} must be a RetryPolicy, not {value!r}")


# The client sets these: another value would break the request, replace the token, or send it to another host.
_OWN_HEADERS = frozenset({"authorization", "content-type", "content-length", "transfer-encoding", "host", "connection"})


def _checked_headers(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"{attribute.name} must be a mapping of strings to strings")
    for name, text in value.items():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise InvalidArgumentError(f"{attribute.name} must be a mapping of strings to strings")
        if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise InvalidArgumentError(f"{attribute.name}: {name!r} cannot be the name of a header")
        if name.lower() in _OWN_HEADERS:
            raise InvalidArgumentError(f"{attribute.name}: {name} is set by the client itself")
        if not text.isascii() or not text.isprintable():  # the text may be a secret, and is not quoted
            raise InvalidArgumentError(f"{attribute.name}: the value of {name} must be printable ASCII")


def _own_copy(value: Any) -> Any:
    """A copy of a mapping, so that a change by the caller does not change what was checked."""
    return dict(value) if isinstance(value, Mapping) else value


@frozen(kw_only=True, eq=False, repr=False)
class Options:
    """What a caller chose for its calls.

    Args:
        max_wait: Seconds that a call may wait for the rate budget; None for as long as it takes.
        timeout: Seconds that one try may take, connecting included.
        retry: How often and how patiently to try again.
        headers: More headers for each request. They may hold secrets.
        bulk: Whether to wait in the budget's bulk lane.
        before_sending: Called right before each request, when it no longer waits for anything. If it raises, the
            request is not sent, and the call raises the same.
        tenant: The tenant that the call is for, or None.

    Raises:
        InvalidArgumentError: A value is invalid; the message names the argument.
    """

    max_wait: float | None = field(default=None, validator=_checked_max_wait)
    timeout: float = field(default=30.0, validator=_checked_timeout)
    retry: RetryPolicy = field(factory=RetryPolicy, validator=_checked_retry)
    headers: Mapping[str, str] = field(factory=dict[str, str], converter=_own_copy, validator=_checked_headers)
    bulk: bool = False
    before_sending: Callable[[], object] | None = None
    tenant: str | None = None


class Call:
    """One call: what is asked, and what has become of it so far.

    Args:
        operation: What is asked.
        path: Where, percent-encoded, with its query.
        options: What the caller chose.
        meter: Counts its requests, if anything does.
        cluster_id: The cluster that is asked about, or None.
        name: The user or db that is asked about, or None.
        exact_name: Whether a name that differs from ``name`` in case alone is another name.
        body: What to send as JSON, or that JSON encoded already, or None.
        write_lock: Held while a request is in flight, where the cluster bears one user write at a time.

    Attributes:
        requests: Requests so far.
        sent: Those of them that may have reached the server.
        lost: Those of them whose answer was lost.
        timed_out: Whether one of these took too long, so that the server may still be at it.
        status: The status of the last answer, or 0 if it has not come.
        failure: How the last try failed.
        may_have_applied: Whether one of the tries may have taken effect although it failed.
        request_id: The last answer's, or None.
        closed_for: For how many seconds the last 429 closed the gate, or None.
        patience: Seconds that are left of ``max_wait``, or None for as long as it takes.

    Raises:
        InvalidArgumentError: ``body`` holds what JSON cannot say.
    """

    requests = 0
    sent = 0
    lost = 0
    timed_out = False
    status = 0
    failure = Failure.REFUSED
    may_have_applied = False
    request_id: str | None = None
    closed_for: float | None = None

    def __init__(
        self,
        operation: Operation,
        path: str,
        options: Options,
        meter: Meter | None = None,
        *,
        cluster_id: str | None = None,
        name: str | None = None,
        exact_name: bool = False,
        body: Mapping[str, Any] | bytes | None = None,
        write_lock: Lock | None = None,
    ) -> None:
        self.operation = operation
        self.path = path
        self.options = options
        self.meter = meter
        self.cluster_id = cluster_id
        self.name = name
        self.exact_name = exact_name
        self.body = body if body is None or isinstance(body, bytes) else _encoded(operation, body)
        self.write_lock = write_lock
        self.patience = options.max_wait

    def begin(self, waited: float) -> None:
        """A request is sent now, after ``waited`` seconds for its slot."""
        self.requests += 1
        self.sent += 1
        if self.meter is not None:
            self.meter.requests += 1
        if self.patience is not None:
            self.patience = max(self.patience - waited, 0.0)

    @property
    def what(self) -> str:
        """How errors name the call."""
        return f"{self.operation.name} ({self.operation.method} {self.path})"

    @property
    def then(self) -> Then:
        """What follows the failure of the last try."""
        return RULES[self.failure][self.operation.kind]

    @property
    def gone_is_done(self) -> bool:
        """Whether a 404 after a lost answer says that an earlier try did it."""
        return RULES[Failure.LOST][self.operation.kind] is Then.RETRY_GONE_IS_DONE

    def complete(self, error: DatabaseClientError) -> None:
        """Make ``error`` speak of the whole call: how many requests were made, and whether it may have been applied.

        Every error of a request goes through here.
        """
        is_unclear = self.failure is Failure.LOST or isinstance(error, ServerError | InvalidResponseError)
        self.may_have_applied |= is_unclear and self.operation.writes
        error.may_have_applied = self.may_have_applied
        error.tries = self.requests
        if isinstance(error, APIError) and error.request_id is None:
            error.request_id = self.request_id
        text = str(error.args[0])
        if self.may_have_applied:
            text = f"{text}; {_SETTLE.get(self.operation.name, _APPLIED)}"
        elif not self.sent and _NOTHING_SENT not in text:
            text = f"{text}; {_NOTHING_SENT}"
        error.args = (text,)


_NOTHING_SENT = "nothing was sent"
_APPLIED = "it may have been applied"
_SETTLE = {
    "users.create": f"{_APPLIED}: read the name back; if it is there without a password that you know, reset_auth it, "
    "else create it again",
    "users.reset_auth": f"{_APPLIED}: the old password may have ended, so reset_auth it again",
    "dbs.create": f"{_APPLIED}: read the name back, and create it again if it is not there",
}


def _encoded(operation: Operation, body: Mapping[str, Any]) -> bytes:
    try:
        # Member by member: json encodes a string, as most are, five times as fast as an object that holds it. The names
        # are those of attributes, in which there is nothing to escape.
        members = [f'"{name}": {json.dumps(value)}' for name, value in body.items()]
        return f"{{{', '.join(members)}}}".encode()
    except (TypeError, ValueError) as error:
        problem = f"{operation.name}: the arguments hold what JSON cannot say: {error}; nothing was sent"
    raise InvalidArgumentError(problem)
