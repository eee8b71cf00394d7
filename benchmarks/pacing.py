"""Measure 1,000 and 1,500 creates under the rate limit, compared with pydo and with the usual recipe.

The provider's windows are scaled: 250 requests in WINDOW seconds instead of 60. The server is a sandbox in another
process, and all creates start at once. The optimum is the earliest time at which the last request may be sent: the k-th
request may be sent once the (k-250)-th is one window old.

A second series runs while another client evenly spends half of the limit. A client that is faster than the optimum
there has taken requests from the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, cast

import aiohttp
import backoff
from aiolimiter import AsyncLimiter
from attrs import define, frozen

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox

LIMIT = 250


@frozen
class Api:
    """A sandbox in another process."""

    url: str
    token: str
    cluster: str
    window: float
    pipe: Connection | None = None

    def counts(self) -> Counter[tuple[str | None, int | None]]:
        """The number of requests that it received, by operation and status."""
        assert self.pipe is not None
        self.pipe.send("counts")
        return cast("Counter[tuple[str | None, int | None]]", self.pipe.recv())


def serve(pipe: Connection, windows: list[Window]) -> None:
    async def main() -> None:
        async with Sandbox(windows=windows) as sandbox:
            cluster = await sandbox.add_cluster("pg", backend="memory")
            pipe.send((sandbox.url, sandbox.token, cluster))
            while await asyncio.to_thread(pipe.recv) == "counts":
                pipe.send(sandbox.counts)

    asyncio.run(main())


@contextmanager
def api(window: float) -> Iterator[Api]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, windows(window)))
    process.start()
    url, token, cluster = ours.recv()
    try:
        yield Api(url, token, cluster, window, ours)
    finally:
        ours.send("stop")
        process.join(5)


def windows(window: float) -> list[Window]:
    return [Window(LIMIT, window), Window(5000, 60 * window)]


Create = Callable[[str], Awaitable[Any]]


@asynccontextmanager
async def with_aiodbclient(api: Api) -> AsyncIterator[Create]:
    async with DatabaseClient(api.token, base_url=api.url, rate_limiter=RateLimiter(windows(api.window))) as client:
        yield client.cluster(api.cluster, engine="pg").users.create


@asynccontextmanager
async def with_recipe(api: Api) -> AsyncIterator[Create]:
    """The usual combination of aiohttp, aiolimiter and backoff."""
    limiter = AsyncLimiter(LIMIT, api.window)
    users = f"{api.url}/v2/databases/{api.cluster}/users"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {api.token}"}) as session:

        @backoff.on_exception(
            backoff.expo, aiohttp.ClientResponseError, max_tries=8, factor=api.window / 60, logger=None
        )
        async def create(name: str) -> Any:
            async with limiter, session.post(users, json={"name": name}) as response:
                response.raise_for_status()
                return await response.json()

        yield create


@asynccontextmanager
async def with_pydo(api: Api) -> AsyncIterator[Create]:
    from pydo.aio import Client

    client = Client(api.token, endpoint=api.url)
    try:
        yield lambda name: client.databases.add_user(api.cluster, {"name": name}, enforce_https=False)
    finally:
        await client.close()


CLIENTS = {"aiodbclient": with_aiodbclient, "recipe": with_recipe, "pydo": with_pydo}


@define
class Another:
    """Another client with the same token. It lists the dbs at half of the permitted rate, whatever the answer."""

    api: Api
    sent: int = 0
    refused: int = 0

    async def spend(self) -> None:
        dbs = f"{self.api.url}/v2/databases/{self.api.cluster}/dbs"
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.api.token}"}) as session:
            while True:
                async with session.get(dbs) as response:
                    self.sent += 1
                    self.refused += response.status == 429
                await asyncio.sleep(2 * self.api.window / LIMIT)


async def measure(name: str, api: Api, count: int, *, shared: bool) -> None:
    another = Another(api)
    async with CLIENTS[name](api) as create:
        spending = asyncio.create_task(another.spend()) if shared else None
        if spending:
            await asyncio.sleep(api.window)
        started = perf_counter()
        answers = await asyncio.gather(*(create(f"user{n}") for n in range(count)), return_exceptions=True)
        seconds = perf_counter() - started
        if spending:
            spending.cancel()
            with suppress(asyncio.CancelledError):
                await spending
    created = sum(
        "user" in answer if isinstance(answer, dict) else not isinstance(answer, BaseException) for answer in answers
    )
    counts = api.counts()
    throttled = sum(number for (_, status), number in counts.items() if status == 429) - another.refused
    sent = sum(counts.values()) - another.sent
    room = LIMIT // 2 if shared else LIMIT
    optimum = (count - 1) // room * api.window
    print(
        f"  {name:<12} {count:>5} creates {seconds:>7.2f} s  {seconds / optimum:>5.3f} x optimum  "
        f"{throttled:>5} of {sent:>5} requests got a 429  {count - created:>4} failed",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window", type=float, default=5.0, help="seconds to use instead of the provider's minute")
    parser.add_argument("--clients", nargs="*", default=list(CLIENTS), choices=list(CLIENTS))
    parser.add_argument("--counts", nargs="*", type=int, default=[1000, 1500])
    arguments = parser.parse_args()
    for shared in (False, True):
        print(
            "\nanother client spends half of the limit"
            if shared
            else f"\nalone, {LIMIT} requests in {arguments.window:g} s"
        )
        for count in arguments.counts:
            for name in arguments.clients:
                with api(arguments.window) as server:
                    asyncio.run(measure(name, server, count, shared=shared))


if __name__ == "__main__":
    main()
