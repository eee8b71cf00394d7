"""Single calls beside a bulk run under the documented windows, in virtual time, beside a limiter without a reserve.

``benchmarks/limiters.py`` prints it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterable, Iterator
from unittest.mock import patch

from attrs import define, field

from aiodbclient import RateLimiter
from aiodbclient._pacing.limiter import Slots
from aiodbclient.errors import MaxWaitError
from pacing_table import AT_ONCE, Api, Figure, call_paced
from server_limiters import Windows
from tests.pacing.world import VirtualLoop, live, optimum

MINUTE, HOUR = 60.0, 3600.0
WARM = 630.0  # seconds of single calls before the run, which begins between two bursts
TEN_SECONDS = [10.0 * n for n in range(1_000)]
THIRTY_A_MINUTE = [2.0 * n for n in range(3_000)]
BURSTS = [at for n in range(100) for at in [random.Random(n).uniform(n, n + 1) * MINUTE] * 10]
FOUR_A_SECOND = [0.25 * n for n in range(4 * 1_200)]


@define
class Beside:
    """What a run and the single calls beside it took."""

    began: float  # the run, after the first single call
    ended: list[float] = field(factory=list)  # when each name of the run was done, after it began
    failed: dict[float, bool] = field(factory=dict)  # of each single call, by when it began, after the run did

    def failed_between(self, start: float, end: float) -> float:
        """The part of the single calls in these seconds that failed."""
        failed = [failed for at, failed in self.failed.items() if start <= at < end]
        return sum(failed) / len(failed)


def run_beside(count: int, calls: Iterable[float] = (), *, max_wait: float | None = 5.0, warm: float = 0.0) -> Beside:
    """Run ``count`` names, ``warm`` seconds after the first of the single ``calls``."""

    async def main(loop: VirtualLoop) -> Beside:
        random.seed(1)
        limiter, api = RateLimiter(), Api(Windows(loop.time), random.Random(1))
        first, beside = loop.time(), Beside(warm)

        async def call(at: float) -> None:
            await asyncio.sleep(at + random.uniform(0.0, 0.001))
            began = loop.time() - first - warm
            try:
                await call_paced(limiter, api, max_wait)
                beside.failed[began] = False
            except MaxWaitError:
                beside.failed[began] = True

        single = [asyncio.create_task(call(at)) for at in calls]
        await asyncio.sleep(warm)
        todo = iter(range(count))

        async def work() -> None:
            for _ in todo:
                await call_paced(limiter, api, bulk=True)
                beside.ended.append(loop.time() - first - warm)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        for task in single:
            task.cancel()
        await asyncio.gather(*single, return_exceptions=True)
        assert api.refused == 0
        return beside

    return live(main)


def without_reserve(count: int, calls: Iterable[float], *, max_wait: float = 5.0, warm: float = 0.0) -> Beside:
    with patch.object(Slots, "reserve", lambda slots, log, now: 0):
        return run_beside(count, calls, max_wait=max_wait, warm=warm)


def each_ten_seconds() -> Iterator[Figure]:
    for name, warm, at_most in (("cold", 0.0, 0.10), ("warm", WARM, 0.02)):
        ours, before = (run(5_500, TEN_SECONDS, warm=warm) for run in (run_beside, without_reserve))
        for when, start, end, most in (
            ("in 20 minutes", 0.0, 20 * MINUTE, at_most),
            ("hour used up", 20 * MINUTE, HOUR, 0.10),
        ):
            name_of = f"a single call each 10 s, {name}, {when}: failed"
            yield Figure(name_of, ours.failed_between(start, end), most, before.failed_between(start, end))


def bursts() -> Iterator[Figure]:
    ours, before = (run(4_500, BURSTS, max_wait=15.0, warm=WARM) for run in (run_beside, without_reserve))
    end = 15 * MINUTE
    yield Figure(
        "10 at once each minute, warm: failed", ours.failed_between(0, end), 0.05, before.failed_between(0, end)
    )


def thirty_a_minute() -> Iterator[Figure]:
    end = 20 * MINUTE
    for name, warm, at_most in (("cold", 0.0, 0.05), ("warm", WARM, 0.02)):
        ours, before = (run(4_700, THIRTY_A_MINUTE, warm=warm) for run in (run_beside, without_reserve))
        name = f"30 single calls a minute, {name}: failed"
        yield Figure(name, ours.failed_between(0, end), at_most, before.failed_between(0, end))


def alone() -> Iterator[Figure]:
    for count in (1_000, 5_000, 12_000):
        yield Figure(f"a run of {count:,} alone: time / optimum", run_beside(count).ended[-1] / optimum(count), 1.01)


def slower() -> Iterator[Figure]:
    for count in (5_000, 12_000):
        ours, before = (run(count, TEN_SECONDS) for run in (run_beside, without_reserve))
        name = f"a run of {count:,} beside a call each 10 s: time / without the reserve"
        yield Figure(name, ours.ended[-1] / before.ended[-1], 1.05, 1.0)


def many_calls() -> Iterator[Figure]:
    ours, before = (run(1_500, FOUR_A_SECOND) for run in (run_beside, without_reserve))
    shares = [sum(ended < 10 * MINUTE for ended in each.ended) / 10 for each in (ours, before)]
    yield Figure("4 single calls a second: minutes per 100 names of the run", 100 / shares[0], 1.0, 100 / shares[1])


def price() -> Iterator[Figure]:
    """Show what it costs: the page says it."""
    ours, before = (run(4_700, TEN_SECONDS, warm=WARM) for run in (run_beside, without_reserve))
    yield Figure("a run of 4,700 beside a call each 10 s: seconds", ours.ended[-1], math.inf, before.ended[-1])
    ours, before = (run(7_000, THIRTY_A_MINUTE) for run in (run_beside, without_reserve))
    yield Figure("a run of 7,000 beside 30 calls a minute: seconds", ours.ended[-1], math.inf, before.ended[-1])


ROWS = (each_ten_seconds, bursts, thirty_a_minute, alone, slower, many_calls)
