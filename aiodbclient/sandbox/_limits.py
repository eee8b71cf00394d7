"""The provider's rate limits, as exact sliding windows. Pure: the caller gives the time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

from .._pacing.budget import Window

DOCUMENTED = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))

Remaining = Literal["hour", "refused", "full"]
"""The value of ``ratelimit-remaining``.

``hour``: what is left of the longest window. ``refused``: as ``hour``, but 0 with a 429 of a shorter window. ``full``:
as ``refused``, and 0 with the answer that fills a shorter window.
"""


class RateLimiter:
    """Counts the accepted requests of one token in every window. Refused requests do not count.

    It sets the API's headers. ``ratelimit-limit`` and ``ratelimit-remaining`` describe the longest window.
    ``ratelimit-reset`` is the unix time at which the oldest request leaves that window. A refusal by a shorter window,
    or by the only one, has ``retry-after``: in whole seconds, rounded up. For a window under a minute, which only tests
    use, it has three decimals.

    Args:
        windows: The windows.
        remaining: When ``ratelimit-remaining`` is 0: "reaching zero can also indicate that the burst limit [...] was
            met" (API description).
    """

    def __init__(self, windows: Sequence[Window], remaining: Remaining = "refused") -> None:
        self._windows = [(window, deque[float]()) for window in sorted(windows, key=lambda window: window.seconds)]
        self._remaining = remaining

    def admit(self, now: float, unix_time: float) -> tuple[bool, dict[str, str]]:
        """Return whether a request at ``now`` (monotonic seconds) is accepted, and the headers of its answer."""
        if not self._windows:
            return True, {}
        for window, accepted in self._windows:
            horizon = now - window.seconds
            while accepted and accepted[0] <= horizon:
                accepted.popleft()
        refusing = [(window, accepted) for window, accepted in self._windows if len(accepted) >= window.limit]
        if not refusing:
            for _, accepted in self._windows:
                accepted.append(now)
        headers = self._headers(now, unix_time, refused=bool(refusing))
        if refusing:
            window, accepted = refusing[-1]
            if len(self._windows) == 1 or window is not self._windows[-1][0]:
                headers["retry-after"] = _seconds(accepted[0] + window.seconds - now, window)
        return not refusing, headers

    def _headers(self, now: float, unix_time: float, *, refused: bool) -> dict[str, str]:
        window, accepted = self._windows[-1]
        burst_met = any(len(accepted) >= window.limit for window, accepted in self._windows[:-1])
        zero = burst_met and (self._remaining == "full" or (self._remaining == "refused" and refused))
        return {
            "ratelimit-limit": str(window.limit),
            "ratelimit-remaining": "0" if zero else str(window.limit - len(accepted)),
            "ratelimit-reset": str(math.ceil(unix_time + accepted[0] + window.seconds - now)),
        }


def _seconds(wait: float, window: Window) -> str:
    if window.seconds >= 60:
        return str(math.ceil(wait))
    return f"{math.ceil(wait * 1000) / 1000:.3f}"
