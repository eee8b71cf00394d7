"""What the processes of a fleet tell each other of a token: an ``Account`` to JSON and back. Pure.

Times are told in microseconds of the server's clock. ``offset`` is how far that is ahead of ours, in seconds.
"""

from __future__ import annotations

import json
import math
from collections import deque
from typing import Any

from ..account import Account

MICROSECONDS = 1_000_000


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
    """Take over what was told. Raises ValueError, KeyError or TypeError where it cannot be right."""
    facts = json.loads(text)
    for window, limit, told in zip(account.windows, facts["limits"], facts["others"], strict=True):
        window.limit = int(limit)
        others = window.others
        others.level, others.since, others.sure = int(told["level"]), _heard(told["since"], offset), bool(told["sure"])
        others.seen = deque((_heard(begin, offset), _heard(to, offset), count) for begin, to, count in told["seen"])
    gate = account.gate
    gate.until = _heard(facts["gate"], offset)
    gate.at_most = math.inf if facts["at_most"] is None else int(facts["at_most"])
    gate.strikes = int(facts["strikes"])
    account.quiet = not any(window.others.level for window in account.windows)
    account.heard, account.compared = _heard(facts["heard"], offset), _heard(facts["compared"], offset)


def micro(seconds: float) -> int:
    return round(seconds * MICROSECONDS)


def _told(moment: float, offset: float) -> int | None:
    return None if math.isinf(moment) else micro(moment + offset)


def _heard(told: int | None, offset: float) -> float:
    return -math.inf if told is None else told / MICROSECONDS - offset
