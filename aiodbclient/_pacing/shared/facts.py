"""The facts that processes which share a budget tell each other through Valkey: an ``Account`` to JSON and back. Pure.

These are the limits, what others hold, the gate with its ramp and strikes, and when answers last came: all that an
account knows. Times are in microseconds of Valkey's clock. ``offset`` is how many seconds that is ahead of ours.
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
    """The account's facts as JSON."""
    gate = account.gate
    facts: dict[str, Any] = {
        "limits": [window.limit for window in account.windows],
        "others": [
            {
                "level": window.others.level,
                "since": _theirs(window.others.since, offset),
                "sure": window.others.sure,
                "seen": [
                    [_theirs(begin, offset), _theirs(to, offset), count] for begin, to, count in window.others.seen
                ],
            }
            for window in account.windows
        ],
        "gate": _theirs(gate.until, offset),
        "at_most": None if math.isinf(gate.at_most) else gate.at_most,
        "strikes": gate.strikes,
        "last_answer": _theirs(account.last_answer, offset),
        "last_count": _theirs(account.last_count, offset),
    }
    return json.dumps(facts)


def load(account: Account, text: str, offset: float) -> None:
    """Replace the account's facts by those of ``text``, all of them or none.

    Raises ValueError, KeyError, TypeError or AttributeError if they make no sense.
    """
    facts = json.loads(text)
    windows: list[tuple[int, Others]] = []
    for window, limit, told in zip(account.windows, facts["limits"], facts["others"], strict=True):
        seen = deque((_ours(begin, offset), _ours(to, offset), number(n, "seen")) for begin, to, n in told["seen"])
        others = Others(
            window.seconds,
            window.others.steady,
            level=_count(told["level"]),
            since=_ours(told["since"], offset),
            sure=bool(told["sure"]),
            seen=seen,
        )
        windows.append((max(1, _count(limit)), others))
    at_most = math.inf if facts["at_most"] is None else _count(facts["at_most"])
    until, strikes = _ours(facts["gate"], offset), _count(facts["strikes"])
    last_answer, last_count = _ours(facts["last_answer"], offset), _ours(facts["last_count"], offset)
    for window, (limit, others) in zip(account.windows, windows, strict=True):
        window.limit, window.others = limit, others
    gate = account.gate
    gate.until, gate.at_most, gate.strikes = until, at_most, strikes
    account.alone = not any(window.others.level for window in account.windows)
    account.last_answer, account.last_count = last_answer, last_count


def _theirs(moment: float, offset: float) -> int | None:
    return None if math.isinf(moment) else micro(moment + offset)


def _ours(moment: object, offset: float) -> float:
    return -math.inf if moment is None else number(moment, "a time") / MICROSECONDS - offset


def _count(value: object) -> int:
    return max(0, int(number(value, "a count")))
