"""``tenants.each``: the caller's own function for each tenant, some at a time, whose failures stop no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.errors import AuthenticationError, ConfigurationError, InvalidArgumentError, MaxWaitError
from aiodbclient.rate_limiter import Window
from aiodbclient.tenants import Credential, SQLiteStore, TenantAction, Tenants
from aiodbclient.tenants.errors import StoreError, TenantNotFoundError

from ..conftest import Place, only
from ..programs import ask


@pytest.fixture
async def six(place: Place) -> Place:
    """A place with six tenants."""
    await asyncio.gather(*(place.tenants().ensure(name) for name in "abcdef"))
    return place


async def test_each_returns_values_without_requests(six: Place) -> None:
    async def work(credential: Credential) -> str | None:
        return credential.database

    before = len(six.sent())
    outcomes = {each.name: each async for each in six.tenants().each(work)}
    assert {name: each.value for name, each in outcomes.items()} == {name: six.prefix + name for name in "abcdef"}
    assert {(each.action, each.error is None, each.error, each.tries) for each in outcomes.values()} == {
        (TenantAction.DONE, True, None, 0)
    }
    assert [each.name async for each in six.tenants().each(work, ["c", "a"], concurrency=1)] == ["c", "a"]
    assert len(six.sent()) == before


async def test_each_exception_fails_one_tenant(six: Place) -> None:
    """Also one that ends a run of the API."""
    errors = {"b": ValueError("bad"), "c": AuthenticationError("x"), "d": ConfigurationError("x"), "e": StoreError("x")}

    async def work(credential: Credential) -> int:
        if credential.name in errors:
            raise errors[credential.name]
        return 1

    outcomes = {each.name: each async for each in six.tenants().each(work, [*"abcdef", "nobody"])}
    failed = {name: each for name, each in outcomes.items() if each.error is not None}
    assert isinstance(failed.pop("nobody").error, TenantNotFoundError)
    assert {name: each.error for name, each in failed.items()} == errors
    assert {(each.value, each.action) for each in failed.values()} == {(None, TenantAction.FAILED)}


async def test_each_concurrency_and_order(six: Place) -> None:
    """Outcomes come as they are known, and few calls are in progress at a time."""
    running, most, slow = 0, 0, asyncio.Event()

    async def work(credential: Credential) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await (slow.wait() if credential.name == "a" else asyncio.sleep(0.01))
        finally:
            running -= 1

    order = []
    async for outcome in six.tenants().each(work, concurrency=2):
        order.append(outcome.name)
        if len(order) == 5:
            slow.set()
    assert order[-1] == "a"
    assert most == 2


async def test_a_cancellation_ends_all_of_it(six: Place) -> None:
    begun, ended = set[str](), set[str]()

    async def work(credential: Credential) -> None:
        begun.add(credential.name)
        try:
            await asyncio.sleep(60)
        finally:
            ended.add(credential.name)

    async def loop() -> None:
        async for _ in six.tenants().each(work, concurrency=4):
            pass

    task = asyncio.create_task(loop())
    while len(begun) < 4:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == ended
    assert len(begun) == 4


async def test_stop_lets_the_calls_in_progress_finish(six: Place) -> None:
    begun = list[str]()

    async def work(credential: Credential) -> str:
        begun.append(credential.name)
        await asyncio.sleep(0.05)
        return "done"

    run = six.tenants().each(work, concurrency=2)
    outcomes = []
    async for outcome in run:
        outcomes.append(outcome)
        run.stop()
    assert sorted(each.name for each in outcomes) == sorted(begun)
    assert {each.value for each in outcomes} == {"done"}
    assert len(begun) < 6


async def test_unreadable_store_ends_run(place: Place) -> None:
    async def work(_: Credential) -> None:
        raise AssertionError

    closed = SQLiteStore(place.path)
    with pytest.raises(StoreError, match="not open"):
        _ = [each async for each in Tenants(place.cluster, closed, prefix=place.prefix).each(work, ["a", "b"])]


async def test_a_reader_works_too(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    await tenants.ensure("alpha")
    reader = await tenants.role("reader").ensure("alpha")

    async def work(credential: Credential) -> Any:
        return credential, await ask(credential, "SELECT 1")

    outcome = await only(tenants.role("reader").each(work))
    assert outcome.value == (reader, [(1,)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("x",), "work must be"), ((print, "x"), "iterable of names"), ((print, None), "concurrency must be an int")],
)
async def test_wrong_arguments_are_named(place: Place, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        place.tenants().each(*arguments, concurrency=0 if "concurrency" in message else 1)


@pytest.mark.parametrize("verb", ["rotate", "revoke_previous", "repair", "check", "remove", "provision"])
async def test_max_wait_applies_to_one_tenant(place: Place, verb: str) -> None:
    async with DatabaseClient(
        place.sandbox.token, base_url=place.sandbox.url, rate_limiter=RateLimiter([Window(1, 60.0)]), max_wait=0.1
    ) as client:
        tenants = Tenants(client.cluster(place.cluster.id), place.store, prefix=place.prefix)
        await place.tenants().ensure("a") if verb != "provision" else None
        await only(place.tenants().rotate(["a"])) if verb == "revoke_previous" else None
        await client.clusters.list()  # which uses the limit up
        async with asyncio.timeout(50):  # the window has a slot after 60 s
            with pytest.raises(MaxWaitError, match="it was not sent"):
                _ = [each async for each in getattr(tenants, verb)(["a"])]
