"""The log of one window, and when the next slot is free."""

from __future__ import annotations

from bisect import insort
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import RateLimiter
from aiodbclient._pacing.limiter import Slots
from aiodbclient._pacing.windows import SlidingWindowLog
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.rate_limiter import Window

from .world import VirtualLoop, optimum, virtual

MINUTE = 60.0


def log_of(limit: int, answered: list[float], share: float = 1.0) -> SlidingWindowLog:
    log = SlidingWindowLog(Window(limit, MINUTE), share)
    log.answered.extend(answered)
    return log


def test_request_counts_one_window() -> None:
    """A request counts from its response for one window, and no longer."""
    used = [log_of(3, [0.0, 10.0, 20.0]).count_used(now) for now in (20.0, 59.9, 60.0, 69.9, 70.0, 80.0)]
    assert used == [3, 3, 2, 2, 1, 0]


@given(
    limit=st.integers(1, 8),
    answered=st.lists(st.integers(1, 60).map(float), max_size=8).map(sorted),
    in_flight=st.integers(0, 6),
    ahead=st.integers(0, 30),
)
def test_queue_goes_when_slots_free(limit: int, answered: list[float], in_flight: int, ahead: int) -> None:
    now = 60.0
    free_again = [moment + MINUTE for moment in answered] + [now + MINUTE] * in_flight
    goes = now
    for _ in range(ahead + 1):
        while sum(moment > goes for moment in free_again) >= limit:
            goes = min(moment for moment in free_again if moment > goes)
        insort(free_again, goes + MINUTE)

    assert log_of(limit, answered).free_at(now, in_flight, ahead) == goes


@pytest.mark.parametrize(
    "windows", [((250, 60.0), (5000, 3600.0)), ((2, 1.0), (50, 10.0)), ((2, 4.0), (3, 5.0)), ((5, 1.0), (15, 10.0))]
)
def test_estimate_of_long_queue(windows: tuple[tuple[int, float], ...]) -> None:
    """The estimated wait of a long queue is that in all windows together."""
    slots = Slots([Window(*window) for window in windows], 1.0)
    for count in (1, 3, 6, 200, 5000, 10_000):
        assert slots.estimate_wait(count - 1, 0.0) == pytest.approx(optimum(count, windows), rel=0.01)


@pytest.mark.parametrize(("limit", "share", "used"), [(250, 1 / 4, 62), (100, 0.29, 29), (3, 1 / 3, 1), (250, 1, 250)])
@virtual
async def test_share_times_the_window(loop: VirtualLoop, limit: int, share: float, used: int) -> None:
    """``share`` times the window is sent at once, and not one request more."""
    limiter = RateLimiter([Window(limit, MINUTE)], share=share)
    for _ in range(used):
        limiter.release(await limiter.acquire(max_wait=0.0))
    assert limiter.snapshot().next_slot == pytest.approx(MINUTE)


@pytest.mark.parametrize("share", [0, -0.5, 1.01, "1/4", None, True, float("nan")])
def test_invalid_share_refused(share: Any) -> None:
    """A share is above 0 and at most 1."""
    with pytest.raises(InvalidArgumentError, match="share must be a number above 0 and at most 1"):
        RateLimiter(share=share)


def test_share_without_request_refused() -> None:
    """A share that leaves a window without a request would wait for ever."""
    with pytest.raises(InvalidArgumentError, match=r"share=0.1 leaves no request of 9 in 60 s"):
        RateLimiter([Window(9, 60.0)], share=0.1)
