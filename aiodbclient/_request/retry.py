"""What follows a failure: which calls are tried again, how often, and after how long. Pure.

``RULES`` says whether: a row for each way to fail, a column for each kind of operation. ``RetryPolicy`` says how often
and ``Pauses`` after how long.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from math import inf
from types import MappingProxyType
from typing import Any

import backoff
from attrs import Attribute, field, frozen

from ..errors import DatabaseClientError, InvalidArgumentError, RateLimitError, ServerError
from .operations import Kind


class Failure(Enum):
    """The ways to fail, as far as it matters for trying again.

    Attributes:
        NOT_SENT: There was no connection.
        THROTTLED: A 429.
        LOST: The connection broke or it took too long after sending, or one of ``LOST_STATUSES``: it may have taken
            effect.
        REFUSED: Anything else: another error, no slot in time, a closed client, a body that cannot be read.
    """

    NOT_SENT = auto()
    THROTTLED = auto()
    LOST = auto()
    REFUSED = auto()


class Then(Enum):
    """What follows a failure.

    Attributes:
        RETRY: Another try.
        RETRY_GONE_IS_DONE: Another try, and if that is answered 404, an earlier one did it.
        RAISE: The error.
    """

    RETRY = auto()
    RETRY_GONE_IS_DONE = auto()
    RAISE = auto()


_R, _D, _X = Then.RETRY, Then.RETRY_GONE_IS_DONE, Then.RAISE

# A lost create is not sent again, since nothing would show which of the two made the name. A lost
# reset_auth is, and users.reset_auth then makes sure of the password.
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
# 520 to 524: Cloudflare, in front of the API, got no proper answer from it (godo #142).
LOST_STATUSES = frozenset({500, 502, 503, 504, *range(520, 525)})


def was_lost(error: DatabaseClientError) -> bool:
    """Whether the answer to a write was lost or unreadable, so that reading shows whether the write was applied.

    Other statuses of 5xx, such as 501, are final: a call does not repeat after them, and neither does a bulk run.
    """
    return error.may_have_applied and (not isinstance(error, ServerError) or error.status in LOST_STATUSES)


def _positive(_: object, attribute: Attribute[Any], value: float) -> None:
    if not (isinstance(value, int | float) and 0 < value < inf):
        raise InvalidArgumentError(f"RetryPolicy: {attribute.name} must be a positive number, not {value!r}")


def _whole(_: object, attribute: Attribute[Any], value: int) -> None:
    if type(value) is not int or value < 1:
        raise InvalidArgumentError(f"RetryPolicy: {attribute.name} must be an int of at least 1, not {value!r}")


@frozen
class RetryPolicy:
    """How often a call is tried again, and after how long. Which failures of which calls are, is not chosen here.

    The n-th wait is a random part of ``base_delay * 2**(n-1)``, at most ``max_delay`` (full jitter), unless a 5xx
    answer's retry-after says how long, which is obeyed up to a minute. The waits after a 429 are the rate budget's, and
    only ``max_wait`` bounds them.

    Args:
        max_tries: Tries in all, the first one included; 1 never tries again. A request that is sent again with another
            token after a 401 does not count.
        base_delay: Seconds, the longest that the first wait can be.
        max_delay: Seconds, the longest that any wait can be.

    Raises:
        InvalidArgumentError: One is not a positive number, or ``max_tries`` no int.
    """

    max_tries: int = field(default=5, validator=_whole)
    base_delay: float = field(default=0.5, validator=_positive)
    max_delay: float = field(default=30.0, validator=_positive)


_LONGEST_RETRY_AFTER = 60.0  # seconds


class Pauses:
    """How long to wait before each further try of one call.

    Args:
        policy: The call's.
    """

    __slots__ = ("_longest",)

    def __init__(self, policy: RetryPolicy) -> None:
        self._longest = backoff.expo(factor=policy.base_delay, max_value=policy.max_delay)
        next(self._longest)  # the first thing that a generator of backoff yields is None

    def after(self, error: DatabaseClientError) -> float:
        """The seconds to wait before the next try, after one that failed with ``error``. To be asked once for each."""
        jittered = backoff.full_jitter(next(self._longest))
        if isinstance(error, RateLimitError):
            return 0.0  # the budget's gate is closed, for this call as for every other
        if isinstance(error, ServerError) and error.retry_after is not None:
            return min(error.retry_after, _LONGEST_RETRY_AFTER)
        return jittered
