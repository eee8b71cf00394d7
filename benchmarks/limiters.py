"""Print the table of pacing: rate limiters that differ from the provider's, each beside a plain loop.

    PYTHONPATH=. python benchmarks/limiters.py

In real time: each limiter is a server of its own on loopback, the client is a ``DatabaseClient`` as it comes, and the
loop is 16 workers that sleep for ``retry-after`` (one second without it) and try again. Then a run goes beside a second
program that spends half of the documented limit, in scaled windows. In virtual time: the rows of
``pacing_table.py`` and ``beside_run.py``, which the tests check too.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from statistics import mean
from time import monotonic, perf_counter

import aiohttp
from aiohttp import web
from attrs import define, field

import beside_run
from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.errors import MaxWaitError, RateLimitError
from aiodbclient.rate_limiter import Window
from pacing_table import ROWS, Figure
from server_limiters import LIMITERS, Limiter, Sliding

CLUSTER = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
AT_ONCE = 16


@define
class Api:
    """A server behind a limiter. It notes the names in the order in which it accepted them."""

    limiter: Limiter
    url: str = ""
    names: list[str] = field(factory=list)
    refused: int = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        refusal = self.limiter.enter()
        if refusal is not None:
            self.refused += request.headers.get("x-other") is None
            return web.json_response({"id": "too_many_requests", "message": "slow"}, status=429, headers=refusal)
        try:
            await asyncio.sleep(self.limiter.seconds)
            name = request.path.rsplit("/", 1)[1]
            self.names.append(name)
            return web.json_response({"user": {"name": name, "role": "normal"}})
        finally:
            self.limiter.leave()


@asynccontextmanager
async def serve(limiter: Limiter) -> AsyncIterator[Api]:
    api = Api(limiter)
    runner = web.ServerRunner(web.Server(api.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()


async def spread(call: Callable[[str], Awaitable[object]], count: int, at_once: int = AT_ONCE) -> None:
    names: Iterator[str] = (f"user{n:04}" for n in range(count))

    async def work() -> None:
        for name in names:
            await call(name)

    await asyncio.gather(*(work() for _ in range(at_once)))


async def by_loop(api: Api, count: int) -> float:
    started = perf_counter()
    async with aiohttp.ClientSession() as session:

        async def call(name: str) -> None:
            while True:
                async with session.get(f"{api.url}/v2/databases/{CLUSTER}/users/{name}") as response:
                    if response.status == 200:
                        return
                    wait = float(response.headers.get("retry-after", 1))
                await asyncio.sleep(wait)

        await spread(call, count)
    return perf_counter() - started


async def by_client(api: Api, count: int, at_once: int = AT_ONCE, **options: object) -> tuple[float, int]:
    """Returns the seconds, and how many calls failed."""
    started, failed = perf_counter(), 0
    async with DatabaseClient("token", base_url=api.url, **options) as client:  # type: ignore[arg-type]
        users = client.cluster(CLUSTER, engine="pg").users

        async def call(name: str) -> None:
            nonlocal failed
            try:
                await users.get(name)
            except (RateLimitError, MaxWaitError):
                failed += 1

        await spread(call, count, at_once)
    return perf_counter() - started, failed


async def compare(name: str, limiter: Limiter, other: Limiter, count: int) -> tuple[float, float]:
    """Returns the client's time and 429s, as parts of the loop's."""
    async with serve(limiter) as api, serve(other) as beside:
        (seconds, failed), loop = await asyncio.gather(by_client(api, count), by_loop(beside, count))
    print(
        f"  {name:30} {count:>4} calls  loop {loop:6.2f} s {beside.refused:>4} x 429   aiodbclient {seconds:6.2f} s "
        f"{api.refused:>4} x 429  {seconds / loop:5.2f} x loop  {failed} failed",
        flush=True,
    )
    return seconds / loop, api.refused / beside.refused


async def beside(scale: float, count: int = 1000) -> None:
    seconds = 60 * scale
    async with serve(Sliding(monotonic, 250, seconds, whole=True)) as api:

        async def spend() -> None:
            async with aiohttp.ClientSession(headers={"x-other": "yes"}) as session:
                while True:
                    async with session.get(f"{api.url}/other"):
                        pass
                    await asyncio.sleep(seconds / 125)

        spending = asyncio.create_task(spend())
        await asyncio.sleep(seconds)
        limiter = RateLimiter([Window(250, seconds), Window(5000, 60 * seconds)])
        took, failed = await by_client(api, count, rate_limiter=limiter)
        spending.cancel()
        await asyncio.wait([spending])
    best = (count - 1) // 125 * seconds
    print(
        f"  beside one who spends half of 250 in {seconds:g} s: {count} calls {took:.1f} s, {took / best:.2f} x the "
        f"optimum, {api.refused} x 429 ({100 * api.refused / (count + api.refused):.1f} %), {failed} failed",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="length of the documented windows")
    options = parser.parse_args()
    logging.disable()  # of long waits
    print("In real time. The seven: at most 1.3 of the loop's time, and 0.5 of its 429s")
    parts = await asyncio.gather(
        *(compare(name, make(monotonic), make(monotonic), count) for name, (make, count) in LIMITERS.items())
    )
    times, refused = zip(*parts, strict=True)
    print(f"  mean: {mean(times):.2f} x loop, {mean(refused):.2f} x its 429s")
    await beside(options.scale)


def print_rows(rows: Iterable[Callable[[], Iterator[Figure]]], other: str) -> None:
    print(f"  {'':70} {other:>8} {'ours':>8} {'at most':>8}")
    for row in rows:
        for figure in row():
            loop = "" if figure.loop is None else f"{figure.loop:.2f}"
            verdict = "" if figure.holds else "  MISSES"
            print(f"  {figure.name:70} {loop:>8} {figure.ours:8.3f} {figure.at_most:8.2f}{verdict}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    print("In virtual time, beside a plain loop")
    print_rows(ROWS, "loop")
    print("In virtual time, single calls beside a bulk run, and a limiter without a reserve")
    print_rows((*beside_run.ROWS, beside_run.price), "without")
