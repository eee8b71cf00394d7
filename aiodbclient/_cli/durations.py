"""Durations as operators write them: ``30d``, ``12h``, ``1d12h``. Pure."""

from __future__ import annotations

import re
from datetime import timedelta

from ..errors import InvalidArgumentError

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def duration(text: str | None, option: str) -> timedelta | None:
    """Read a duration; None for None.

    Args:
        text: Numbers with units: w, d, h, m or s.
        option: The option that it is for.

    Raises:
        InvalidArgumentError: It is no duration, or too long for one.
    """
    if text is None:
        return None
    parts = re.findall(r"(\d{1,6})([wdhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgumentError(f"{option} takes a duration such as 30d, 12h or 1d12h, not {text!r}")
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
