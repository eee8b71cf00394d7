"""A pool for each tenant, in virtual time: opened once, never more than ``max_pools``, never closed while in use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from itertools import count
from math import inf, nan
from typing import Any

import pytest
from attrs import define, evolve, field

from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import Credential, TenantPools
from aiodbclient.tenants.errors import StoreError, TenantNotFoundError

from ...pacing.world import VirtualLoop, live
from ..store_contract import a_credential


@define(eq=False)
class Pool:
    """A driver's pool. ``uses`` counts its current users."""

    credential: Credential
    state: str = "open"
    uses: int = 0

    @property
    def password(self) -> str | None:
        return self.credential.password


class Refused(Exception):
    """A driver's error for a refused login."""


@define
class World:
    """A store with credentials, a server that accepts some of them, and a driver."""

    most: int = 3
    opening: float = 0.1  # s
    closing: float = 0.1
    reading: float = 0.01
    on_record: dict[str, Credential] = field(factory=dict)
    refused: set[str | None] = field(factory=set)  # passwords
    broken: str = ""  # "store", "open" or "close"
    there: list[Pool] = field(factory=list)  # includes pools that are being opened or closed
    opened: list[Pool] = field(factory=list)
    closed: list[Pool] = field(factory=list)
    reads: int = 0
    half_open: int = 0
    in_a_hurry: bool = False  # the exit was cancelled, so pools in use are closed

    def provision(self, *names: str) -> None:
        for name in names:
            self.on_record[name] = a_credential(name, f"{name}-1")

    def rotate(self, name: str) -> None:
        self.on_record[name] = a_credential(name, f"{name}-{next(_numbers)}")

    async def get(self, name: str) -> Credential | None:
        self.reads += 1
        await asyncio.sleep(self.reading)
        if self.broken == "store":
            raise StoreError("the store is away")
        return self.on_record.get(name)

    async def open(self, credential: Credential) -> Pool:
        self.half_open += 1
        assert len(self.there) + self.half_open <= self.most, "more pools than there may be"
        try:
            await asyncio.sleep(self.opening)
            if self.broken == "open" or credential.password in self.refused:
                raise Refused(credential.name)
            pool = Pool(credential)
            self.there.append(pool)
            self.opened.append(pool)
            return pool
        finally:
            self.half_open -= 1

    async def close(self, pool: Pool) -> None:
        self.closed.append(pool)
        assert pool.state == "open"
        assert pool.uses == 0 or self.in_a_hurry
        pool.state = "closing"
        try:
            await asyncio.sleep(self.closing)
            if self.broken == "close":
                raise OSError("hunter2")
        finally:
            pool.state = "closed"
            self.there.remove(pool)

    def pools(self, **options: Any) -> TenantPools[Pool]:
        defaults: dict[str, Any] = {"open": self.open, "close": self.close, "max_pools": self.most}
        return TenantPools(self, **(defaults | options))

    def open_names(self) -> list[str]:
        return sorted(pool.credential.name for pool in self.there if pool.state == "open")


NAMES = ["alpha", "beta", "gamma", "delta"]
_numbers = count(2)
Test = Callable[[World], Coroutine[Any, Any, None]]


def in_virtual_time(test: Test) -> Callable[[], None]:
    """Run a test on a world with four tenants, and check that no pool and no task is left."""

    def run() -> None:
        async def main(loop: VirtualLoop) -> None:
            world = World()
            world.provision(*NAMES)
            await test(world)
            assert not world.there, "a pool is left"
            assert len(asyncio.all_tasks()) == 1, "a task is left"

        live(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def use(pools: TenantPools[Pool], name: str, seconds: float = 0.0) -> Pool:
    async with pools.use(name) as pool:
        assert pool.state == "open"
        pool.uses += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            assert pool.state == "open"
            pool.uses -= 1
        return pool


@in_virtual_time
async def test_simultaneous_uses_open_one_pool(world: World) -> None:
    async with world.pools() as pools:
        got = await asyncio.gather(*(use(pools, "alpha") for _ in range(50)))
        assert len({id(pool) for pool in got}) == 1
        assert await use(pools, "alpha") is got[0]
        assert (len(world.opened), world.reads) == (1, 1)


@in_virtual_time
async def test_pools_can_be_entered_again(world: World) -> None:
    pools = world.pools()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="not open: use them in 'async with pools'"):
            await use(pools, "alpha")
        async with pools:
            with pytest.raises(ConfigurationError, match="open already"):
                await pools.__aenter__()
            await asyncio.gather(*(use(pools, name, 1) for name in NAMES))


def test_use_on_another_loop_is_refused() -> None:
    world = World()
    world.opening = world.closing = 0
    world.provision("alpha", "beta")
    pools = world.pools()  # needs no loop

    async def main() -> None:
        async with pools:
            await use(pools, "alpha")
            for name in ("alpha", "beta"):
                with pytest.raises(ConfigurationError, match="opened on another event loop: make a TenantPools"):
                    await asyncio.to_thread(asyncio.run, use(pools, name))
            assert [(await use(pools, name)).credential.name for name in ("alpha", "beta")] == ["alpha", "beta"]

    asyncio.run(main())
    assert not world.there


@in_virtual_time
async def test_least_recently_used_pool_is_closed(world: World) -> None:
    async with world.pools() as pools:
        for name in ("alpha", "beta", "gamma", "alpha", "delta"):
            await use(pools, name)
        assert world.open_names() == ["alpha", "delta", "gamma"]
        await use(pools, "beta")
        assert world.open_names() == ["alpha", "beta", "delta"]


@in_virtual_time
async def test_use_waits_while_all_pools_are_used(world: World) -> None:
    loop = asyncio.get_running_loop()
    async with world.pools() as pools:
        times = {"alpha": 9, "beta": 5, "gamma": 7}
        holding = [asyncio.create_task(use(pools, name, seconds)) for name, seconds in times.items()]
        await asyncio.sleep(1)
        before = loop.time()
        await use(pools, "delta")
        assert 4 < loop.time() - before < 5  # until beta was free and closed
        await asyncio.gather(*holding)


@in_virtual_time
async def test_rotation_during_wait_for_slot_is_followed(world: World) -> None:
    """The credential was read before the wait, and its login may be revoked."""
    async with world.pools(max_pools=1) as pools:
        async with pools.use("alpha"):
            waiting = asyncio.create_task(use(pools, "beta"))
            await asyncio.sleep(1)
            world.rotate("beta")
        assert (await waiting).credential == world.on_record["beta"]


@in_virtual_time
async def test_idle_pool_is_closed(world: World) -> None:
    async with world.pools(idle=300.0, refresh=inf) as pools:
        await use(pools, "alpha")
        await asyncio.sleep(200)
        await use(pools, "beta")
        await use(pools, "alpha", 50)
        await asyncio.sleep(299)
        assert world.open_names() == ["alpha"]
        await asyncio.sleep(2)
        assert world.open_names() == []


@in_virtual_time
async def test_pool_that_is_closed_while_record_is_read(world: World) -> None:
    async with world.pools(idle=1.0, refresh=0) as pools:
        first = await use(pools, "alpha")
        await asyncio.sleep(0.995)
        assert await use(pools, "alpha") is not first


@in_virtual_time
async def test_new_uses_follow_a_rotation(world: World) -> None:
    """The old pool is closed after its last use."""
    async with world.pools(refresh=5.0) as pools:
        first = await use(pools, "alpha")
        long = asyncio.create_task(use(pools, "alpha", 60))
        await asyncio.sleep(1)
        world.rotate("alpha")
        assert await use(pools, "alpha") is first
        await asyncio.sleep(5)
        second = await use(pools, "alpha")
        assert second.credential == world.on_record["alpha"]
        assert first.state == "open"
        assert await long is first
        await asyncio.sleep(1)
        assert first.state == "closed"
        assert await use(pools, "alpha") is second


@in_virtual_time
async def test_record_is_read_once_per_refresh(world: World) -> None:
    async with world.pools(refresh=5.0) as pools:
        for _ in range(100):
            await asyncio.gather(*(use(pools, "alpha") for _ in range(20)))
            await asyncio.sleep(0.5)
        assert 9 <= world.reads <= 12


@in_virtual_time
async def test_refresh_0_reads_the_record_each_time(world: World) -> None:
    """Whatever differs makes another credential."""
    async with world.pools(refresh=0) as pools:
        await use(pools, "alpha")
        old = world.on_record["alpha"]
        for new in (evolve(old, password="alpha-2"), evolve(old, host="elsewhere.example.com")):
            world.on_record["alpha"] = new
            assert (await use(pools, "alpha")).credential == new


@in_virtual_time
async def test_refused_login_reads_the_record_once(world: World) -> None:
    """And opens a pool with the credential that it finds, if that is another one."""

    async def open_pool(credential: Credential) -> Pool:
        if credential.password == "alpha-1":
            world.rotate("alpha")
        elif credential.name == "gamma":
            del world.on_record["gamma"]
        return await world.open(credential)

    world.refused.update({"alpha-1", "beta-1", "gamma-1"})
    async with world.pools(open=open_pool) as pools:
        assert (await use(pools, "alpha")).credential == world.on_record["alpha"]
        with pytest.raises(Refused):
            await use(pools, "beta")
        assert world.reads == 4
        with pytest.raises(TenantNotFoundError, match="'gamma' has no usable credential"):
            await use(pools, "gamma")


@in_virtual_time
async def test_error_in_block_is_raised_unchanged(world: World) -> None:
    """Whatever became of the tenant: a program that retried on another error wrote its rows twice."""
    async with world.pools(refresh=inf) as pools:
        for change in (world.rotate, world.on_record.pop):
            first = await use(pools, "alpha")
            change("alpha")
            assert await use(pools, "alpha") is first
            with pytest.raises(Refused):
                async with pools.use("alpha"):
                    raise Refused
            if "alpha" in world.on_record:
                assert (await use(pools, "alpha")).credential == world.on_record["alpha"]
        with pytest.raises(TenantNotFoundError, match="'alpha' has no usable credential"):
            await use(pools, "alpha")
        await asyncio.sleep(1)
        assert world.open_names() == []


@in_virtual_time
async def test_missing_tenant_closes_no_pool(world: World) -> None:
    async with world.pools(refresh=5.0) as pools:
        for name in NAMES[:3]:
            await use(pools, name)
        with pytest.raises(TenantNotFoundError, match=r"'nobody' has no usable credential .* provision it first"):
            await use(pools, "nobody")
        assert world.open_names() == ["alpha", "beta", "gamma"]

        del world.on_record["alpha"]
        await asyncio.sleep(6)
        with pytest.raises(TenantNotFoundError, match="'alpha' has no usable credential"):
            await use(pools, "alpha")
        await asyncio.sleep(1)
        assert world.open_names() == ["beta", "gamma"]


@in_virtual_time
async def test_unreachable_store_leaves_open_pools_in_use(world: World) -> None:
    async with world.pools(refresh=5.0) as pools:
        first = await use(pools, "alpha")
        world.broken = "store"
        await asyncio.sleep(6)
        reads = world.reads
        assert await use(pools, "alpha") is first
        assert await use(pools, "alpha") is first
        assert world.reads == reads + 1
        with pytest.raises(StoreError, match="the store is away"):
            await use(pools, "beta")
        world.broken = ""
        await use(pools, "beta")


@in_virtual_time
async def test_failed_open_frees_its_slot(world: World) -> None:
    async with world.pools() as pools:
        world.broken = "open"
        for _ in range(5):
            failed = await asyncio.gather(*(use(pools, name) for name in world.on_record), return_exceptions=True)
            assert {type(each) for each in failed} == {Refused}
        world.broken = ""
        await asyncio.gather(*(use(pools, name) for name in world.on_record))


def test_close_error_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def test(world: World) -> None:
        world.broken = "close"
        pools = world.pools()
        await pools.__aenter__()
        for name in world.on_record:
            await use(pools, name)
        with pytest.raises(ExceptionGroup, match="some pools could not be closed") as failed:
            await pools.__aexit__(None, None, None)
        assert [type(error) for error in failed.value.exceptions] == [OSError] * 3  # the fourth was before
        await pools.__aenter__()
        await use(pools, "alpha")
        await pools.__aexit__(KeyError, KeyError(), None)  # the program's own exception passes through

    with caplog.at_level(logging.WARNING, "aiodbclient"):
        test()
    assert "the pool of 'alpha' could not be closed: OSError" in caplog.text
    assert "hunter2" not in caplog.text


@in_virtual_time
async def test_exit_waits_for_uses_and_refuses_others(world: World) -> None:
    async with asyncio.timeout(60), world.pools() as pools:
        using = asyncio.create_task(use(pools, "alpha", 3))
        opening = asyncio.create_task(use(pools, "beta", 3))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(use(pools, name)) for name in ("gamma", "delta")]
        await asyncio.sleep(0.1)
    assert (await using).state == "closed"
    ended = await asyncio.gather(opening, *waiting, return_exceptions=True)
    assert {type(each) for each in ended} <= {Pool, ConfigurationError}
    assert isinstance(ended[-1], ConfigurationError)


@in_virtual_time
async def test_use_that_begins_during_exit_is_refused(world: World) -> None:
    """It is not cancelled, and the tenant can be used later."""
    pools = world.pools()
    async with pools:
        begun = asyncio.create_task(use(pools, "alpha"))
        await asyncio.sleep(0)  # it waits for a task that has not begun
    with pytest.raises(ConfigurationError, match=r"closed|not open"):
        await begun
    async with pools, asyncio.timeout(60):
        await use(pools, "alpha")


@in_virtual_time
async def test_cancelled_exit_closes_used_pools(world: World) -> None:
    pools = world.pools()
    await pools.__aenter__()
    forever = asyncio.create_task(asyncio.sleep(1e6))
    entered = pools.use("alpha")
    await entered.__aenter__()
    leaving = asyncio.create_task(pools.__aexit__(None, None, None))
    await asyncio.sleep(1)
    assert not leaving.done()
    world.in_a_hurry = True
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not world.there
    await entered.__aexit__(None, None, None)
    forever.cancel()
    await asyncio.wait([forever])
    assert len(world.closed) == 1


@in_virtual_time
async def test_second_cancel_leaves_a_silent_server(world: World) -> None:
    world.closing = 1e9
    pools = world.pools()
    await pools.__aenter__()
    await use(pools, "alpha")
    leaving = asyncio.create_task(pools.__aexit__(None, None, None))
    for _ in range(2):
        await asyncio.sleep(1)
        assert not leaving.done()
        leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@in_virtual_time
async def test_cancelled_waiting_uses_close_no_pool(world: World) -> None:
    others = [f"t{number}" for number in range(20)]
    world.provision(*others)
    async with world.pools() as pools:
        holding = [asyncio.create_task(use(pools, name, 10)) for name in NAMES[:3]]
        await asyncio.sleep(1)
        gone = [asyncio.create_task(use(pools, name)) for name in others]
        await asyncio.sleep(1)
        for each in gone:
            each.cancel()
        await asyncio.wait([*gone, *holding])
        await asyncio.sleep(1)
        assert world.open_names() == ["alpha", "beta", "gamma"]
        assert len(world.opened) == 3


@in_virtual_time
async def test_use_cancelled_at_opening_keeps_no_pool(world: World) -> None:
    """Nor a slot, whether its pool is being opened, or was opened just now."""

    async def open_pool(credential: Credential) -> Pool:
        pool = await world.open(credential)
        asyncio.get_running_loop().call_soon(visitor.cancel)
        return pool

    async with world.pools(open=open_pool, max_pools=1, idle=1.0) as pools:
        for seconds in (0.05, 1.0):
            visitor = asyncio.create_task(use(pools, "alpha"))
            await asyncio.wait([visitor], timeout=seconds)
            visitor.cancel()
            await asyncio.wait([visitor])
            assert visitor.cancelled()
            await asyncio.sleep(2)
            assert not world.there


@in_virtual_time
async def test_open_that_ignores_cancellation_leaves_no_pool(world: World) -> None:
    async def stubborn(credential: Credential) -> Pool:
        opening = asyncio.create_task(world.open(credential))
        while not opening.done():
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                continue
        return opening.result()

    async with world.pools(open=stubborn) as pools:
        visitor = asyncio.create_task(use(pools, "alpha"))
        await asyncio.sleep(0.05)
    with pytest.raises(ConfigurationError, match=r"closed|not open"):
        await visitor


@pytest.mark.parametrize(
    "options", [{"max_pools": 0}, {"max_pools": 1.5}, {"idle": -1}, {"idle": nan}, {"refresh": "x"}, {"refresh": None}]
)
def test_invalid_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a"):
        World().pools(**options)


def test_repr_shows_no_secret() -> None:
    assert repr(World().pools()) == "<TenantPools: 0 open>"
