"""A tenant signs up, its size is read, and ``each`` calls a function of the caller for it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from attrs import evolve
from psycopg import AsyncConnection

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidArgumentError,
    MaxWaitError,
    NotFoundError,
    UnsupportedOperationError,
)
from aiodbclient.rate_limiter import Window
from aiodbclient.tenants import Credential, SQLiteStore, TenantAction, Tenants
from aiodbclient.tenants.errors import StoreError, TenantNotFoundError
from signups import measure

from ...call_path import path_of
from ..conftest import Place, only
from ..moves import Two
from ..own_stores import record_of
from ..programs import ask
from ..store_contract import claimed


async def test_second_ensure_sends_nothing(place: Place) -> None:
    first = await place.tenants().ensure("alpha")
    sent = len(place.sent())

    tenants = place.tenants()
    again = await tenants.ensure("alpha")

    assert again == first == await tenants.get("alpha")
    assert (first.name, first.database) == ("alpha", place.prefix + "alpha")
    assert first.username.startswith(f"{first.database}_")
    assert len(place.sent()) == sent
    assert await tenants.get("beta") is None


@pytest.mark.parametrize(
    ("engine", "given"),
    [
        *((engine, engine) for engine in ("redis", "valkey", "mongodb", "kafka", "opensearch")),
        *(("cockroach", given) for given in (None, "cockroach")),
    ],
)
async def test_engine_without_tenants_refused(place: Place, engine: str, given: str | None) -> None:
    """Nothing is on record, and nothing is sent to a cluster of a known engine."""
    cluster = place.client.cluster(await place.sandbox.add_cluster(engine), given)
    before = len(place.sent())
    tenants = Tenants(cluster, place.store)

    for make in (tenants.ensure("alpha"), tenants.provision(["alpha", "beta"])):
        with pytest.raises(UnsupportedOperationError, match=f"the cluster has {engine}; nothing was created"):
            await make

    assert [operation for operation, _ in place.sent()[before:]] == ["clusters.get"] * (
        2 if engine == "cockroach" else 0
    )
    assert [record async for record in place.store.records()] == []


@pytest.mark.parametrize("store", [None, "tenants.db", {}])
async def test_invalid_store_refused(place: Place, store: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="store is not a Store: "):
        Tenants(place.cluster, store)


@pytest.mark.parametrize("name", ["", "doadmin", 7])  # test_naming.py has the others
async def test_invalid_tenant_name_refused(place: Place, name: Any) -> None:
    tenants = place.tenants(prefix="")
    with pytest.raises(InvalidArgumentError):
        await tenants.ensure(name)
    assert not [what for what, _ in place.sent() if what not in ("clusters.get", "clusters.ca")]


@pytest.mark.parametrize("operation", ["check", "repair", "rotate", "revoke_previous", "suspend", "resume", "usage"])
async def test_unknown_tenant_fails_every_operation(place: Place, operation: str) -> None:
    run = getattr(place.tenants(), operation)
    outcome = await only(run(["nobody"]))
    assert isinstance(outcome.error, TenantNotFoundError)
    if operation != "usage":  # of which an outcome is another class
        assert (outcome.action, outcome.credential, outcome.problems) == (TenantAction.FAILED, None, ())
    with pytest.raises(InvalidArgumentError, match="an iterable of names"):
        await anext(aiter(run("alpha")))
    assert place.sent() in ([], [("clusters.get", None)])
    assert await place.store.get("nobody") is None
    assert [outcome async for outcome in place.tenants().check()] == []


@pytest.mark.parametrize(("operation", "functions", "files"), [("rotate", 111, 20), ("ensure", 123, 23)])
async def test_path_of_operation(tenants: Tenants, operation: str, functions: int, files: int) -> None:
    """On a cluster that is known, as a person who reads it counts: each function once."""
    await tenants.ensure("acme")

    ran, its_files = await path_of(only(tenants.rotate(["acme"])) if operation == "rotate" else tenants.ensure("beta"))

    assert len(ran) <= functions
    assert len(its_files) <= files


async def test_usage_and_rooms_show_how_large_tenants_are(two: Two, tenants: Tenants, alpha: Credential) -> None:
    await tenants.ensure("beta")
    found = dict[str, Any]()
    async with await AsyncConnection.connect(alpha.uri), asyncio.timeout(60):
        while sum(each.connections for each in found.values()) != 1:  # until the server has ended those of ``ensure``
            found = {each.name: each async for each in tenants.usage()}
    assert set(found) == {"alpha", "beta"}
    assert found["alpha"].cluster == two.old.id
    assert (found["alpha"].bytes or 0) > 1_000_000
    assert (found["alpha"].connections, found["beta"].connections) == (1, 0)
    [nobody] = [each async for each in tenants.usage(["nobody"])]
    assert (nobody.bytes, type(nobody.error)) == (None, TenantNotFoundError)
    old, new = await tenants.capacity()
    assert (old.name, (old.bytes or 0) > 2_000_000) == ((await two.old.info()).name, True)
    assert new.bytes is not None


async def test_usage_errors_fail_their_own_names(two: Two, alpha: Credential) -> None:
    away = two.client.cluster(uuid4())
    for name, cluster in (("damaged", two.old.id), ("elsewhere", away.id)):  # on record alone
        claim = await claimed(two.store, name)
        there = evolve(alpha, name=name, database=f"{two.prefix}{name}", cluster=cluster)
        await two.store.save(claim, record_of(there), release=True)
    with closing(sqlite3.connect(two.path, isolation_level=None)) as file:
        file.execute("UPDATE credentials SET record = replace(record, 'password', 'x') WHERE name = 'damaged'")

    both = Tenants([two.old, away], two.store, prefix=two.prefix)
    for names in (None, ["alpha", "damaged", "elsewhere"]):
        found = {each.name: each async for each in both.usage(names)}
        assert {name: type(each.error) for name, each in found.items()} == {
            "alpha": type(None),
            "damaged": StoreError,
            "elsewhere": NotFoundError,
        }
        assert (found["alpha"].bytes or 0) > 1_000_000
    old, gone = await both.capacity()
    assert ((old.bytes or 0) > 1_000_000, gone.bytes) == (True, None)


async def test_usage_asks_each_server_once(two: Two, tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = [await tenants.ensure(f"n{number}") for number in range(3)]
    for number in range(3, 300):  # on record alone
        name = f"n{number}"
        claim = await claimed(two.store, name)
        login = f"{two.prefix}{name}"
        there = evolve(credentials[0], name=name, database=login, username=login)
        await two.store.save(claim, record_of(there), release=True)
    statements = list[Any]()
    execute = psycopg.AsyncConnection.execute

    async def counted(self: Any, query: Any, *values: Any, **options: Any) -> Any:
        statements.append(query)
        return await execute(self, query, *values, **options)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)
    found = [each async for each in tenants.usage()]
    assert len(found) == 300
    assert [each.name for each in found if each.error is None] == ["n0", "n1", "n2"]
    assert all((each.bytes or 0) > 1_000_000 for each in found[:1])
    assert 0 < len(statements) < 10


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
    assert {(each.action, each.error is None, each.error, each.requests) for each in outcomes.values()} == {
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


async def test_each_calls_few_at_a_time_until_stopped(six: Place) -> None:
    """The calls in progress then finish."""
    begun, running, most, stopped = list[str](), 0, 0, asyncio.Event()

    async def work(credential: Credential) -> str:
        nonlocal running, most
        begun.append(credential.name)
        running += 1
        most = max(most, running)
        await (asyncio.sleep(0.05) if credential.name == begun[0] else stopped.wait())
        running -= 1
        return "done"

    run = six.tenants().each(work, concurrency=2)
    outcomes = []
    async for outcome in run:
        outcomes.append(outcome)
        run.stop()
        asyncio.get_running_loop().call_later(0.05, stopped.set)
    assert {each.name: each.value for each in outcomes} == dict.fromkeys(begun, "done")
    assert (most, len(begun) < 6) == (2, True)


async def test_unreadable_store_ends_run(place: Place) -> None:
    async def work(_: Credential) -> None:
        raise AssertionError

    closed = SQLiteStore(place.path)
    with pytest.raises(StoreError, match="not open"):
        _ = [each async for each in place.tenants(store=closed).each(work, ["a", "b"])]


async def test_a_reader_works_too(anywhere: Place, tenants: Tenants, alpha: Credential) -> None:
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


@pytest.mark.parametrize("operation", ["rotate", "revoke_previous", "repair", "check", "remove", "provision"])
async def test_max_wait_applies_to_one_tenant(place: Place, operation: str) -> None:
    async with DatabaseClient(
        place.sandbox.token, base_url=place.sandbox.url, rate_limiter=RateLimiter([Window(1, 60.0)]), max_wait=0.1
    ) as client:
        tenants = Tenants(client.cluster(place.cluster.id), place.store, prefix=place.prefix)
        await place.tenants().ensure("a") if operation != "provision" else None
        await only(place.tenants().rotate(["a"])) if operation == "revoke_previous" else None
        await client.clusters.list()  # which uses the limit up
        async with asyncio.timeout(50):  # the window has a slot after 60 s
            with pytest.raises(MaxWaitError, match="it was not sent"):
                _ = [each async for each in getattr(tenants, operation)(["a"])]


async def test_signups_are_measured() -> None:
    """The whole benchmark, with few customers: all sign up in both ways."""
    by_migrations, as_copies = await measure(customers=2, tables=12)
    assert len(by_migrations.seconds) == len(as_copies.seconds) == 2
    assert 0 < as_copies.p50 <= as_copies.p99
