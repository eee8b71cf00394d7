"""Decide which failed calls are retried, how often, and after how long. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType

import backoff
from attrs import field, frozen

from .._backoff import expo
from .._checks import positive, whole
from ..errors import DatabaseClientError, ServerError
from .operations import Idempotency


class Failure(Enum):
    """The kinds of failure that the retry rules distinguish."""

    NOT_SENT = auto()  # the client could not connect
    THROTTLED = auto()  # a 429
    LOST = auto()  # the connection broke or timed out after sending, or one of ``LOST_STATUSES``
    REFUSED = auto()  # anything else: another error, no slot in time, a closed client, an unreadable body


class RetryDecision(Enum):
    """The action after a failure."""

    RETRY = auto()
    RETRY_NOT_FOUND_IS_SUCCESS = auto()  # a 404 then means that an earlier try succeeded
    RAISE = auto()


_R, _D, _X = RetryDecision.RETRY, RetryDecision.RETRY_NOT_FOUND_IS_SUCCESS, RetryDecision.RAISE

# A lost create is not retried: nothing would show which of the two made the name. A lost reset_auth is retried, and
# users.reset_auth then reads the password back.
RULES: Mapping[Failure, Mapping[Idempotency, RetryDecision]] = MappingProxyType(
    {
        failure: dict(zip(Idempotency, row, strict=True))
        for failure, row in {
            #                  READ UPDATE DELETE RESET_AUTH CREATE
            Failure.NOT_SENT: (_R, _R, _R, _R, _R),
            Failure.THROTTLED: (_R, _R, _R, _R, _R),
            Failure.LOST: (_R, _R, _D, _R, _X),
            Failure.REFUSED: (_X, _X, _X, _X, _X),
        }.items()
    }
)
# 408: a gateway gave up, as with 504. 520 to 524: Cloudflare, in front of the API, got no valid answer (godo #142).
LOST_STATUSES = frozenset({408, 500, 502, 503, 504, *range(520, 525)})


def not_found_is_success(idempotency: Idempotency) -> bool:
    """Whether a 404 after a lost answer means that an earlier try succeeded."""
    return RULES[Failure.LOST][idempotency] is RetryDecision.RETRY_NOT_FOUND_IS_SUCCESS


def answer_was_lost(error: DatabaseClientError) -> bool:
    """Whether the answer to a write was lost or unreadable, so that only a read shows if the write was applied."""
    return error.may_have_applied and (not isinstance(error, ServerError) or error.status in LOST_STATUSES)


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


_LONGEST_AFTER_5XX = 60.0  # seconds, if its answer names a wait


def retry_waits(policy: RetryPolicy) -> Iterator[float]:
    """Yield the seconds to wait after each failed try."""
    return map(backoff.full_jitter, expo(factor=policy.base_delay, max_value=policy.max_delay))


def next_wait(waits: Iterator[float], asked: float | None) -> float:
    """Return the next of ``waits``, or the wait that the answer ``asked`` for if that is longer."""
    return max(next(waits), min(asked or 0.0, _LONGEST_AFTER_5XX))
