"""Read the rate limit headers of an answer. Pure. An invalid header counts as missing.

By the provider's API description, ``ratelimit-limit`` and ``ratelimit-remaining`` are about the hour,
``ratelimit-reset`` is the unix time at which the oldest request expires, and ``retry-after`` comes only with a 429 of
the minute's limit. ``ratelimit-reset`` can lie in the past (dnscontrol #636).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from attrs import frozen

_HOUR = 3600.0  # seconds
_NUMBER = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10})?")


@frozen
class RateLimitStatus:
    """An answer's statement about the token's hourly limit. A field is None if its header is missing or invalid.

    Attributes:
        limit: Requests an hour.
        remaining: How many of them are left. 0 can also mean that the minute is full (source: the provider's API
            description).
        reset: When the oldest request of the hour expires, in UTC by the server's clock. It can lie in the past.
    """

    limit: int | None
    remaining: int | None
    reset: datetime | None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RateLimitStatus | None:
        """Read the headers ``ratelimit-*``. Never raises.

        Args:
            headers: A mapping with names in lower case, or one that ignores case, like aiohttp's.

        Returns:
            The status, or None if all of these headers are missing or invalid.
        """
        limit, remaining = _whole(headers.get("ratelimit-limit")), _whole(headers.get("ratelimit-remaining"))
        reset = _whole(headers.get("ratelimit-reset"))
        if limit is None and remaining is None and reset is None:
            return None
        return cls(limit, remaining, None if reset is None else datetime.fromtimestamp(reset, UTC))


def wait_after_429(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a 429 asks us to wait, at most an hour; None if it does not say."""
    # Dates are compared with the answer's own ``date``: our clock does not matter.
    if wait := retry_after(headers):
        return min(wait, _HOUR)
    reset = None if _whole(headers.get("ratelimit-remaining")) else _whole(headers.get("ratelimit-reset"))
    until_reset = _until(reset, headers)
    return until_reset if until_reset is not None and 0 < until_reset <= _HOUR else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after`` in seconds, from a number or a date; None if it is missing or invalid."""
    text = headers.get("retry-after", "")
    wait = float(text) if _NUMBER.fullmatch(text) else _until(_date(text), headers)
    return wait if wait is not None and wait >= 0 else None


def _whole(text: str | None) -> int | None:
    # Ten digits are enough for a date in this century. isdigit() keeps "1_000" away from int().
    if text is None or len(text) > 10 or not text.isascii() or not text.isdigit():
        return None
    return int(text)


def _date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def _until(moment: float | None, headers: Mapping[str, str]) -> float | None:
    if moment is None:
        return None
    now = _date(headers.get("date", ""))
    return moment - (time.time() if now is None else now)
