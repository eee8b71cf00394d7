"""The sliding windows of a token, and what takes how long in them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from attrs import Attribute, field, frozen

from ..errors import InvalidArgumentError


def whole(of: object, attribute: Attribute[int], value: int) -> None:
    """Validate a count."""
    if type(value) is not int or value < 1:
        raise InvalidArgumentError(f"{type(of).__name__}: {attribute.name} must be an int of at least 1, not {value!r}")


def positive(of: object, attribute: Attribute[float], value: float) -> None:
    """Validate a time."""
    check_seconds(f"{type(of).__name__}: {attribute.name}", value)


def check_seconds(name: str, value: object) -> None:
    """Refuse a time that is not a positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"{name} must be a positive number of seconds, not {value!r}")


@frozen
class Window:
    """At most ``limit`` requests in any span of ``seconds`` seconds.

    Attributes:
        limit: The requests in one window, at least 1.
        seconds: The length of the window, above 0.

    Raises:
        InvalidArgumentError: ``limit`` is not a positive int, or ``seconds`` not a positive finite number.
    """

    limit: int = field(validator=whole)
    seconds: float = field(validator=positive)


def seconds_for(requests: int, windows: Sequence[Window], used: Iterable[int] = ()) -> float:
    """Return how many seconds pass at least until the last of ``requests`` may be sent, in all windows together."""
    # It assumes that a request itself takes no time, that nobody else spends from now on, and that what is spent
    # already stays spent for a whole window. 10,000 requests in the documented windows take 4740.0: 79 minutes.
    spent = list(used) or [0] * len(windows)
    if not windows or requests <= 0:
        return 0.0
    *shorter, longest = windows
    alone = seconds_for(requests, shorter, spent[:-1])
    free = max(longest.limit - spent[-1], 0)
    if requests <= free:
        return alone
    # One window later there is room for ``limit`` more, and so on. Those of the last window are paced by the shorter
    # ones, which are empty by then.
    full = math.ceil((requests - free) / longest.limit)
    last = requests - free - (full - 1) * longest.limit
    return max(alone, full * longest.seconds + seconds_for(last, shorter))
