"""The log of one window, when the next slot is free, and what a run leaves to single calls."""

from __future__ import annotations

import asyncio
import re
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import RateLimiter
from aiodbclient._pacing.limiter import Slot, Slots
from aiodbclient._pacing.windows import SlidingWindowLog
from aiodbclient.errors import InvalidArgumentError, MaxWaitError
from aiodbclient.rate_limiter import Window
from beside_run import ROWS as ROWS_BESIDE_RUN
from beside_run import bursts, each_ten_seconds, price, thirty_a_minute
from pacing_table import ROWS, Figure

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
    """A share is above 0 and at most 1. One that leaves a window without a request would wait for ever."""
    with pytest.raises(InvalidArgumentError, match="share must be a number above 0 and at most 1"):
        RateLimiter(share=share)
    with pytest.raises(InvalidArgumentError, match=r"share=0.1 leaves no request of 9 in 60 s"):
        RateLimiter([Window(9, 60.0)], share=0.1)


PAGE = Path(__file__).parents[2] / "docs/why/pacing.md"


async def answer(limiter: RateLimiter, *, bulk: bool = False) -> None:
    limiter.release(await limiter.acquire(bulk=bulk, max_wait=0))


async def count_free_for_bulk(limiter: RateLimiter) -> int:
    """Take slots for bulk calls until one would have to wait, and return how many there were."""
    slots: list[Slot] = []
    with suppress(MaxWaitError):
        while True:
            slots.append(await limiter.acquire(bulk=True, max_wait=0))
    for slot in slots:
        limiter.release(slot, sent=False)
    return len(slots)


@pytest.mark.thorough
def test_page_shows_measured_figures() -> None:
    figures = [each for row in (each_ten_seconds, thirty_a_minute, bursts, price) for each in row()]
    assert not [figure for figure in figures if figure.loop is None]
    failed = [f"| {each.loop or 0:.0%} | {each.ours:.0%} |".replace("%", " %") for each in figures[:-2]]
    minutes = [f"| {(each.loop or 0) / 60:.0f} minutes | {each.ours / 60:.0f} minutes |" for each in figures[-2:]]
    shown = re.findall(r"^\| .* (\| \S+ (?:%|minutes) \| \S+ (?:%|minutes) \|)$", PAGE.read_text(), re.MULTILINE)
    cold, used_up, _, _, many, _, ten_at_once = failed
    assert shown == [cold, used_up, many, ten_at_once, *minutes]


@pytest.mark.parametrize(
    ("calls", "kept"),
    [(0, 0), (9, 0), (40, 10), (90, 17), (1000, 125)],
    ids=["none", "less than one a minute", "4 a minute", "9 a minute", "at most half"],
)
@virtual
async def test_kept_slots(loop: VirtualLoop, calls: int, kept: int) -> None:
    """A quarter more than expected, and five. Those that single calls have are part of them."""
    limiter = RateLimiter([Window(250, 60.0)])
    await answer(limiter)
    await asyncio.sleep(601)  # it is forgotten
    for _ in range(calls):
        await asyncio.sleep(599 / calls)
        await answer(limiter)
    assert max(limiter.snapshot().used[0], kept) == 250 - await count_free_for_bulk(limiter)


@virtual
async def test_failed_single_calls_count(loop: VirtualLoop) -> None:
    limiter = RateLimiter([Window(100, 60.0)])
    for _ in range(100):
        await answer(limiter, bulk=True)
    for _ in range(8):
        with pytest.raises(MaxWaitError):
            await answer(limiter)
    await asyncio.sleep(60)
    assert await count_free_for_bulk(limiter) == 85  # 8 in the minute that has passed: 10 and 5


@virtual
async def test_waiting_run_goes_on_after_single_calls_stopped(
    loop: VirtualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """No event says that they stopped, so the run looks again."""
    limiter, start = RateLimiter([Window(20, 36_000.0)]), loop.time()
    for bulk in [False] * 6 + [True] * 10:
        await answer(limiter, bulk=bulk)
    assert limiter.estimate_wait(0) == 0
    assert limiter.estimate_wait(0, bulk=True) == 36_000
    assert limiter.estimate_wait(10, bulk=True) == 72_000  # ten in each window
    limiter.release(await limiter.acquire(bulk=True))
    assert 600 <= loop.time() - start <= 661
    assert caplog.messages == ["waiting 36000.0 s for the rate limit, which keeps slots for single calls: 1 call waits"]


# The known weak spot: where the window is short, each wait that the API names ends in another 429 beside others.
KNOWN = {"beside one who spends half of 250 in 15 s: 429s": 0.21}


@pytest.mark.parametrize("row", [*ROWS, *ROWS_BESIDE_RUN], ids=lambda row: row.__name__)
def test_row_within_bounds(row: Callable[[], Iterator[Figure]]) -> None:
    """``benchmarks/limiters.py`` prints the table."""
    figures = list(row())
    assert figures
    assert not [figure for figure in figures if figure.ours > KNOWN.get(figure.name, figure.at_most)]
