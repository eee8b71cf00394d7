"""Rate limiters that a server may have, for the table in virtual time and ``benchmarks/limiters.py`` in real time."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from email.utils import formatdate

from attrs import define, field

Refusal = dict[str, str] | None  # the headers of a 429, or None where the request is accepted
Clock = Callable[[], float]


def after(seconds: float) -> dict[str, str]:
    """Name a wait as the API does: in whole seconds."""
    return {"retry-after": str(max(1, math.ceil(seconds)))}


@define
class Limiter:
    """Accepts everything."""

    now: Clock
    seconds: float = field(default=0.02, init=False)  # that a request takes

    def enter(self) -> Refusal:
        return None

    def leave(self) -> None: ...


@define
class Bucket(Limiter):
    """Refills by ``rate`` tokens a second up to ``size``."""

    rate: float
    size: float
    says_when: bool = True
    tokens: float = field(init=False)
    at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens, self.at = self.size, self.now()

    def enter(self) -> Refusal:
        now = self.now()
        self.tokens, self.at = min(self.size, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < 1:
            return after((1 - self.tokens) / self.rate) if self.says_when else {}
        self.tokens -= 1
        return None


@define
class Fixed(Limiter):
    """Accepts ``limit`` requests in each window of the clock."""

    limit: int
    length: float
    window: int = -1
    used: int = 0

    def enter(self) -> Refusal:
        window, passed = divmod(self.now(), self.length)
        if window != self.window:
            self.window, self.used = int(window), 0
        if self.used >= self.limit:
            return after(self.length - passed)
        self.used += 1
        return None


@define
class Sliding(Limiter):
    """Accepts ``limit`` requests in any span of ``length`` seconds. Names milliseconds, or whole seconds as the API."""

    limit: int
    length: float
    whole: bool = False
    accepted: deque[float] = field(factory=deque)

    def enter(self) -> Refusal:
        now = self.now()
        while self.accepted and self.accepted[0] <= now - self.length:
            self.accepted.popleft()
        if len(self.accepted) >= self.limit:
            wait = self.accepted[0] + self.length - now
            return after(wait) if self.whole else {"retry-after": f"{max(0.001, wait):.3f}"}
        self.accepted.append(now)
        return None


@define
class Banning(Limiter):
    """Accepts ``limit`` requests in any minute. A refused request begins a ban of a minute. It names no wait."""

    limit: int
    banned_until: float = -math.inf
    accepted: deque[float] = field(factory=deque)

    def enter(self) -> Refusal:
        now = self.now()
        while self.accepted and self.accepted[0] <= now - 60.0:
            self.accepted.popleft()
        if now < self.banned_until or len(self.accepted) >= self.limit:
            self.banned_until = now + 60.0
            return {}
        self.accepted.append(now)
        return None


@define
class InFlight(Limiter):
    """Accepts ``limit`` requests at a time."""

    limit: int
    held: int = 0
    seconds: float = field(default=0.08, init=False)

    def enter(self) -> Refusal:
        if self.held >= self.limit:
            return after(1)
        self.held += 1
        return None

    def leave(self) -> None:
        self.held -= 1


@define
class Outage(Limiter):
    """Refuses everything for ``length`` seconds, and names no wait."""

    length: float
    began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.began = self.now()

    def enter(self) -> Refusal:
        return {} if self.now() < self.began + self.length else None


@define
class Refusing(Limiter):
    """Refuses the requests for which ``refuses`` is true, by their number from 0, for a second."""

    refuses: Callable[[int], bool]
    number: int = 0

    def enter(self) -> Refusal:
        self.number += 1
        return after(1) if self.refuses(self.number - 1) else None


def at_random(part: float, seed: int = 1) -> Callable[[int], bool]:
    draw = random.Random(seed)
    return lambda _: draw.random() < part


@define
class UsedHour(Limiter):
    """Accepts 100 in an hour. Others have used 95 of them, which expire in ``free_in`` seconds, as the 429 says."""

    free_in: float
    wall: float = 1_700_000_000.0
    free_at: float = field(init=False)
    accepted: int = 0

    def __attrs_post_init__(self) -> None:
        self.free_at = self.now() + self.free_in

    def enter(self) -> Refusal:
        now, free = self.now(), self.now() >= self.free_at
        if self.accepted >= (100 if free else 5):
            wall = self.wall + now
            reset = math.ceil(self.wall + (self.free_at if not free else now + 3600))
            return {
                "ratelimit-limit": "100",
                "ratelimit-remaining": "0",
                "ratelimit-reset": str(reset),
                "date": formatdate(wall, usegmt=True),
            }
        self.accepted += 1
        return None


@define
class Slow(Limiter):
    """Accepts everything, and takes two seconds."""

    seconds: float = field(default=2.0, init=False)


@define
class Windows(Limiter):
    """Several sliding windows, the shortest first, as the provider's. Names whole seconds, or milliseconds."""

    windows: Sequence[tuple[int, float]] = ((250, 60.0), (5000, 3600.0))
    whole: bool = True
    parts: list[Sliding] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.parts = [Sliding(self.now, limit, length, self.whole) for limit, length in reversed(self.windows)]

    def enter(self) -> Refusal:
        for number, part in enumerate(self.parts):
            refusal = part.enter()
            if refusal is not None:
                for other in self.parts[:number]:
                    other.accepted.pop()
                return refusal
        return None


# And how many calls of 16 callers.
LIMITERS: dict[str, tuple[Callable[[Clock], Limiter], int]] = {
    "bucket of 20 a second": (lambda now: Bucket(now, 20, 20), 120),
    "the same, without retry-after": (lambda now: Bucket(now, 20, 20, says_when=False), 120),
    "20 in each second": (lambda now: Fixed(now, 20, 1.0), 120),
    "60 in each 5 s": (lambda now: Fixed(now, 60, 5.0), 200),
    "4 in flight": (lambda now: InFlight(now, 4), 200),
    "10 in each 10 s": (lambda now: Fixed(now, 10, 10.0), 60),
    "30 in any 4 s": (lambda now: Sliding(now, 30, 4.0), 150),
}
