"""Callers wait in order, no longer than their max_wait, and leave nothing behind."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from math import inf, nan
from typing import Any

import pytest

from aiodbclient import RateLimiter
from aiodbclient.errors import ConfigurationError, InvalidArgumentError, MaxWaitError
from aiodbclient.rate_limiter import Window

from ..waiting import settle
from .world import VirtualLoop, live, virtual


def limiter_of(*windows: tuple[int, float]) -> RateLimiter:
    return RateLimiter([Window(*window) for window in windows])


async def spend(limiter: RateLimiter, count: int) -> None:
    """Send ``count`` requests, each answered at once."""
    for _ in range(count):
        limiter.release(await limiter.acquire())


class Queue:
    """Callers of a limiter, each in its own task, and the order and times of their starts."""

    def __init__(self, limiter: RateLimiter, loop: VirtualLoop) -> None:
        self.limiter, self.loop = limiter, loop
        self.went: list[tuple[str, float]] = []
        self.start = loop.time()

    async def enter(self, name: str, **options: Any) -> asyncio.Task[None]:
        async def caller() -> None:
            slot = await self.limiter.acquire(**options)
            self.went.append((name, round(self.loop.time() - self.start, 2)))
            self.limiter.release(slot)

        task = asyncio.create_task(caller())
        await settle()
        return task


@virtual
async def test_next_goes_window_after_first_answer(loop: VirtualLoop) -> None:
    limiter, start = limiter_of((3, 60.0)), loop.time()
    slots = [await limiter.acquire() for _ in range(3)]
    assert loop.time() == start
    await asyncio.sleep(2)  # the answers are slow, and count from their arrival
    for slot in slots:
        limiter.release(slot)
    await limiter.acquire()
    assert loop.time() - start == pytest.approx(62, abs=0.001)


@virtual
async def test_bulk_goes_behind_others(loop: VirtualLoop) -> None:
    limiter = limiter_of((1, 1.0))
    await spend(limiter, 1)
    queue = Queue(limiter, loop)
    tasks = [
        await queue.enter("bulk 1", bulk=True),
        await queue.enter("bulk 2", bulk=True),
        await queue.enter("person 1"),
        await queue.enter("person 2"),
    ]
    await asyncio.gather(*tasks)
    assert queue.went == [("person 1", 1), ("person 2", 2), ("bulk 1", 3), ("bulk 2", 4)]


@virtual
async def test_newcomer_overtakes_no_waiter(loop: VirtualLoop) -> None:
    limiter = limiter_of((1, 1.0))
    slot = await limiter.acquire()
    queue = Queue(limiter, loop)
    first = await queue.enter("first")
    limiter.release(slot, sent=False)  # "first" holds the slot now, but has not run yet
    second = asyncio.create_task(limiter.acquire())
    await first
    await second
    assert queue.went == [("first", 0)]
    assert loop.time() - queue.start == pytest.approx(1, abs=0.001)


@virtual
async def test_too_long_wait_fails_at_once(loop: VirtualLoop) -> None:
    """The error says how long the wait is."""
    limiter, start = limiter_of((2, 60.0)), loop.time()
    await spend(limiter, 2)
    await asyncio.sleep(10)
    with pytest.raises(MaxWaitError, match="longer than max_wait allows") as caught:
        await limiter.acquire(max_wait=5)
    assert caught.value.retry_after == pytest.approx(50)
    assert loop.time() - start == pytest.approx(10)
    assert limiter.snapshot().waiting == 0
    await limiter.acquire(max_wait=51)  # with a slightly larger max_wait, it waits
    assert loop.time() - start == pytest.approx(60, abs=0.001)


@pytest.mark.parametrize("max_wait", ["5", True, -1, nan])
async def test_invalid_max_wait_is_refused(max_wait: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="max_wait must be a number of seconds"):
        await RateLimiter().acquire(max_wait=max_wait)


@virtual
async def test_the_queue_ahead_is_part_of_the_wait(loop: VirtualLoop) -> None:
    limiter = limiter_of((2, 60.0))
    await spend(limiter, 1)
    await asyncio.sleep(10)
    await spend(limiter, 1)
    queue, waits, tasks = Queue(limiter, loop), list[float](), list[asyncio.Task[None]]()
    for n in range(5):
        with pytest.raises(MaxWaitError) as caught:
            await limiter.acquire(max_wait=1)
        waits.append(caught.value.retry_after or 0)
        tasks.append(await queue.enter(str(n)))
    await asyncio.gather(*tasks)
    assert [at for _, at in queue.went] == pytest.approx(waits, abs=0.01)
    assert waits == pytest.approx([50, 60, 110, 120, 170], abs=0.01)


@virtual
async def test_estimate_of_bulk_and_single_calls(loop: VirtualLoop) -> None:
    limiter = limiter_of((1, 10.0))
    await spend(limiter, 1)
    queue = Queue(limiter, loop)
    tasks = [await queue.enter("bulk", bulk=True), await queue.enter("person")]
    for bulk, wait in ((True, 30.0), (False, 20.0)):
        with pytest.raises(MaxWaitError) as refused:
            await limiter.acquire(max_wait=15.0, bulk=bulk)
        assert refused.value.retry_after == wait
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("bulk", [False, True])
@virtual
async def test_limiter_of_another_loop_is_refused(loop: VirtualLoop, bulk: bool) -> None:
    limiter = limiter_of((1, 10.0))
    await spend(limiter, 1)
    waiting = asyncio.create_task(limiter.acquire(bulk=bulk))
    await settle()

    async def elsewhere() -> None:
        with pytest.raises(ConfigurationError, match="a rate limiter is for one event loop"):
            await limiter.acquire()

    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, elsewhere()).result()
    await waiting


@virtual
async def test_max_wait_ends_when_wait_grows(loop: VirtualLoop) -> None:
    limiter, start = limiter_of((1, 10.0)), loop.time()
    await spend(limiter, 1)
    queue = Queue(limiter, loop)
    patient = await queue.enter("bulk", bulk=True, max_wait=15)  # the slot of t = 10 would suffice
    person = await queue.enter("person")  # but another caller goes first
    with pytest.raises(MaxWaitError) as caught:
        await patient
    assert loop.time() - start == pytest.approx(15, abs=0.001)
    assert caught.value.retry_after == pytest.approx(5, abs=0.001)
    await person
    assert (limiter.snapshot().waiting, loop.timers()) == (0, 0)


@virtual
async def test_cancelled_waiter_gives_up_place(loop: VirtualLoop) -> None:
    limiter = limiter_of((1, 10.0))
    await spend(limiter, 1)
    queue = Queue(limiter, loop)
    first, second = await queue.enter("first"), await queue.enter("second")
    first.cancel()
    await second
    assert queue.went == [("second", 10)]
    (await queue.enter("third")).cancel()
    await settle()
    assert (limiter.snapshot().waiting, loop.timers()) == (0, 0)


@virtual
async def test_waiter_cancelled_at_its_turn_loses_no_slot(loop: VirtualLoop) -> None:
    limiter = limiter_of((1, 10.0))
    slot = await limiter.acquire()
    queue = Queue(limiter, loop)
    first, second = await queue.enter("first"), await queue.enter("second")
    limiter.release(slot, sent=False)  # the turn of "first" has come ...
    first.cancel()  # ... but it is never informed
    async with asyncio.timeout(60):
        await second
    assert queue.went == [("second", 0)]
    assert first.cancelled()


@virtual
async def test_a_snapshot_shows_the_state_of_the_limiter(loop: VirtualLoop) -> None:
    limiter = limiter_of((3, 60.0), (9, 600.0))
    assert limiter.snapshot().next_slot == 0
    await spend(limiter, 2)
    await asyncio.sleep(15)
    await limiter.acquire()
    queue = Queue(limiter, loop)
    waiter = await queue.enter("next")
    snapshot = limiter.snapshot()
    assert (snapshot.used, snapshot.in_flight, snapshot.waiting) == ((2, 2), 1, 1)
    assert snapshot.next_slot == pytest.approx(45)
    await waiter


def test_a_long_wait_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A short one is not logged."""
    caplog.set_level(logging.INFO, logger="aiodbclient")

    async def main(loop: VirtualLoop) -> None:
        await spend(limiter_of((2, 5.0)), 10)
        assert not caplog.records
        limiter = limiter_of((2, 60.0))
        await spend(limiter, 10)  # four windows of waiting, one call at a time
        assert len(caplog.records) == 4
        caplog.clear()
        queue = Queue(limiter, loop)
        await asyncio.gather(*[await queue.enter(str(n)) for n in range(2)])

    live(main)
    text = "waiting 60.0 s for the rate limit, which allows 2 requests in 60 s: 1 call waits; max_wait= bounds it"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", text)]


def test_the_default_limiter_is_the_documented_one() -> None:
    assert RateLimiter().windows == (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))


@pytest.mark.parametrize(
    ("limit", "seconds", "complaint"),
    [(limit, 60.0, "limit must be an int") for limit in (0, -1, 2.5, "5", None, True)]
    + [(1, seconds, "seconds must be a positive number") for seconds in (0, -1.0, inf, nan, "60", None, True)],
)
def test_window_that_cannot_be_is_refused(limit: Any, seconds: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        Window(limit=limit, seconds=seconds)
    with pytest.raises(InvalidArgumentError, match="must be Window objects, not 250"):
        RateLimiter([250, 60])  # type: ignore[list-item]  # that is what it must find out
