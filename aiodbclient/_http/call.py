"""The state of one call, and the options of its caller. Pure."""

from __future__ import annotations

import json
from asyncio import Semaphore
from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

from .._checks import check_seconds
from ..engines import Engine
from ..errors import APIError, DatabaseClientError, InvalidArgumentError, InvalidResponseError, ServerError
from .operations import Operation
from .retry import RULES, Failure, RetryDecision, RetryPolicy


class RequestStats:
    """What was sent for one name of a run, or by one call."""

    def __init__(self) -> None:
        self.requests = 0
        self.writes = 0  # requests and claims that may have changed something: ``Run.stop`` lets the name finish
        self.seconds: float = 0.0  # from the first request of each call to the end of its last
        self.waited: float = 0.0  # seconds for the rate limit


# The client sets these: another value would break the request, replace the token, or send it to another host.
_OWN_HEADERS = frozenset({"authorization", "content-type", "content-length", "transfer-encoding", "host", "connection"})


class Options(NamedTuple):
    """The options of a call: those that its caller set, and those of the run or tenant that it is part of."""

    max_wait: float | None = None
    timeout: float = 30.0
    retry: RetryPolicy = RetryPolicy()
    headers: Mapping[str, str] = MappingProxyType({})
    meter: RequestStats | None = None
    bulk: bool = False  # whether the call is part of a run, so that it waits behind all others
    tenant: str | None = None

    def __repr__(self) -> str:
        return "<Options>"  # a header may be a secret


def checked(options: Options) -> Options:
    """Check what the caller set, and copy the headers, so that the caller cannot change them later."""
    max_wait, timeout, headers = options.max_wait, options.timeout, options.headers
    if max_wait is not None and (not isinstance(max_wait, int | float) or not 0 <= max_wait < inf):
        raise InvalidArgumentError(
            f"max_wait must be a number of seconds, at least 0, or None for no limit, not {max_wait!r}"
        )
    check_seconds("timeout", timeout)
    if not isinstance(options.retry, RetryPolicy):
        raise InvalidArgumentError(f"retry must be a RetryPolicy, not {options.retry!r}")
    if not isinstance(headers, Mapping):
        raise InvalidArgumentError("headers must be a mapping of strings to strings")
    copied = dict(headers)
    for name, text in copied.items():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise InvalidArgumentError("headers must be a mapping of strings to strings")
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise InvalidArgumentError(f"headers: {name!r} is not a valid header name")
        if name.lower() in _OWN_HEADERS:
            raise InvalidArgumentError(f"headers: {name} is set by the client itself")
        if not text.isascii() or not text.isprintable():  # not quoted, because it may be a secret
            raise InvalidArgumentError(f"headers: the value of {name} must be printable ASCII")
    return options._replace(headers=copied)


class Call:
    """One call: what to send, and its state so far."""

    requests: int = 0
    sent: int = 0  # how many of the requests may have reached the server
    lost = False  # whether one of them lost its answer
    timed_out = False  # whether that was a timeout, so that the server may still work on the request
    status = 0  # of the last answer; 0 if there is none
    failure = Failure.REFUSED  # of the last try
    may_have_applied: bool = False
    request_id: str | None = None  # of the last answer
    token: object | None = None  # that the last request sent
    place: int | None = None  # in the budget's queue, which it keeps for all tries
    refused_since: float | None = None  # when it got its first 429
    closed_for: float | None = None  # for how many seconds the last 429 closed the gate

    def __init__(
        self,
        operation: Operation,
        path: str,
        options: Options,
        *,
        cluster_id: str | None = None,
        name: str | None = None,
        engine: Engine | str | None = None,
        body: Mapping[str, Any] | bytes | None = None,
        writers: Semaphore | None = None,
    ) -> None:
        self.operation = operation
        self.path = path
        self.options = options
        self.meter: RequestStats = options.meter or RequestStats()
        self.cluster_id = cluster_id
        self.name = name
        self.engine = engine
        self.body: bytes | None = body if body is None or isinstance(body, bytes) else _encoded(operation, body)
        self.writers = writers  # limits the user writes on its cluster at a time
        self.patience = None if options.bulk else options.max_wait  # the rest of it, in seconds

    def begin(self, waited: float) -> None:
        """Note that a request is sent now, after it waited ``waited`` seconds for its slot."""
        self.requests += 1
        self.sent += 1
        self.meter.requests += 1
        self.meter.writes += self.operation.writes
        self.meter.waited += waited
        if self.patience is not None:
            self.patience = max(self.patience - waited, 0.0)

    def refuse(self) -> None:
        """Note that the request changed nothing: it was not sent, or the API refused it."""
        self.meter.writes -= self.operation.writes

    @property
    def what(self) -> str:
        """The name of the call in errors."""
        return f"{self.operation.name} ({self.operation.method} {self.path})"

    @property
    def then(self) -> RetryDecision:
        """The action after the failure of the last try."""
        return RULES[self.failure][self.operation.kind]

    @property
    def not_found_is_success(self) -> bool:
        """Whether a 404 after a lost answer means that an earlier try succeeded."""
        return RULES[Failure.LOST][self.operation.kind] is RetryDecision.RETRY_NOT_FOUND_IS_SUCCESS

    def complete(self, error: DatabaseClientError) -> None:
        """Make ``error`` describe the whole call: the number of requests, and whether it may have been applied."""
        is_unclear = self.failure is Failure.LOST or isinstance(error, ServerError | InvalidResponseError)
        self.may_have_applied |= is_unclear and self.operation.writes
        error.may_have_applied = self.may_have_applied
        error.tries = self.requests
        if isinstance(error, APIError) and error.request_id is None:
            error.request_id = self.request_id
        text = str(error.args[0])
        if self.may_have_applied:
            text = f"{text}; it may have been applied"
            error.advice = _SETTLE.get(self.operation.name, "")
        elif not self.sent and _NOTHING_SENT not in text:
            text = f"{text}; {_NOTHING_SENT}"
        error.args = (text,)


_NOTHING_SENT = "nothing was sent"
_SETTLE = {
    "users.create": "read the name back; if it is there without a password that you know, reset_auth it, else create "
    "it again",
    "users.reset_auth": "the old password may be revoked, so reset_auth it again",
    "dbs.create": "read the name back, and create it again if it is not there",
}


def _encoded(operation: Operation, body: Mapping[str, Any]) -> bytes:
    try:
        # Member by member: json encodes a bare string four times as fast as an object, a twentieth of a create. The
        # names are attribute names, so they need no escape.
        members = [f'"{name}": {json.dumps(value)}' for name, value in body.items()]
        return f"{{{', '.join(members)}}}".encode()
    except (TypeError, ValueError) as error:
        problem = f"{operation.name}: JSON cannot represent the arguments: {error}; nothing was sent"
    raise InvalidArgumentError(problem)
