"""``each(first=, most_failed=)``: a migration that breaks stops early, and says where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aiodbclient import DatabaseClient, Engine, Failed
from aiodbclient.errors import DatabaseClientError, InvalidArgumentError
from aiodbclient.tenants import Credential, SQLiteStore, TenantResult, Tenants
from aiodbclient.tenants.errors import SuspendedError

CLUSTERS = ("9cc10173-e9ea-4176-9dbc-a4cee4c4ff30", "9cc10173-e9ea-4176-9dbc-a4cee4c4ff31")


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Tenants]:
    async with SQLiteStore(tmp_path / "store") as store, DatabaseClient("token") as client:
        for number, name in enumerate("abcdefghij"):
            claim = await store.claim(name, 60)
            assert claim is not None
            await store.keep(
                claim,
                Credential(
                    name=name,
                    username=name,
                    password="x",
                    database=name,
                    host="h",
                    port=1,
                    engine=Engine.PG,
                    uri="",
                    cluster=CLUSTERS[number % 2],
                    suspended=datetime.now(UTC) if name == "b" else None,
                ),
            )
        yield Tenants([client.cluster(each) for each in CLUSTERS], store)


class Work:
    """Fails for some tenants, and notes whom it was called for. Those who meet wait until four are at work."""

    def __init__(self, failing: str, meet: str = "") -> None:
        self.failing, self.meet = failing, meet
        self.called = ""
        self.running = self.most = 0

    async def __call__(self, credential: Credential) -> str:
        self.called += credential.name
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            while credential.name in self.meet and self.most < 4:
                await asyncio.sleep(0.01)
        self.running -= 1
        if credential.name in self.failing:
            raise ValueError(credential.name)
        return credential.name


async def outcomes(run: Any) -> tuple[list[TenantResult[str] | Failed], str]:
    """The outcomes, and what ended the run."""
    found = []
    try:
        async for outcome in run:
            found.append(outcome)
    except DatabaseClientError as error:
        return found, str(error)
    return found, ""


async def test_the_others_begin_when_the_first_are_done(tenants: Tenants) -> None:
    work = Work("", meet="defghij")
    seen = []
    async for outcome in tenants.each(work, first=3):
        seen.append(outcome.name)
        if len(seen) <= 3:
            assert set(work.called) <= set("ac")  # "b" is suspended
    assert set(seen[:3]) == set("abc")
    assert len(seen) == 10
    assert work.most > 3


async def test_a_failure_among_the_first_stops_the_others(tenants: Tenants) -> None:
    work = Work("c")
    found, why = await outcomes(tenants.each(work, first=3))
    assert sorted(each.name for each in found) == ["a", "b", "c"]
    assert sorted(work.called) == ["a", "c"]
    assert why == "ended after 1 failed: no other tenant was begun"
    assert {each.name: each.cluster for each in found} == {"a": CLUSTERS[0], "b": None, "c": CLUSTERS[0]}
    assert isinstance(next(each.error for each in found if each.name == "b"), SuspendedError)


async def test_a_failure_among_the_first_that_is_allowed_stops_nobody(tenants: Tenants) -> None:
    found, why = await outcomes(tenants.each(Work("cd"), first=3, most_failed=3))
    assert (len(found), why) == (10, "")


async def test_a_later_failure_stops_nobody_unless_so_many_failed(tenants: Tenants) -> None:
    assert [len((await outcomes(tenants.each(Work("defg"), first=2)))[0])] == [10]
    work = Work("defg")
    found, why = await outcomes(tenants.each(work, concurrency=1, most_failed=2))
    assert "".join(each.name for each in found) == "abcde"
    assert "ended after 2 failed" in why


@pytest.mark.parametrize("options", [{"first": -1}, {"first": 1.0}, {"most_failed": 0}, {"most_failed": True}])
def test_numbers_that_are_none_are_refused(tenants: Tenants, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="must be an int of at least"):
        tenants.each(Work(""), **options)
