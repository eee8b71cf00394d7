"""A run reads its iterable of names as it goes, and no faster than its outcomes are taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aiodbclient import Cluster, errors
from aiodbclient.sandbox import Sandbox

from ..waiting import until
from .truth import requests

CONCURRENCY = 4
Make = Callable[[Iterator[str]], Any]


async def as_async(names: Iterator[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


BOTH = pytest.mark.parametrize("given", [iter, as_async])


@BOTH
async def test_names_are_pulled_as_outcomes_are_taken(sandbox: Sandbox, pg: Cluster, given: Make) -> None:
    """A slow loop slows the pulling and the sending."""
    pulled = taken = 0

    def names() -> Iterator[str]:
        nonlocal pulled
        for n in range(100):
            pulled += 1
            yield f"t{n}"

    async for _ in pg.users.provision(given(names()), concurrency=CONCURRENCY):
        taken += 1
        if taken == 1:
            await until(lambda: requests(sandbox, "users.create") == 2 * CONCURRENCY)
            for _ in range(50):  # in which the sandbox runs too
                await asyncio.sleep(0.001)
            assert requests(sandbox, "users.create") == 2 * CONCURRENCY
        assert pulled - taken < 2 * CONCURRENCY
        assert requests(sandbox, "users.create") - taken < 2 * CONCURRENCY
    assert pulled == taken == 100


@BOTH
async def test_iterable_that_raises(sandbox: Sandbox, pg: Cluster, given: Make) -> None:
    """The loop first yields the outcomes of the names before, then raises the error."""
    sandbox.faults.add("users.create", delay=0.05)
    names = set[str]()

    def broken() -> Iterator[str]:
        yield "a"
        yield "b"
        raise OSError("the disk is gone")

    async def consume() -> None:
        async for outcome in pg.users.provision(given(broken())):
            names.add(outcome.name)

    with pytest.raises(OSError, match="the disk is gone"):
        await consume()
    assert names == {"a", "b"}


async def test_iterator_that_raises_once(sandbox: Sandbox, pg: Cluster) -> None:
    """Nothing is pulled after its exception, although it would go on."""

    class Flaky:
        calls = 0

        def __iter__(self) -> Flaky:
            return self

        def __next__(self) -> str:
            self.calls += 1
            if self.calls == 3:
                raise OSError("once")
            return f"t{self.calls}"

    with pytest.raises(OSError, match="once"):
        await pg.users.provision(Flaky(), concurrency=1)
    assert requests(sandbox, "users.create") == 2


async def test_iterable_that_raises_stop_async_iteration(pg: Cluster) -> None:
    """The run does not end as if these were all names."""

    def specs() -> Iterator[str]:
        yield "a"
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        await pg.users.provision(specs())


async def test_iterable_that_is_cancelled(pg: Cluster) -> None:
    """As after it awaited a cancelled producer: the run does not end as if these were all names."""

    async def specs() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError

    with pytest.raises(errors.DatabaseClientError, match="was cancelled"):
        await pg.users.provision(specs())
    assert {user.name for user in await pg.users.list()} == {"doadmin", "a"}


@pytest.mark.parametrize("specs", ["a name", b"bytes", 5, None])
async def test_no_iterable_is_refused_at_once(pg: Cluster, specs: Any) -> None:
    for make in (pg.users.provision, pg.users.rotate, pg.users.deprovision, pg.dbs.provision, pg.dbs.deprovision):
        with pytest.raises(errors.InvalidArgumentError, match="iterable of names"):
            make(specs)


async def test_invalid_options_are_refused_at_once(pg: Cluster) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="if_exists"):
        pg.users.provision(["a"], if_exists="replace")  # type: ignore[arg-type]
    for concurrency in (0, -1, True, 1.5, "4"):
        with pytest.raises(errors.InvalidArgumentError, match="concurrency"):
            pg.users.provision(["a"], concurrency=concurrency)  # type: ignore[arg-type]
