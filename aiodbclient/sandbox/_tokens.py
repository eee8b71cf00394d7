"""``Token``: what a client may do with a token of a sandbox, and how fast. Pure."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Collection, Sequence

from ..rate_limiter import Window

VIEW_CREDENTIALS = "database:view_credentials"
READ_TAGS = "tag:read"
SCOPES = frozenset(
    {"database:read", "database:create", "database:update", "database:delete", VIEW_CREDENTIALS, READ_TAGS}
)

# Not the client's constant, which is tested against it.
DOCUMENTED = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))


class Token:
    """The scopes of a token. It counts its accepted requests in every (sliding) window, and makes the API's headers."""

    # ``ratelimit-limit`` and ``ratelimit-remaining`` describe the longest window, but ``ratelimit-remaining`` is 0 with
    # a 429 of a shorter one. ``ratelimit-reset`` is the unix time at which the oldest request leaves the longest
    # window. A refusal by a shorter window, or by the only one, has ``retry-after``.

    def __init__(self, scopes: Collection[str], windows: Sequence[Window]) -> None:
        self.scopes = frozenset(scopes)
        self._windows = [(window, deque[float]()) for window in sorted(windows, key=lambda window: window.seconds)]

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
        longest, accepted = self._windows[-1]
        left = 0 if refusing else longest.limit - len(accepted)
        headers = {
            "ratelimit-limit": str(longest.limit),
            "ratelimit-remaining": str(left),
            "ratelimit-reset": str(math.ceil(unix_time + accepted[0] + longest.seconds - now)),
        }
        if refusing:
            window, accepted = refusing[-1]
            if len(self._windows) == 1 or window is not longest:
                headers["retry-after"] = _seconds(accepted[0] + window.seconds - now, window)
        return not refusing, headers


def _seconds(wait: float, window: Window) -> str:
    if window.seconds >= 60:  # only tests use a shorter one
        return str(math.ceil(wait))
    return f"{math.ceil(wait * 1000) / 1000:.3f}"


def random_token() -> str:
    """A token with the provider's prefix and length."""
    return "dop_v1_" + secrets.token_hex(32)
