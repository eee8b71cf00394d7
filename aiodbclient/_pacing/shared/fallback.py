"""The fallback share: what one process may send while Valkey does not answer, or has lost its memory."""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect
from collections import deque
from collections.abc import Sequence

from valkey.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError

from ...errors import ConfigurationError
from ..account import sliding
from ..rules import Gate
from ..window import Window
from .messages import Ask, Granted, Seconds

logger = logging.getLogger("aiodbclient")

_WARN_AGAIN = 60.0  # s between two warnings of one permanent mistake
_MISTAKES = ("NOAUTH", "WRONGPASS", "NOPERM", "ACL failure", "no permissions", "DB index is out of range")


class Fallback:
    """Hands out slots from this process's share of each window. Slots that Valkey granted before count too.

    Args:
        windows: The token's windows, the shortest first.
        where: Names the server, for the log.
        share: The part of each window that this process may use.
        reserve: How many slots of each whole window bulk calls leave free for other calls.

    Attributes:
        active: Whether this process uses its share.
        since: When that began.
        probe: The seconds until this process asks Valkey again.
        paused: Whether nothing may go until then.
    """

    def __init__(self, windows: Sequence[Window], where: str, share: float, reserve: int) -> None:
        self.active = self.paused = False
        self.since = self.probe = 0.0
        self._windows = sliding(windows)
        self._own = deque[float]()  # when requests of this process were answered, in the longest window
        self._where = where
        self._share = share
        self._reserve = reserve
        self._was_shared = False  # Valkey has answered at least once
        self._warned = -math.inf  # when the present outage was last logged

    def answered(self, now: float) -> None:
        """A request of this process was answered."""
        self._own.append(now)
        for window in self._windows:
            window.answers.append(now)
            window.used(now)

    def used(self, now: float) -> int:
        """How many slots of the shortest window the answered requests of this process hold."""
        return len(self._own) - bisect(self._own, now - self._windows[0].seconds)

    def answers(self, now: float) -> Sequence[float]:
        """When those requests of this process were answered that hold a slot of the longest window."""
        while self._own and self._own[0] + self._windows[-1].seconds <= now:
            self._own.popleft()
        return self._own

    def begin(self, probe: float, limits: Sequence[int], used: Sequence[int], in_flight: int, age: float) -> None:
        """Use the share from now on.

        Args:
            probe: The seconds until this process asks Valkey again.
            limits: The limits of the whole windows.
            used: For each window: how many slots all processes held by Valkey's last reply.
            in_flight: How many requests of this process have not ended.
            age: How many seconds before this process last asked that reply came.
        """
        now = time.monotonic()
        self.probe, self.paused = probe, False
        for window, limit in zip(self._windows, limits, strict=True):
            window.limit = max(1, int(limit * self._share))
        if self.active:
            return
        self.active, self.since = True, now
        # What the other processes may have taken since that reply: up to all slots of the shortest window.
        since = 0 if age <= probe else limits[0]
        for window, limit, all_used in zip(self._windows, limits, used, strict=False):
            # Other processes may hold slots of our share for one more window. So this process first takes only its
            # share of the slots that are free. The rest counts as answered now.
            free = max(0, limit - since - (all_used if age < window.seconds else 0)) * window.limit // limit
            window.answers.extend([now] * (window.limit - window.used(now) - in_flight - free))

    def end(self) -> None:
        """Valkey has answered."""
        self.active, self._was_shared = False, True
        if self._warned > -math.inf:
            self._warned = -math.inf
            logger.info("the rate budget is shared again through %s", self._where)

    def grant(self, ask: Ask, in_flight: int, gate: Gate) -> Granted:
        """Grant what is free of the share. ``in_flight``: requests of this process that have not ended."""
        now = time.monotonic()
        reserve = int(self._reserve * self._share)
        room = min(window.limit - window.used(now) for window in self._windows) - in_flight
        if not math.isinf(gate.at_most):
            room = min(room, int(gate.at_most) - in_flight)
        if self.paused or now < gate.until:
            room = 0
        interactive = min(ask.interactive, max(room, 0))
        bulk = min(ask.bulk, max(room - interactive - reserve, 0)) if interactive == ask.interactive else 0
        taken = interactive + bulk

        def wait(rank: int, bulk: bool) -> Seconds:
            free_at = max(
                window.opens(now, in_flight + taken, rank - 1, reserve if bulk else 0) for window in self._windows
            )
            return Seconds(max(free_at, gate.until) - now)

        return Granted(
            interactive,
            bulk,
            Seconds(max(min(wait(1, interactive == ask.interactive), self.probe), 0.0)),
            tuple(
                wait(place.place - taken, place.bulk) if place.place > taken else Seconds(0.0) for place in ask.places
            ),
        )

    def warn(self, error: Exception) -> None:
        """Log why the budget cannot be shared: once for each outage, once a minute if waiting does not help.

        Raises:
            ConfigurationError: It is the first contact, and waiting does not help.
        """
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        now = time.monotonic()
        if _is_a_mistake(error):
            if not self._was_shared:
                raise ConfigurationError(
                    f"the rate budget is not shared: {self._where} refuses this process ({reason}); nothing was sent, "
                    "and waiting does not help"
                ) from None
            if now - self._warned >= _WARN_AGAIN:
                self._warned = now
                logger.error(
                    "the rate budget is no longer shared: %s refuses this process (%s); waiting does not help; this "
                    "process uses %g of the budget",
                    self._where,
                    reason,
                    self._share,
                )
        elif self._warned == -math.inf:
            self._warned = now
            logger.warning(
                "the rate budget is not shared: %s failed (%s); until it answers, this process uses %g of the budget",
                self._where,
                reason,
                self._share,
            )


def _is_a_mistake(error: Exception) -> bool:
    """Whether the server refuses this login for good: a wrong password, or no right to a command or key."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    return isinstance(error, ResponseError) and any(text in str(error) for text in _MISTAKES)
