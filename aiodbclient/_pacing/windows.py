"""Sliding windows, and a log of the requests that count in one. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from attrs import field, frozen

from .._checks import positive, whole
from ..errors import InvalidArgumentError

_ROUNDING = 1e-9  # so that 0.29 of 100 is 29


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


# For one OAuth token, by the provider's API description.
DOCUMENTED = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))


def sort_windows(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Return the windows, the shortest first, or raise InvalidArgumentError."""
    given = tuple(windows) if isinstance(windows, Iterable) else (windows,)
    for window in given:
        if not isinstance(window, Window):
            raise InvalidArgumentError(f"windows must be Window objects, not {window!r}")
    return tuple(sorted(given, key=lambda window: window.seconds))


class SlidingWindowLog:
    """When the requests that still count in one window were answered."""

    __slots__ = ("answered", "limit", "seconds")

    def __init__(self, window: Window, share: float) -> None:
        self.limit = int(window.limit * share + _ROUNDING)
        self.seconds = window.seconds
        self.answered = deque[float]()  # in order
        if not self.limit:
            raise InvalidArgumentError(f"share={share!r} leaves no request of {window.limit} in {window.seconds:g} s")

    def count_used(self, now: float) -> int:
        """Count the answered requests that hold a slot."""
        answered, expired = self.answered, now - self.seconds
        while answered and answered[0] <= expired:
            answered.popleft()
        return len(answered)

    def free_at(self, now: float, in_flight: int, ahead: int, kept: int = 0) -> float:
        """Return when a request with ``ahead`` others before it may go, if those in flight are answered now."""
        # Line up who holds or takes a slot: the answered requests, those in flight, those ahead. A request may go when
        # the one ``limit`` places before it gives up its slot. So each ``limit`` requests ahead take one window.
        used, limit = self.count_used(now), self.limit - kept
        windows, place = divmod(ahead, limit)
        rank = place + used + in_flight - limit
        if rank < 0:
            return now + windows * self.seconds
        return (self.answered[rank] if rank < used else now) + (windows + 1) * self.seconds
