"""How long the rest of a run takes, under the rate limit. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import ceil

from attrs import define, field, frozen

from .. import Window

_MERGED = 1.0  # s: requests that were sent so close together are counted as one group


@frozen
class Taken:
    """A window of the rate limit, and how far it is used up.

    Attributes:
        window: The window.
        free: The number of its slots that are free.
        releases: When others are free: in how many seconds, and how many. In the order of time.
    """

    window: Window
    free: int
    releases: tuple[tuple[float, int], ...] = ()


def seconds_left(names: int, a_second: float, requests: float, windows: Iterable[Taken]) -> float:
    """Estimate how long the rest of a run takes: at its pace so far, but no less than the rate limit makes it take.

    Args:
        names: The number of names that are left.
        a_second: The number of names in a second, while the rate limit did not make the run wait; more than 0.
        requests: The number of requests for a name, on average.
        windows: The windows of the rate limit.

    Returns:
        Seconds.
    """
    by_length = sorted(windows, key=lambda taken: taken.window.seconds)
    limited = _limited(ceil(names * requests), by_length[0], by_length[-1]) if by_length else 0.0
    return max(names / a_second, limited)


def _limited(requests: int, short: Taken, long: Taken) -> float:
    """Seconds until the last request can be sent, if they go in bursts that fill the short window."""
    now = 0.0
    burst, free = short.free, long.free
    releases = deque(long.releases)
    while requests > 0:
        sent = min(burst, requests)
        while free < sent and releases:
            at, count = releases.popleft()
            now = max(now, at)
            free += count
        free -= sent
        requests -= sent
        releases.append((now + long.window.seconds, sent))
        if requests > 0:
            now = max(now, short.releases[0][0]) if not sent and short.releases else now + short.window.seconds
            burst = short.window.limit
    return now


@define
class Pace:
    """How a run gets on. A name that took no request counts as done, and not for the estimate.

    Attributes:
        names: The number of names that will take requests, as far as is known.
        done: The number of names that took requests and are done.
        requests: The number of those requests.
        active: The seconds in which the rate limit did not make the run wait.
        clock: Tells the seconds that have passed.
    """

    names: int
    done: int = 0
    requests: int = 0
    active: float = 0.0
    clock: Callable[[], float] = field(kw_only=True, repr=False)
    _sent: deque[tuple[float, int]] = field(factory=deque[tuple[float, int]], init=False)

    def count(self, requests: int) -> None:
        """A name is done that took so many requests."""
        if not requests:
            return
        now = self.clock()
        self.done += 1
        self.requests += requests
        if self._sent and now - self._sent[-1][0] < _MERGED:
            at, before = self._sent.pop()
            self._sent.append((at, before + requests))
        else:
            self._sent.append((now, requests))

    def left(self, windows: Iterable[tuple[Window, int]]) -> float | None:
        """Estimate the seconds that are left; None if nothing is known yet.

        Args:
            windows: Each window of the rate limit, with the number of its slots that are taken.
        """
        names = max(self.names - self.done, 0)
        if not names:
            return 0.0
        if not self.done or not self.active:
            return None
        taken = [self._taken(window, used) for window, used in windows]
        return seconds_left(names, self.done / self.active, self.requests / self.done, taken)

    def _taken(self, window: Window, used: int) -> Taken:
        """What is known of a window. The slots of others are taken to be free after half of it."""
        now = self.clock()
        ours = [(window.seconds - (now - at), count) for at, count in self._sent if now - at < window.seconds]
        others = used - sum(count for _, count in ours)
        if others > 0:
            ours.append((window.seconds / 2, others))
        return Taken(window, max(window.limit - used, 0), tuple(sorted(ours)))
