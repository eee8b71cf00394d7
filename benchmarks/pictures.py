"""Draw what the site shows: measured here and now, never typed in.

``paced-run.svg``: 1,000 creates under a limit of 250 in a window, as the server saw them: by this client, and by the
usual recipe of backoff and a limiter. The window is 5 seconds instead of the provider's minute.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from pacing import LIMIT, Api, windows, with_aiodbclient, with_recipe

from aiodbclient.sandbox import RecordedRequest, Sandbox

CREATES = 1000
CLIENTS = {"aiodbclient": with_aiodbclient, "the usual recipe": with_recipe}
COLOURS = dict(zip(CLIENTS, ("#2a78d6", "#d97706"), strict=True))
GREY = "#808080"  # readable on light and on dark


async def run(sandbox: Sandbox, window: float, client: str) -> Sequence[RecordedRequest]:
    """What the server saw of ``CREATES`` creates that were asked for at once."""
    cluster = await sandbox.add_cluster("pg", backend="memory")
    async with CLIENTS[client](Api(sandbox.url, sandbox.token, cluster, window)) as create:
        await asyncio.gather(*(create(f"user{number}") for number in range(CREATES)), return_exceptions=True)
    return list(sandbox.requests)


async def paced_run(window: float, folder: Path) -> None:
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 5.5), height_ratios=[3, 1])
    for client, colour in COLOURS.items():
        async with Sandbox(windows=windows(window)) as sandbox:
            requests = await run(sandbox, window, client)
        start = requests[0].at
        done = [request.at - start for request in requests if request.status == 201]
        refused = [request.at - start for request in requests if request.status == 429]
        above.step(done, range(1, len(done) + 1), where="post", color=colour, linewidth=2, label=client)
        counts = list(accumulate([1] * len(refused)))
        below.step([0, *refused, done[-1]], [0, *counts, len(refused)], where="post", color=colour, linewidth=2)
        print(f"{client}: {len(done)} created in {done[-1]:.2f} s, {len(refused)} answers of 429")
    bursts = [number // LIMIT * window for number in range(CREATES)]
    above.step(bursts, range(1, CREATES + 1), where="post", color=GREY, linestyle=":", label="the limit allows no more")
    above.set_ylabel("users created")
    above.legend(loc="lower right", frameon=False, labelcolor=GREY)
    below.set_ylabel("answers of 429")
    below.set_xlabel(f"seconds, with {LIMIT} requests allowed in any {window:g} of them")
    save(figure, folder / "paced-run.svg")


def save(figure: plt.Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.tick_params(colors=GREY)
        axes.xaxis.label.set_color(GREY)
        axes.yaxis.label.set_color(GREY)
        axes.grid(color=GREY, alpha=0.2)
        for spine in axes.spines.values():
            spine.set_color(GREY)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window", type=float, default=5.0, help="seconds that stand for the provider's minute")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures")
    arguments = parser.parse_args()
    mpl.rcParams.update({"font.family": "sans-serif", "svg.hashsalt": "aiodbclient", "svg.fonttype": "none"})
    asyncio.run(paced_run(arguments.window, arguments.folder))


if __name__ == "__main__":
    main()
