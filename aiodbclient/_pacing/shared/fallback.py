"""What one process may send while Valkey does not answer, or has lost its memory: its fallback share."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from valkey.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError

from ...errors import ConfigurationError
from ..others import Others
from ..rules import Gate
from ..window import SlidingWindow, Window
from .messages import Ask, Granted

logger = logging.getLogger("aiodbclient")

_WARN_AGAIN = 60.0  # s between two warnings of one permanent mistake
_MISTAKES = ("NOAUTH", "WRONGPASS", "NOPERM", "ACL failure", "no permissions", "DB index is out of range")


class Fallback:
    """Hands out slots of this process's share of each window. The slots that it was granted before count in it.

    Args:
        windows: The token's windows, the shortest first.
        where: Names the server, for the log.
        share: The part of each window that this process may use.
        reserve: How many slots of each whole window bulk calls leave to others.

    Attributes:
        active: Whether this process goes on by itself.
        until: When Valkey is asked again, if so.
    """

    def __init__(self, windows: Sequence[Window], where: str, share: float, reserve: int) -> None:
        self.active = False
        self.until = 0.0
        self._windows = [SlidingWindow(w.limit, w.seconds, Others(w.seconds, steady=False)) for w in windows]
        self._where = where
        self._share = share
        self._reserve = reserve
        self._was_shared = False  # Valkey has answered at least once
        self._warned = -math.inf  # when it was last warned of an outage that has not ended

    def answered(self, now: float) -> None:
        """A request of this process was answered."""
        for window in self._windows:
            window.answers.append(now)

    def used(self, now: float) -> int:
        """How many slots of the shortest window the answered requests of this process hold."""
        return self._windows[0].used(now)

    def answers(self, now: float) -> Sequence[float]:
        """When those requests of this process were answered that hold a slot of the longest window."""
        self._windows[-1].used(now)
        return self._windows[-1].answers

    def begin(self, seconds: float, limits: Sequence[int], used: Sequence[int], told: float, in_flight: int) -> None:
        """Go on with the share.

        Args:
            seconds: For how many seconds Valkey is not asked.
            limits: The limits of the whole windows.
            used: For each window: how many slots all processes held when Valkey last told.
            told: When that was.
            in_flight: How many requests of this process have not ended.
        """
        now = time.monotonic()
        self.until = now + seconds
        for window, limit in zip(self._windows, limits, strict=True):
            window.limit = max(1, int(limit * self._share))
        if self.active:
            return
        self.active = True
        for window, limit, all_used in zip(self._windows, limits, used, strict=False):
            # All the shares together may be more than what is free now. So beside the slots that this process has, it
            # may take its share of the free ones at once, and more only as the slots of all expire.
            still_used = min(all_used, limit) if now - told < window.seconds else 0
            free = window.limit * (limit - still_used) // limit
            window.others.believe(max(0, window.limit - window.used(now) - in_flight - free), now)

    def end(self) -> None:
        """Valkey has answered."""
        self.active, self.until, self._was_shared = False, 0.0, True
        if self._warned > -math.inf:
            self._warned = -math.inf
            logger.info("the rate budget is shared again through %s", self._where)

    def grant(self, ask: Ask, in_flight: int, gate: Gate) -> Granted:
        """Grant what is free of the share. ``in_flight``: requests of this process that have not ended."""
        now = time.monotonic()
        reserve = int(self._reserve * self._share)
        room = min(window.room(now, 0) - window.used(now) for window in self._windows) - in_flight
        if not math.isinf(gate.at_most):
            room = min(room, int(gate.at_most) - in_flight)
        if now < gate.until:
            room = 0
        interactive = min(ask.interactive, max(room, 0))
        bulk = min(ask.bulk, max(room - interactive - reserve, 0)) if interactive == ask.interactive else 0
        taken = interactive + bulk

        def wait(rank: int, bulk: bool) -> float:
            free_at = max(
                window.opens(now, in_flight + taken, rank - 1, reserve if bulk else 0) for window in self._windows
            )
            return max(free_at, gate.until) - now

        return Granted(
            interactive,
            bulk,
            max(min(wait(1, interactive == ask.interactive), self.until - now), 0.0),
            [wait(place.place - taken, place.bulk) if place.place > taken else 0.0 for place in ask.places],
        )

    def warn(self, error: Exception) -> None:
        """Log why the budget cannot be shared: once for an outage, once a minute for what no waiting mends.

        Raises:
            ConfigurationError: It is the first contact, and no waiting mends this.
        """
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        now = time.monotonic()
        if _is_a_mistake(error):
            if not self._was_shared:
                raise ConfigurationError(
                    f"the rate budget cannot be shared: {self._where} refuses this process, which no waiting mends "
                    f"({told}); nothing was sent"
                ) from None
            if now - self._warned >= _WARN_AGAIN:
                self._warned = now
                logger.error(
                    "the rate budget is no longer shared: %s refuses this process, which no waiting mends (%s); it "
                    "goes on with %g of the budget",
                    self._where,
                    told,
                    self._share,
                )
        elif self._warned == -math.inf:
            self._warned = now
            logger.warning(
                "the rate budget cannot be shared through %s (%s): this process goes on with %g of it until it can",
                self._where,
                told,
                self._share,
            )


def _is_a_mistake(error: Exception) -> bool:
    """Whether the server refuses this login for good: a wrong password, or no right to a command or key."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    return isinstance(error, ResponseError) and any(text in str(error) for text in _MISTAKES)
