"""A run leaves to single calls the slots that they are expected to need, and uses every slot when it is alone."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import pytest

from aiodbclient import RateLimiter
from aiodbclient._pacing.limiter import Slot
from aiodbclient.errors import MaxWaitError
from aiodbclient.rate_limiter import Window
from beside_run import bursts, each_ten_seconds, price, thirty_a_minute

from .world import VirtualLoop, virtual

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
