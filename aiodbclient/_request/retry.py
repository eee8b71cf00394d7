"""What follows a failure: which calls are tried again, how often, and after how long.

``RULES`` is the whole policy: a row for each way to fail, a column for each kind of operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from enum import Enum, auto
from math import inf
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import backoff
from attrs import Attribute, field, frozen

from ..errors import DatabaseClientError, InvalidArgumentError, RateLimitError, ServerError
from .operations import Kind

P = ParamSpec("P")
T = TypeVar("T")


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
# LOST: broken or timed out after sending, or one of LOST_STATUSES: it may have taken effect. A reset_auth may be sent
# again, but its password is good only once users.reset_auth has made sure of it. A create may not be sent again, since
# nothing tells whether it was this one that made the name.
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
# 520 to 524 are Cloudflare's, which stands before the API, for an origin that did not answer as it should (godo #142).
LOST_STATUSES = frozenset({500, 502, 503, 504, *range(520, 525)})


def _positive(_: object, attribute: Attribute[Any], value: float) -> None:
    if not (isinstance(value, int | float) and 0 < value < inf):
        raise InvalidArgumentError(f"RetryPolicy: {attribute.name} must be a positive number, not {value!r}")


def _whole(_: object, attribute: Attribute[Any], value: int) -> None:
    if type(value) is not int or value < 1:
        raise InvalidArgumentError(f"RetryPolicy: {attribute.name} must be an int of at least 1, not {value!r}")


@frozen
class RetryPolicy:
    """How often and how patiently a call is tried again. Whether it is tried again at all, ``RULES`` says.

    The n-th wait is a random part of ``base_delay * 2**(n-1)``, at most ``max_delay`` (full jitter), unless a 5xx
    answer's retry-after says how long, which is obeyed up to a minute. The waits after a 429 are the rate budget's, and
    only ``max_wait`` bounds them.

    Args:
        max_tries: Tries in all, the first one included; 1 never tries again.
        base_delay: Seconds, the longest that the first wait can be.
        max_delay: Seconds, the longest that any wait can be.

    Raises:
        InvalidArgumentError: For what is not a positive number.
    """

    max_tries: int = field(default=5, validator=_whole)
    base_delay: float = field(default=0.5, validator=_positive)
    max_delay: float = field(default=30.0, validator=_positive)


_LONGEST_RETRY_AFTER = 60.0  # seconds


def waits(policy: RetryPolicy) -> Generator[float, DatabaseClientError | None, None]:
    """The seconds to wait before each further try, as a wait generator of ``backoff``.

    What it yields first is no wait. Then send it the error that the last try met, or None.
    """
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


async def retrying(
    policy: RetryPolicy,
    is_final: Callable[[DatabaseClientError], bool],
    attempt: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Await ``attempt(...)``, again and again, until it succeeds.

    Args:
        policy: How often in all, and how long to wait in between.
        is_final: Whether an error ends it at once.
        attempt: What to do. It must be safe to repeat after an error that is not final.

    Raises:
        DatabaseClientError: The error of the last attempt.
    """
    # Without the decorator of backoff, since making one costs a quarter of a request.
    delays = None
    for _ in range(policy.max_tries - 1):
        try:
            return await attempt(*args, **kwargs)
        except DatabaseClientError as error:
            if is_final(error):
                raise
            if delays is None:
                delays = waits(policy)
                next(delays)
            delay = delays.send(error)
        await asyncio.sleep(delay)
    return await attempt(*args, **kwargs)
