"""The operations of the API, and what happens when one of them fails. Pure.

``RULES`` is the whole policy: a row for each way to fail, a column for each kind of operation.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from enum import Enum, auto
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

import backoff
from attrs import Attribute, field, frozen

from ..errors import DatabaseClientError, InvalidArgumentError, RateLimitError, ServerError


class Kind(Enum):
    """The kinds of operation that fail in different ways."""

    READ = auto()
    UPDATE = auto()
    DELETE = auto()
    RESET_AUTH = auto()
    CREATE = auto()


class Failure(Enum):
    """The ways to fail, as far as it matters for trying again."""

    NOT_SENT = auto()
    THROTTLED = auto()
    LOST = auto()
    REFUSED = auto()


class Then(Enum):
    """What follows a failure."""

    RETRY = auto()
    RETRY_GONE_IS_DONE = auto()
    RAISE = auto()


_R, _D, _X = Then.RETRY, Then.RETRY_GONE_IS_DONE, Then.RAISE

# NOT_SENT: no connection. THROTTLED: 429. REFUSED: any other answer that is an error.
# LOST: broken or timed out after sending, or one of LOST_STATUSES: it may have taken effect. reset_auth may be sent
# again since the password that counts is the last one told; create may not, since nothing tells whether it was this one
# that made the name.
RULES: Mapping[Failure, Mapping[Kind, Then]] = MappingProxyType(
    {
        failure: dict(zip(Kind, row, strict=True))
        for failure, row in {
            #                  READ UPDATE DELETE RESET_AUTH CREATE
            Failure.NOT_SENT: (_R, _R, _R, _R, _R),
            Failure.THROTTLED: (_R, _R, _R, _R, _R),
            Failure.LOST: (_R, _R, _D, _R, _X),
            Failure.REFUSED: (_X, _X, _X, _X, _X),
        }.items()
    }
)
LOST_STATUSES = frozenset({500, 502, 503, 504})


class Operation(NamedTuple):
    """One operation of the API: its name in errors and logs, its HTTP method, and its kind."""

    name: str
    method: str
    kind: Kind

    def at(self, path: str) -> str:
        """How errors name a request."""
        return f"{self.name} ({self.method} {path})"

    @property
    def writes(self) -> bool:
        return self.kind is not Kind.READ


LIST_CLUSTERS = Operation("clusters.list", "GET", Kind.READ)
GET_CLUSTER = Operation("clusters.get", "GET", Kind.READ)
LIST_USERS = Operation("users.list", "GET", Kind.READ)
CREATE_USER = Operation("users.create", "POST", Kind.CREATE)
GET_USER = Operation("users.get", "GET", Kind.READ)
UPDATE_USER = Operation("users.update", "PUT", Kind.UPDATE)
DELETE_USER = Operation("users.delete", "DELETE", Kind.DELETE)
RESET_AUTH = Operation("users.reset_auth", "POST", Kind.RESET_AUTH)
LIST_DBS = Operation("dbs.list", "GET", Kind.READ)
CREATE_DB = Operation("dbs.create", "POST", Kind.CREATE)
GET_DB = Operation("dbs.get", "GET", Kind.READ)
DELETE_DB = Operation("dbs.delete", "DELETE", Kind.DELETE)


def _positive(_: object, attribute: Attribute[Any], value: float) -> None:
    if not (isinstance(value, int | float) and 0 < value < inf):
        raise InvalidArgumentError(f"RetryPolicy: {attribute.name} must be a positive number, not {value!r}")


def _whole(_: object, attribute: Attribute[Any], value: int) -> None:
    if type(value) is not int or value < 1:
        raise InvalidArgumentError(f"RetryPolicy: {attribute.name} must be an int of at least 1, not {value!r}")


@frozen
class RetryPolicy:
    """How often and how patiently a call is tried again. Whether it is tried again at all, ``RULES`` says.

    ``max_tries``: tries in all, the first one included; 1 never tries again. ``base_delay`` and ``max_delay``, in
    seconds: the n-th wait is a random part of ``base_delay * 2**(n-1)``, at most ``max_delay`` (full jitter), unless a
    5xx answer's retry-after says how long, which is obeyed up to a minute. The waits after a 429 are the rate budget's,
    and only ``max_wait`` bounds them. Raises InvalidArgumentError for what is
    not a positive number.
    """

    max_tries: int = field(default=5, validator=_whole)
    base_delay: float = field(default=0.5, validator=_positive)
    max_delay: float = field(default=30.0, validator=_positive)


_LONGEST_RETRY_AFTER = 60.0  # seconds


def waits(policy: RetryPolicy) -> Generator[float, DatabaseClientError, None]:
    """The seconds to wait before each further try, as a wait generator of ``backoff``."""
    longest = backoff.expo(factor=policy.base_delay, max_value=policy.max_delay)
    next(longest)  # what a generator of backoff yields first is not a wait
    error = yield 0.0
    while True:
        jittered = backoff.full_jitter(next(longest))
        if isinstance(error, RateLimitError):
            error = yield 0.0  # the budget's gate is closed, for this call as for every other
        elif isinstance(error, ServerError) and error.retry_after is not None:
            error = yield min(error.retry_after, _LONGEST_RETRY_AFTER)
        else:
            error = yield jittered
