"""What the processes of a fleet tell each other of a token: an ``Account`` to JSON and back. Pure.

Times are told in microseconds of the server's clock. ``offset`` is how far that is ahead of ours, in seconds.
"""

from __future__ import annotations

import json
import math
from collections import deque
from typing import Any

from ..account import Account
from ..others import Others
from .messages import MICROSECONDS, micro, number


def dump(account: Account, offset: float) -> str:
    """What is known, as JSON."""
    gate = account.gate
    facts: dict[str, Any] = {
        "limits": [window.limit for window in account.windows],
        "others": [
            {
                "level": window.others.level,
                "since": _told(window.others.since, offset),
                "sure": window.others.sure,
                "seen": [[_told(begin, offset), _told(to, offset), count] for begin, to, count in window.others.seen],
            }
            for window in account.windows
        ],
        "gate": _told(gate.until, offset),
        "at_most": None if math.isinf(gate.at_most) else gate.at_most,
        "strikes": gate.strikes,
        "heard": _told(account.heard, offset),
        "compared": _told(account.compared, offset),
    }
    return json.dumps(facts)


def load(account: Account, text: str, offset: float) -> None:
    """Take over what was told, all of it or nothing.

    Raises ValueError, KeyError, TypeError or AttributeError where it cannot be right.
    """
    facts = json.loads(text)
    windows: list[tuple[int, Others]] = []
    for window, limit, told in zip(account.windows, facts["limits"], facts["others"], strict=True):
        seen = deque((_heard(begin, offset), _heard(to, offset), number(n, "seen")) for begin, to, n in told["seen"])
        others = Others(
            window.seconds,
            window.others.steady,
            level=_count(told["level"]),
            since=_heard(told["since"], offset),
            sure=bool(told["sure"]),
            seen=seen,
        )
        windows.append((max(1, _count(limit)), others))
    at_most = math.inf if facts["at_most"] is None else _count(facts["at_most"])
    until, strikes = _heard(facts["gate"], offset), _count(facts["strikes"])
    heard, compared = _heard(facts["heard"], offset), _heard(facts["compared"], offset)
    for window, (limit, others) in zip(account.windows, windows, strict=True):
        window.limit, window.others = limit, others
    gate = account.gate
    gate.until, gate.at_most, gate.strikes = until, at_most, strikes
    account.quiet = not any(window.others.level for window in account.windows)
    account.heard, account.compared = heard, compared


def _told(moment: float, offset: float) -> int | None:
    return None if math.isinf(moment) else micro(moment + offset)


def _heard(told: object, offset: float) -> float:
    return -math.inf if told is None else number(told, "a time") / MICROSECONDS - offset


def _count(told: object) -> int:
    return max(0, int(number(told, "a count")))
