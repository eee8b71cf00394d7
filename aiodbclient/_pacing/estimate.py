"""How long requests take at the rate limit. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from .window import Window


def seconds_for(requests: int, windows: Sequence[Window], used: Iterable[int] = ()) -> float:
    """Return how many seconds pass until the last of ``requests`` may be sent, in all windows together.

    It is what a run takes at least. It assumes that a request itself takes no time, that nobody else spends from now
    on, and that what is spent already stays spent for a whole window.

    ```python
    seconds_for(10_000, [Window(250, 60.0), Window(5000, 3600.0)])  # 4740.0: 79 minutes
    seconds_for(names_left, budget.windows, budget.snapshot().used)
    ```

    Args:
        requests: How many requests there are to send.
        windows: The limits, the shortest window first, as ``RateBudget.windows`` has them.
        used: How many requests are spent in each window, as ``Snapshot.used`` says. Empty: none.
    """
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
    full = ceil((requests - free) / longest.limit)
    last = requests - free - (full - 1) * longest.limit
    return max(alone, full * longest.seconds + seconds_for(last, shorter))
