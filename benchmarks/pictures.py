"""Draw the diagrams of the site from measurements.

``paced-run.svg``: 1,000 creates under a limit of 250 per window, as the server received them: from this client, and
from the usual recipe of backoff and a limiter. The window is 5 seconds instead of the provider's minute.

``rotation.svg``: the queries of four programs while their login gets a new password: by ``tenants.rotate`` and
``tenants.revoke_previous``, and by ``users.rotate``. Each program reads the stored credential every few seconds, and
opens a new connection to the sandbox's PostgreSQL for each query.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from time import monotonic

import matplotlib as mpl
import psycopg
from attrs import define, field
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aiodbclient import Cluster, Connection, DatabaseClient, User, UsersAPI
from aiodbclient.sandbox import RecordedRequest, Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants
from pacing import LIMIT, Api, windows, with_aiodbclient, with_recipe

CREATES = 1000
CLIENTS = {"aiodbclient": with_aiodbclient, "the usual recipe": with_recipe}
COLOURS = dict(zip(CLIENTS, ("#2a78d6", "#d97706"), strict=True))
GREY = "#808080"  # readable on light and on dark
FIRST, SECOND, REFUSED = "#2a78d6", "#2e9e5b", "#d62728"
MET = {
    FIRST: ("answered, old credential", "o"),
    SECOND: ("answered, new credential", "o"),
    REFUSED: ("refused", "x"),
}

PROGRAMS = 4
ROTATE, REVOKE, END = 2.0, 8.0, 10.0  # seconds
REREAD, PAUSE = 4.0, 0.1  # seconds between two reads of the credential, and between two queries of a program


async def run(sandbox: Sandbox, window: float, client: str) -> Sequence[RecordedRequest]:
    """The requests that the server received for ``CREATES`` creates started at once."""
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
    above.step(bursts, range(1, CREATES + 1), where="post", color=GREY, linestyle=":", label="the limit")
    above.set_ylabel("users created")
    above.legend(loc="lower right", frameon=False, labelcolor=GREY)
    below.set_ylabel("answers of 429")
    below.set_xlabel(f"seconds; the limit is {LIMIT} requests in any {window:g} of them")
    save(figure, folder / "paced-run.svg")


@define
class Tenant:
    """A tenant. Its login changes without an outage."""

    tenants: Tenants

    async def uri(self) -> str:
        return (await self.tenants.ensure("alpha")).uri

    async def change(self, clock: Clock) -> None:
        await clock.until(ROTATE)
        assert [outcome.error is None async for outcome in self.tenants.rotate(["alpha"])] == [True]
        await clock.until(REVOKE)
        assert [outcome.error is None async for outcome in self.tenants.revoke_previous(["alpha"])] == [True]


@define
class PlainUser:
    """A user with one login that gets a new password."""

    users: UsersAPI
    connection: Connection
    user: User

    async def uri(self) -> str:
        return self.connection.uri_for(self.user)

    async def change(self, clock: Clock) -> None:
        await clock.until(ROTATE)
        async for outcome in self.users.rotate(["alpha"]):
            assert outcome.error is None
            self.user = outcome.user


@define
class Clock:
    """The seconds since it was created."""

    start: float = field(factory=monotonic)

    def now(self) -> float:
        return monotonic() - self.start

    async def until(self, second: float) -> None:
        await asyncio.sleep(second - self.now())


@define
class Queries:
    """The queries of programs that use ``login`` while it changes: time, program, and a colour for the result."""

    login: Tenant | PlainUser
    seen: list[tuple[float, int, str]] = field(factory=list)

    async def run(self) -> Queries:
        first, clock = await self.login.uri(), Clock()
        async with asyncio.TaskGroup() as group:
            for number in range(1, PROGRAMS + 1):
                group.create_task(self.program(number, first, clock))
            await self.login.change(clock)
        return self

    async def program(self, number: int, first: str, clock: Clock) -> None:
        uri, next_look = first, REREAD * number / PROGRAMS  # each program reads at different times
        while (at := clock.now()) < END:
            if at >= next_look:
                uri, next_look = await self.login.uri(), next_look + REREAD
            try:
                async with await psycopg.AsyncConnection.connect(uri) as connection:
                    await connection.execute("SELECT 1")
                colour = FIRST if uri == first else SECOND
            except psycopg.OperationalError:
                colour = REFUSED
            self.seen.append((at, number, colour))
            await asyncio.sleep(PAUSE)

    def draw(self, axes: Axes, title: str) -> None:
        for colour, (label, marker) in MET.items():
            times = [at for at, _, met in self.seen if met == colour]
            programs = [number for _, number, met in self.seen if met == colour]
            axes.scatter(times, programs, s=12, c=colour, marker=marker, linewidths=1, label=label)
            print(f"{title}: {len(times)} queries {label}")
        axes.set_title(title, color=GREY, loc="left", fontsize=10, pad=16)  # above the labels of rotate and revoke
        axes.set_yticks(range(1, PROGRAMS + 1))
        axes.set_ylim(0.4, PROGRAMS + 0.6)
        axes.set_ylabel("program")


async def rotated_tenant() -> Queries:
    with tempfile.TemporaryDirectory() as folder:
        async with cluster() as here, SQLiteStore(Path(folder) / "tenants.db") as store:
            return await Queries(Tenant(Tenants(here, store))).run()


async def reset_user() -> Queries:
    async with cluster() as here:
        connection = (await here.info()).connection
        return await Queries(PlainUser(here.users, connection, await here.users.create("alpha"))).run()


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    async with Sandbox() as sandbox, DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
        yield client.cluster(await sandbox.add_cluster("pg"))


async def rotation(folder: Path) -> None:
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 4.6))
    (await rotated_tenant()).draw(above, "tenants.rotate, then tenants.revoke_previous")
    (await reset_user()).draw(below, "users.rotate")
    for axes, second, label in (
        (above, ROTATE, "rotate"),
        (above, REVOKE, "revoke-previous"),
        (below, ROTATE, "rotate"),
    ):
        axes.axvline(second, color=GREY, linestyle=":")
        axes.annotate(label, (second, PROGRAMS + 0.65), color=GREY, ha="center", fontsize=9, annotation_clip=False)
    below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3, frameon=False, labelcolor=GREY)
    below.set_xlabel(f"seconds; each program reads its credential every {REREAD:g} seconds")
    save(figure, folder / "rotation.svg")


def save(figure: Figure, path: Path) -> None:
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
    parser.add_argument("--window", type=float, default=5.0, help="seconds to use instead of the provider's minute")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures")
    arguments = parser.parse_args()
    mpl.rcParams.update({"font.family": "sans-serif", "svg.hashsalt": "aiodbclient", "svg.fonttype": "none"})
    asyncio.run(paced_run(arguments.window, arguments.folder))
    asyncio.run(rotation(arguments.folder))


if __name__ == "__main__":
    main()
