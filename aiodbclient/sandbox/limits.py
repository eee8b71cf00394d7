"""The provider's rate limits as exact sliding windows. Pure: the time is given, not asked for."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from .._pacing.budget import Window

DOCUMENTED = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))


class RateLimiter:
    """Counts accepted requests in every window; a refused one counts nowhere.

    ``ratelimit-limit`` and ``-remaining`` tell the longest window and ``ratelimit-reset`` the unix time at
    which its oldest request expires. ``retry-after`` comes with a refusal by a shorter window only (or by
    the only one there is): whole seconds, rounded up, or thousandths for a window under a minute, which is
    one that a test scaled down.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = [(window, deque[float]()) for window in sorted(windows, key=lambda window: window.seconds)]

    def admit(self, now: float, unix_time: float) -> tuple[bool, dict[str, str]]:
        """Whether a request at ``now`` (monotonic seconds) is accepted, and the headers of its answer."""
        full = None
        for window, accepted in self._windows:
            horizon = now - window.seconds
            while accepted and accepted[0] <= horizon:
                accepted.popleft()
            if len(accepted) >= window.limit:
                full = window, accepted
        if full is None:
            for _, accepted in self._windows:
                accepted.append(now)
            return True, self._headers(now, unix_time)
        headers = self._headers(now, unix_time)
        window, accepted = full
        if window is self._windows[0][0] or window is not self._windows[-1][0]:
            headers["retry-after"] = _seconds(accepted[0] + window.seconds - now, window)
        return False, headers

    def _headers(self, now: float, unix_time: float) -> dict[str, str]:
        if not self._windows:
            return {}
        window, accepted = self._windows[-1]
        expires = unix_time + accepted[0] + window.seconds - now
        return {
            "ratelimit-limit": str(window.limit),
            "ratelimit-remaining": str(window.limit - len(accepted)),
            "ratelimit-reset": str(math.ceil(expires)),
        }


def _seconds(wait: float, window: Window) -> str:
    if window.seconds >= 60:
        return str(math.ceil(wait))
    return f"{math.ceil(wait * 1000) / 1000:.3f}"
