"""Clients, latency and other traffic on a server with its own count, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator

import pytest
from attrs import define
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aiodbclient import RateLimiter
from aiodbclient.rate_limiter import Window
from beside_run import ROWS as ROWS_BESIDE_RUN
from pacing_table import ROWS, Api, Figure, Run, call_paced, spread
from server_limiters import Windows

from .world import VirtualLoop, live, optimum


@define
class Request:
    """One call of the plan, and its result."""

    gap: float  # seconds after the previous one
    there: float  # seconds on the way to the server
    back: float
    cancelled_after: float | None
    wanted: float = 0.0
    sent: float | None = None
    ended: float = 0.0
    left: float | None = None  # when it was cancelled while it waited


seconds = st.floats(0.0001, 2.0)  # never 0: otherwise rounding would decide the order
requests = st.builds(
    Request,
    gap=st.just(0.0) | seconds | st.floats(0.0, 20.0),
    there=seconds,
    back=seconds,
    cancelled_after=st.none() | st.floats(0.0, 30.0),
)
several_windows = st.lists(
    st.builds(Window, limit=st.integers(1, 15), seconds=st.floats(0.5, 40.0)), min_size=1, max_size=3
)


def in_order(windows: list[Window]) -> list[tuple[int, float]]:
    return [(window.limit, window.seconds) for window in sorted(windows, key=lambda window: window.seconds)]


async def make_calls(
    plan: list[Request], call: Callable[[Request], Coroutine[None, None, None]], loop: VirtualLoop
) -> list[BaseException | None]:
    """Make the calls of ``plan`` at their times, cancel some, and return how each ended."""
    tasks: list[asyncio.Task[None]] = []
    cancels: list[asyncio.TimerHandle] = []
    for request in plan:
        await asyncio.sleep(request.gap)
        tasks.append(asyncio.create_task(call(request)))
        if request.cancelled_after is not None:
            cancels.append(loop.call_later(request.cancelled_after, tasks[-1].cancel))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for cancel in cancels:
        cancel.cancel()
    return results


def longest_idleness(plan: list[Request], windows: list[Window]) -> float:
    """The longest time that a slot was free while a caller waited. A slot is taken until its answer expires."""
    sent = [request for request in plan if request.sent is not None]
    moments = {request.wanted for request in plan} | {request.sent for request in sent if request.sent is not None}
    moments |= {request.ended + window.seconds for request in sent for window in windows}
    moments |= {request.left for request in plan if request.left is not None}
    longest, since = 0.0, None
    for moment in sorted(moments):
        waits = any(r.wanted <= moment and (r.sent is None or r.sent > moment) and not _left(r, moment) for r in plan)
        free = all(
            sum(r.sent is not None and r.sent <= moment < r.ended + window.seconds for r in sent) < window.limit
            for window in windows
        )
        if since is not None:
            longest = max(longest, moment - since)
        since = (moment if since is None else since) if waits and free else None
    return longest


def _left(request: Request, moment: float) -> bool:
    return request.sent is None and request.left is not None and request.left <= moment


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=1, max_size=60), several_windows)
@example([Request(0.0, 0.001, 0.001, None) for _ in range(40)], [Window(5, 1.0), Window(15, 10.0)])
@example(
    [
        Request(*times, None)
        for times in ((0.0, 1.0, 0.5), (5.0, 1.0, 0.5), (0.0, 2.0, 0.5), (1.0, 0.5, 1.0), (6.0, 1.0, 1.0))
    ],
    [Window(2, 4.0)],
)  # a slot of ours expires while an answer that fills the window is on its way
def test_alone_no_429_and_no_idle_slot(plan: list[Request], windows: list[Window]) -> None:
    """Alone, no request meets a 429, and no slot is idle for longer than a round trip."""

    async def main(loop: VirtualLoop) -> None:
        server, limiter = Windows(loop.time, in_order(windows)), RateLimiter(windows)

        async def call(request: Request) -> None:
            request.wanted = loop.time()
            try:
                slot = await limiter.acquire()
            except asyncio.CancelledError:
                request.left = loop.time()
                raise
            request.sent = loop.time()
            try:
                await asyncio.sleep(request.there)
                assert server.enter() is None, "alone, and refused"
                await asyncio.sleep(request.back)
                limiter.release(slot, accepted=True)
            finally:
                limiter.release(slot)
                request.ended = loop.time()

        results = await make_calls(plan, call, loop)
        assert not [result for result in results if result and not isinstance(result, asyncio.CancelledError)]
        assert (limiter.snapshot().in_flight, limiter.snapshot().waiting, loop.timers()) == (0, 0, 0)

    live(main)
    round_trip = max(request.there + request.back for request in plan)
    assert longest_idleness(plan, windows) <= round_trip + 0.001


@settings(max_examples=100, deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=30),
    several_windows,
    st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 15)), max_size=20),
)
@example(
    [Request(1.0, 1.0, 1.0, None), Request(0.5, 1.0, 1.0, None)], [Window(2, 16.5)], [(1.5, 1), (19.0, 2)]
)  # refused again and again, with no slot of our own
def test_all_calls_go_soon_after_others_stop(
    plan: list[Request], windows: list[Window], others: list[tuple[float, int]]
) -> None:
    async def main(loop: VirtualLoop) -> None:
        server = Windows(loop.time, in_order(windows), whole=False)
        limiter, draw = RateLimiter(windows), random.Random(1)

        async def interfere() -> None:
            for gap, count in others:
                await asyncio.sleep(gap)
                for _ in range(count):
                    server.enter()

        async def call(request: Request) -> None:
            await call_paced(limiter, Api(server, draw, request.there, request.there))

        start = loop.time()
        traffic = asyncio.create_task(interfere())
        await make_calls(plan, call, loop)
        took = loop.time() - start
        await traffic
        alone = optimum(len(plan), in_order(windows)) + sum(request.gap for request in plan) + 4.0 * len(plan)
        assert took <= alone + sum(gap for gap, _ in others) + 4 * (in_order(windows)[-1][1] + 1)
        assert (limiter.snapshot().in_flight, limiter.snapshot().waiting, loop.timers()) == (0, 0, 0)

    live(main)


LONGER = pytest.mark.thorough


@pytest.mark.parametrize("at_once", [16, 2000])
@pytest.mark.parametrize(
    ("count", "scale"),
    [(1000, 0.05), (5600, 1.0), *(pytest.param(*each, marks=LONGER) for each in [(1000, 1.0), (1500, 0.05)])],
)
def test_batch_takes_the_least_time(count: int, scale: float, at_once: int) -> None:
    """A batch takes the least time that the limits allow: the documented ones, with windows times ``scale``."""
    windows = (250, 60.0 * scale), (5000, 3600.0 * scale)

    async def main(loop: VirtualLoop) -> Run:
        server = Windows(loop.time, windows, whole=scale == 1.0)
        server.seconds = 0.0
        api = Api(server, random.Random(1), 0.025 * scale, 0.15 * scale)
        limiter = RateLimiter([Window(*window) for window in windows])
        return await spread(lambda: call_paced(limiter, api), api, count, at_once)

    run = live(main)
    assert (run.refused, run.failed, len(run.calls)) == (0, 0, count)
    assert run.took <= 1.03 * optimum(count, windows)


# The known weak spot: where the window is short, each wait that the API names ends in another 429 beside others.
KNOWN = {"beside one who spends half of 250 in 15 s: 429s": 0.21}


@pytest.mark.parametrize("row", [*ROWS, *ROWS_BESIDE_RUN], ids=lambda row: row.__name__)
def test_row_within_bounds(row: Callable[[], Iterator[Figure]]) -> None:
    """``benchmarks/limiters.py`` prints the table."""
    figures = list(row())
    assert figures
    assert not [figure for figure in figures if figure.ours > KNOWN.get(figure.name, figure.at_most)]
