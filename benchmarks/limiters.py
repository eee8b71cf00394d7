"""Measure calls under rate limiters that differ from the provider's, beside a loop that honours ``retry-after``.

Each limiter is a server of its own on loopback. The client is a ``DatabaseClient`` as it comes, the loop is 16 workers
that sleep for ``retry-after`` (one second without it) and try again. Then 40 calls with ``max_wait=15`` meet up to
eleven 429s, and a run goes beside a second program that spends half of the documented limit, in scaled windows.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from time import monotonic, perf_counter

import aiohttp
from aiohttp import web
from attrs import define, field

from aiodbclient import DatabaseClient, RateLimiter, Window
from aiodbclient.errors import RateLimitError

CLUSTER = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
AT_ONCE = 16
Refusal = dict[str, str] | None  # the headers of a 429, or None where the request is accepted


def after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(max(1, math.ceil(seconds)))}


@define
class Bucket:
    """Refills by ``rate`` tokens a second up to ``size``."""

    rate: float
    size: float
    says_when: bool = True
    tokens: float = field(init=False)
    at: float = field(factory=monotonic, init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = self.size

    def enter(self) -> Refusal:
        now = monotonic()
        self.tokens, self.at = min(self.size, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < 1:
            return after((1 - self.tokens) / self.rate) if self.says_when else {}
        self.tokens -= 1
        return None

    def leave(self) -> None: ...


@define
class Fixed:
    """Accepts ``limit`` requests in each window of the clock."""

    limit: int
    seconds: float
    window: int = -1
    used: int = 0

    def enter(self) -> Refusal:
        window, passed = divmod(monotonic(), self.seconds)
        if window != self.window:
            self.window, self.used = int(window), 0
        if self.used >= self.limit:
            return after(self.seconds - passed)
        self.used += 1
        return None

    def leave(self) -> None: ...


@define
class Sliding:
    """Accepts ``limit`` requests in any span of ``seconds``. It can refuse some requests for no reason at first."""

    limit: int
    seconds: float
    refuses: int = 0
    accepted: deque[float] = field(factory=deque)

    def enter(self) -> Refusal:
        now = monotonic()
        while self.accepted and self.accepted[0] <= now - self.seconds:
            self.accepted.popleft()
        if self.refuses:
            self.refuses -= 1
            return after(1)
        if len(self.accepted) >= self.limit:
            wait = self.accepted[0] + self.seconds - now
            return after(wait) if self.seconds >= 60 else {"retry-after": f"{max(0.001, wait):.3f}"}
        self.accepted.append(now)
        return None

    def leave(self) -> None: ...


@define
class InFlight:
    """Accepts ``limit`` requests at a time."""

    limit: int
    held: int = 0

    def enter(self) -> Refusal:
        if self.held >= self.limit:
            return after(1)
        self.held += 1
        return None

    def leave(self) -> None:
        self.held -= 1


Limiter = Bucket | Fixed | Sliding | InFlight

LIMITERS: dict[str, tuple[Callable[[], Limiter], int]] = {  # and how many calls
    "bucket of 20 a second": (lambda: Bucket(20, 20), 120),
    "the same, without retry-after": (lambda: Bucket(20, 20, says_when=False), 120),
    "20 in each second": (lambda: Fixed(20, 1.0), 120),
    "60 in each 5 s": (lambda: Fixed(60, 5.0), 200),
    "4 in flight": (lambda: InFlight(4), 200),
    "10 in each 10 s": (lambda: Fixed(10, 10.0), 60),
    "30 in any 4 s": (lambda: Sliding(30, 4.0), 150),
}


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
            await asyncio.sleep(0.08 if isinstance(self.limiter, InFlight) else 0.02)
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
            except RateLimitError:
                failed += 1

        await spread(call, count, at_once)
    return perf_counter() - started, failed


async def compare(name: str, make: Callable[[], Limiter], count: int) -> None:
    async with serve(make()) as api, serve(make()) as other:
        (seconds, failed), loop = await asyncio.gather(by_client(api, count), by_loop(other, count))
    print(
        f"  {name:30} {count:>4} calls  loop {loop:6.2f} s {other.refused:>4} x 429   aiodbclient {seconds:6.2f} s "
        f"{api.refused:>4} x 429  {seconds / loop:5.2f} x loop  {failed} failed",
        flush=True,
    )


async def patient(refusals: int) -> None:
    async with serve(Sliding(250, 60.0, refuses=refusals)) as api:
        seconds, failed = await by_client(api, 40, max_wait=15)
    overtaken = sum(later > earlier for n, later in enumerate(api.names) for earlier in api.names[n + AT_ONCE :])
    print(
        f"  max_wait=15, 40 calls, {refusals:>2} x 429: {seconds:5.2f} s, {failed} failed, "
        f"{overtaken} went {AT_ONCE} or more places before an earlier one",
        flush=True,
    )


async def beside(scale: float, count: int = 1000) -> None:
    seconds = 60 * scale
    async with serve(Sliding(250, seconds)) as api:

        async def spend() -> None:
            async with aiohttp.ClientSession(headers={"x-other": "yes"}) as session:
                while True:
                    async with session.get(f"{api.url}/other"):
                        pass
                    await asyncio.sleep(seconds / 125)

        spending = asyncio.create_task(spend())
        await asyncio.sleep(seconds)
        budget = RateLimiter([Window(250, seconds), Window(5000, 60 * seconds)])
        took, failed = await by_client(api, count, rate_limiter=budget)
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
    await asyncio.gather(*(compare(name, make, count) for name, (make, count) in LIMITERS.items()))
    for refusals in (1, 3, 11):
        await patient(refusals)
    await beside(options.scale)


if __name__ == "__main__":
    asyncio.run(main())
