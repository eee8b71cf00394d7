"""What pacing costs under many limiters, in virtual time, beside a plain loop. ``benchmarks/limiters.py`` prints it.

The loop sleeps for ``retry-after``, or one second without it, and tries again. Each row has a bound.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from statistics import mean, median

from attrs import define, field, frozen

from aiodbclient import RateLimiter
from aiodbclient._pacing.limiter import Slot
from aiodbclient.errors import MaxWaitError
from aiodbclient.rate_limiter import Window
from server_limiters import (
    LIMITERS,
    Banning,
    Clock,
    Limiter,
    Outage,
    Refusal,
    Refusing,
    Sliding,
    Slow,
    UsedHour,
    Windows,
    at_random,
)
from tests.pacing.world import VirtualLoop, live, optimum

Make = Callable[[Clock], Limiter]
AT_ONCE = 16
SEEDS = range(3)


@frozen
class Figure:
    """One measured number, that of the loop if it has one, and its bound."""

    name: str
    ours: float
    at_most: float
    loop: float | None = None

    @property
    def holds(self) -> bool:
        return self.ours <= self.at_most


@define
class Api:
    """A server behind a limiter. A request takes some milliseconds each way, or from ``least`` to ``most`` seconds."""

    limiter: Limiter
    draw: random.Random
    least: float = 0.001
    most: float = 0.003
    sent: int = 0
    refused: int = 0

    async def answer(self) -> Refusal:
        self.sent += 1
        await asyncio.sleep(self.draw.uniform(self.least, self.most))
        refusal = self.limiter.enter()
        if refusal is None:
            await asyncio.sleep(self.limiter.seconds)
            self.limiter.leave()
        else:
            self.refused += 1
        await asyncio.sleep(self.draw.uniform(self.least, self.most))
        return refusal


@define
class Run:
    """What some calls took."""

    took: float = 0.0
    failed: int = 0
    refused: int = 0
    sent: int = 0
    calls: list[float] = field(factory=list)  # seconds of each
    ended: list[float] = field(factory=list)


async def call_paced(limiter: RateLimiter, api: Api, max_wait: float | None = None, *, bulk: bool = False) -> None:
    """Call as the transport does."""
    loop, slot = asyncio.get_running_loop(), None
    while True:
        asked = loop.time()
        slot = await limiter.acquire(slot, bulk=bulk, max_wait=max_wait)
        if max_wait is not None:
            max_wait = max(0.0, max_wait - (loop.time() - asked))
        refusal = await _send(limiter, api, slot)
        if refusal is None:
            return


async def _send(limiter: RateLimiter, api: Api, slot: Slot) -> Refusal:
    try:
        refusal = await api.answer()
        if refusal is None:
            limiter.release(slot, accepted=True)
        else:
            limiter.refuse(slot, refusal)
        return refusal
    finally:
        limiter.release(slot)


async def call_plainly(api: Api) -> None:
    refusal = await api.answer()
    while refusal is not None:
        await asyncio.sleep(float(refusal.get("retry-after", 1)))
        refusal = await api.answer()


async def spread(call: Callable[[], Awaitable[None]], api: Api, count: int, callers: int) -> Run:
    """Make ``count`` calls, ``callers`` at a time."""
    run, loop, todo = Run(), asyncio.get_running_loop(), iter(range(count))
    started, sent, refused = loop.time(), api.sent, api.refused

    async def work() -> None:
        for _ in todo:
            began = loop.time()
            try:
                await call()
            except MaxWaitError:
                run.failed += 1
            run.calls.append(loop.time() - began)
            run.ended.append(loop.time() - started)

    await asyncio.gather(*(work() for _ in range(callers)))
    run.took, run.sent, run.refused = loop.time() - started, api.sent - sent, api.refused - refused
    return run


def paced(make: Make, count: int, callers: int, *, seed: int = 0, max_wait: float | None = None) -> Run:
    async def main(loop: VirtualLoop) -> Run:
        random.seed(seed)  # of the jitter
        limiter, api = RateLimiter(), Api(make(loop.time), random.Random(seed))
        return await spread(lambda: call_paced(limiter, api, max_wait), api, count, callers)

    return live(main)


def plainly(make: Make, count: int, callers: int, *, seed: int = 0) -> Run:
    async def main(loop: VirtualLoop) -> Run:
        api = Api(make(loop.time), random.Random(seed))
        return await spread(lambda: call_plainly(api), api, count, callers)

    return live(main)


def both(make: Make, count: int, callers: int) -> tuple[list[Run], list[Run]]:
    """The runs of the client and of the loop, with several seeds."""
    ours = [paced(make, count, callers, seed=seed) for seed in SEEDS]
    return ours, [plainly(make, count, callers, seed=seed) for seed in SEEDS]


def took(runs: list[Run]) -> float:
    return mean(run.took for run in runs)


def seven() -> Iterator[Figure]:
    times, refusals = list[float](), list[float]()
    for name, (make, count) in LIMITERS.items():
        ours, loops = both(make, count, AT_ONCE)
        times.append(took(ours) / took(loops))
        refusals.append(sum(run.refused for run in ours) / sum(run.refused for run in loops))
        yield Figure(f"{name}: time", took(ours), 1.3 * took(loops), took(loops))
    yield Figure("the seven: time / loop", mean(times), 1.3, 1.0)
    yield Figure("the seven: 429s / loop", mean(refusals), 0.5, 1.0)


def sliding() -> Iterator[Figure]:
    for count, limit, seconds in ((100, 20, 1.0), (200, 50, 5.0)):
        ours, loops = both(partial(Sliding, limit=limit, length=seconds), count, count)
        yield Figure(f"{limit} in {seconds:g} s, {count} calls", took(ours), 1.3 * took(loops), took(loops))


def outages() -> Iterator[Figure]:
    for callers in (AT_ONCE, 200):
        for length in (3.0, 6.0, 25.0):
            ours, loops = both(partial(Outage, length=length), 200, callers)
            longest, plain = (mean(max(run.calls) for run in runs) for runs in (ours, loops))
            name = f"429 for {length:g} s without a hint, {callers} callers: longest call"
            yield Figure(name, longest, 1.25 * length + 2, plain)


def banned() -> Iterator[Figure]:
    """The loop never ends: each of its tries renews the ban."""
    runs = [paced(partial(Banning, limit=200), 2500, AT_ONCE, seed=seed) for seed in SEEDS]
    yield Figure("200 in 60 s, each 429 bans for 60 s: hours for 2,500 names", took(runs) / 3600, 1.2)


def refused_by_number() -> Iterator[Figure]:
    rows: list[tuple[str, Callable[[int], bool], int, float]] = [
        ("requests 100 to 129 refused", lambda number: 100 <= number < 130, 200, 5.0),
        ("every tenth refused", lambda number: number % 10 == 9, 200, 5.0),
        ("every tenth refused, 16 callers", lambda number: number % 10 == 9, AT_ONCE, 10.0),
    ]
    for name, refuses, callers, at_most in rows:
        ours, loops = both(partial(Refusing, refuses=refuses), 200, callers)
        yield Figure(name, took(ours), at_most, took(loops))


def _random(seed: int) -> Make:
    return partial(Refusing, refuses=at_random(0.2, seed))


def refused_at_random() -> Iterator[Figure]:
    ours, loops, failed = list[Run](), list[Run](), 0
    for seed in range(20):
        ours.append(paced(_random(seed), 200, 200, seed=seed))
        loops.append(plainly(_random(seed), 200, 200, seed=seed))
        failed += paced(_random(seed), 200, 200, seed=seed, max_wait=20.0).failed
    yield Figure("a random 20 % refused, the slowest of 20 runs", max(run.took for run in ours), 15.0, took(loops))
    yield Figure("failed with max_wait=20, of 4,000", failed, 0)


def used_hour() -> Iterator[Figure]:
    ours, loops = both(partial(UsedHour, free_in=3.0), 100, 100)
    yield Figure("95 of the hour used by others, free in 3 s", took(ours), 6.0, took(loops))


def slow_lists() -> Iterator[Figure]:
    ours, loops = both(Slow, 240, 240)
    yield Figure("240 lists of 2 s, no 429", took(ours), 1.5 * took(loops), took(loops))


def hanging() -> Iterator[Figure]:
    for refusals in (1, 2):

        async def main(loop: VirtualLoop, refusals: int = refusals) -> tuple[Run, int]:
            limiter = RateLimiter()
            api = Api(Limiter(loop.time), random.Random(1))
            slots = [await limiter.acquire() for _ in range(refusals)]
            for slot in slots:
                limiter.refuse(slot, {"retry-after": "1"})

            async def hang() -> None:  # as a request whose timeout is 30 s
                while True:
                    slot = await limiter.acquire()
                    try:
                        await asyncio.sleep(30)
                    finally:
                        limiter.release(slot)

            hanging = [asyncio.create_task(hang()) for _ in range(AT_ONCE)]
            await asyncio.sleep(20)
            run = await spread(lambda: call_paced(limiter, api, 15.0), api, 60, 1)
            for task in hanging:
                task.cancel()
            return run, run.failed

        run, failed = live(main)
        name = f"a cluster that hangs, after {refusals} x 429: "
        yield Figure(f"{name}median of another's calls", median(run.calls), 0.1)
        yield Figure(f"{name}failed", failed, 0)


def alone_each() -> Iterator[Figure]:
    for count, most in ((4, 0.10), (8, 0.15)):
        runs, refused, _ = _together(count, 1.0, 1000)
        yield Figure(f"{count} clients alone each: 429s", refused, most)
        slowest, fastest = max(run.took for run in runs), min(run.took for run in runs)
        yield Figure(f"{count} clients alone each: slowest / fastest", slowest / fastest, 2.5)


def shared() -> Iterator[Figure]:
    for count in (4, 8):
        runs, refused, minutes = _together(count, 1 / count, 4000 // count)
        yield Figure(f"{count} with share=1/{count}: 429s", refused, 0)
        done = sum(ended < minutes * 60 for run in runs for ended in run.ended)
        yield Figure(f"{count} with share=1/{count}: part of the limit not used", 1 - done / (250 * minutes), 0.02)


def _together(clients: int, share: float, count: int) -> tuple[list[Run], float, int]:
    """Some clients on one token. Returns their runs, the part of the 429s, and the minutes that all were busy."""

    async def main(loop: VirtualLoop) -> tuple[list[Run], float, int]:
        random.seed(1)
        api = Api(Windows(loop.time), random.Random(1))
        limiters = [RateLimiter(share=share) for _ in range(clients)]
        runs = await asyncio.gather(*(spread(partial(call_paced, each, api), api, count, AT_ONCE) for each in limiters))
        return list(runs), api.refused / api.sent, int(min(run.took for run in runs) // 60)

    return live(main)


def beside() -> Iterator[Figure]:
    for seconds in (60.0, 15.0):

        async def main(loop: VirtualLoop, seconds: float = seconds) -> Run:
            random.seed(1)
            api = Api(Sliding(loop.time, 250, seconds, whole=True), random.Random(1))

            async def spend() -> None:
                while True:
                    api.limiter.enter()
                    await asyncio.sleep(seconds / 125)

            spending = asyncio.create_task(spend())
            await asyncio.sleep(seconds)
            limiter = RateLimiter([Window(250, seconds), Window(5000, 60 * seconds)])
            run = await spread(lambda: call_paced(limiter, api), api, 1000, AT_ONCE)
            spending.cancel()
            return run

        run, name = live(main), f"beside one who spends half of 250 in {seconds:g} s: "
        yield Figure(f"{name}time / optimum", run.took / optimum(1000, [(125, seconds)]), 1.1)
        yield Figure(f"{name}429s", run.refused / run.sent, 0.15)


ROWS = (
    *(seven, sliding, outages, banned, refused_by_number, refused_at_random, used_hour, slow_lists, hanging),
    *(alone_each, shared, beside),
)
