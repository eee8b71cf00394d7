"""Probe /health of the given URLs until standard input ends, then print the latencies: ``web_probe.py URL ...``.

It is a separate process, so that other work does not disturb the measurement. It probes each URL on a schedule, even if
the last answer has not arrived. A latency counts from the scheduled time, so a server that stalls cannot hide it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter

import aiohttp

EVERY = 0.01  # s


async def main(urls: list[str]) -> dict[str, list[float]]:
    latencies: dict[str, list[float]] = {url: [] for url in urls}
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask(url: str, due: float) -> None:
            async with http.get(f"{url}/health") as answer:
                answer.raise_for_status()
                await answer.read()
            latencies[url].append(perf_counter() - due)

        for url in urls:  # open the connection first, so that it is not measured
            await ask(url, 0.0)
            latencies[url].clear()
        print("ready", flush=True)
        due = perf_counter()
        async with asyncio.TaskGroup() as asking:
            while not ended.done():
                for url in urls:
                    asking.create_task(ask(url, due))
                due += EVERY
                await asyncio.sleep(max(0.0, due - perf_counter()))
    return latencies


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1:]))))
