"""One call: what to send, and the options of its caller. Pure."""

from __future__ import annotations

from asyncio import Lock
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from attrs import define

from .._checks import check_max_wait, check_seconds
from ..engines import Engine
from ..errors import InvalidArgumentError
from .operations import Operation
from .retry import RetryPolicy

# The client sets these: another value would break the request, replace the token, or send it to another host.
_OWN_HEADERS = frozenset({"authorization", "content-type", "content-length", "transfer-encoding", "host", "connection"})


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


class WriteTurns:
    """Lets user writes go to a MongoDB cluster one at a time, since it answers overlapping ones with 500."""

    def __init__(self) -> None:
        self._lanes = {bulk: Lock() for bulk in (False, True)}
        self.writing: Lock = Lock()

    def lane(self, *, bulk: bool) -> Lock:
        """Return the lock to take before the rate limit's slot; ``writing`` is taken after it."""
        return self._lanes[bulk]  # a bulk call that waits for its slot must not hold up other writes


class Call(NamedTuple):
    """One call: what to send."""

    operation: Operation
    path: str
    options: Options
    cluster_id: str | None = None
    name: str | None = None  # of the user or db
    engine: Engine | str | None = None
    body: bytes | None = None
    turns: WriteTurns | None = None
    not_found: str = ""  # what a 404 can mean

    def __repr__(self) -> str:
        return f"<Call {self.operation.name}>"  # the body and the path may hold a secret

    @property
    def what(self) -> str:
        """The operation and its request, which may hold a secret."""
        return f"{self.operation.name} ({self.operation.method} {self.path})"
