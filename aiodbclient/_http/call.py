"""One call: what to send, and the options of its caller. Pure."""

from __future__ import annotations

from asyncio import Lock
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from attrs import define, field, frozen

from .._checks import check_max_wait, check_seconds, positive, whole
from ..engines import Engine
from ..errors import InvalidArgumentError
from .operations import Operation

# The client sets these: another value would break the request, replace the token, or send it to another host.
_OWN_HEADERS = frozenset({"authorization", "content-type", "content-length", "transfer-encoding", "host", "connection"})


@frozen
class RetryPolicy:
    """How often a failed call is retried, and after how long. It does not choose which failures are retried.

    The n-th wait is a random part of ``base_delay * 2**(n-1)``, at most ``max_delay`` (full jitter). If a 5xx answer
    has a longer retry-after, the client waits for that time, at most a minute. After a 429 the rate limiter decides
    how long to wait.

    Args:
        max_tries: The number of tries, including the first; 1 means no retry. These do not count: a request that is
            resent with another token after a 401, and a 429, after which ``max_wait`` bounds the wait.
        base_delay: The longest first wait, in seconds.
        max_delay: The longest wait, in seconds.

    Raises:
        InvalidArgumentError: A value is not a positive number, or ``max_tries`` is not an int.
    """

    max_tries: int = field(default=5, validator=whole)
    base_delay: float = field(default=0.5, validator=positive)
    max_delay: float = field(default=30.0, validator=positive)


@define(eq=False)
class RequestStats:
    """What was sent for one name of a run, or by one call."""

    requests: int = 0
    writes: int = 0  # requests and claims that may have changed something
    stopped: bool = False  # whether its run was stopped

    @property
    def gives_up(self) -> bool:
        """Whether a request that failed is not sent again: the run was stopped, and nothing was changed."""
        return self.stopped and not self.writes


class Options(NamedTuple):
    """The options of a call: those that its caller set, and those of the run that it is part of."""

    max_wait: float | None = None
    timeout: float = 30.0
    retry: RetryPolicy = RetryPolicy()
    headers: Mapping[str, str] = MappingProxyType({})
    stats: RequestStats | None = None
    bulk: bool = False  # whether the call is part of a run, so that it waits behind all others
    label: str | None = None  # of its events

    def __repr__(self) -> str:
        return "<Options>"  # a header may be a secret


def changed(options: Options, **given: Any) -> Options:
    """Return ``options`` with what is ``given``, and not ``...``. They are not checked yet."""
    if isinstance(given["headers"], Mapping):
        given["headers"] = dict(given["headers"])  # the caller may change it later
    return options._replace(**{name: value for name, value in given.items() if value is not ...})


def check_options(options: Options) -> None:
    """Refuse invalid options. Delete other references to the headers before, for tracebacks."""
    check_seconds("timeout", options.timeout)
    check_max_wait(options.max_wait)
    if problem := _problem_of(options):
        raise InvalidArgumentError(problem)


def _problem_of(options: Options) -> str | None:
    """Return what is invalid in what the caller set, or None."""
    # It does not raise: a traceback with local variables would show the headers, and they may be secrets.
    headers = options.headers
    if not isinstance(options.retry, RetryPolicy):
        return f"retry must be a RetryPolicy, not {options.retry!r}"
    if not isinstance(headers, Mapping):
        return "headers must be a mapping of strings to strings"
    for name, text in headers.items():
        if not (isinstance(name, str) and isinstance(text, str)):
            return "headers must be a mapping of strings to strings"
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            return f"headers: {name!r} is not a valid header name"
        if name.lower() in _OWN_HEADERS:
            return f"headers: {name} is set by the client itself"
        if not text.isascii() or not text.isprintable():
            return f"headers: the value of {name} must be printable ASCII"
    return None


class WriteLocks:
    """Let user writes go to a MongoDB cluster one at a time, since it answers overlapping ones with 500.

    A call takes the lock of its queue, then the rate limit's slot, then ``writing``. So a bulk call that waits for its
    slot does not hold up other writes.
    """

    def __init__(self) -> None:
        self.queues: dict[bool, Lock] = {bulk: Lock() for bulk in (False, True)}
        self.writing: Lock = Lock()


class Call(NamedTuple):
    """One call: what to send."""

    operation: Operation
    path: str
    options: Options
    cluster_id: str | None = None
    name: str | None = None  # of the user or db
    engine: Engine | str | None = None
    body: bytes | None = None
    write_locks: WriteLocks | None = None
    not_found: str = ""  # what a 404 can mean

    def __repr__(self) -> str:
        return f"<Call {self.operation.name}>"  # the body and the path may hold a secret

    @property
    def what(self) -> str:
        """The operation and its request, which may hold a secret."""
        return f"{self.operation.name} ({self.operation.method} {self.path})"
