"""A removal finds a Kafka or OpenSearch tenant's objects by prefix and deletes them, but not those of other tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from attrs import frozen

from aiodbclient import ClusterClient, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import APIError, InvalidResponseError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import _prefixes as prefixes
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._prefixes import delete_leftovers, leftovers

# The first two belong to the tenant. The others only look like it.
MINE = ["alpha-5306d220.events", "alpha-5306d220.a.b"]
ALPHABET = "alphabet-da9db9f8.events"
OTHERS = [
    *("alpha", "alpha.events", "alpha-5306d220", "alpha-5306d220xevents", "alpha-5306d221.events"),
    *(ALPHABET, "x.alpha-5306d220.events", "alpha_-5306d220.events"),
]


@frozen
class Prefixed:
    sandbox: Sandbox
    cluster: ClusterClient
    engine: str

    def make(self, *names: str) -> None:
        for name in names:
            (self.sandbox.add_topic if self.engine == "kafka" else self.sandbox.add_index)(self.cluster.id, name)

    @property
    def kind(self) -> str:
        return "topics" if self.engine == "kafka" else "indexes"

    async def left(self) -> list[str]:
        return await leftovers(self.cluster, self.engine, names_of("alpha", self.engine))

    async def delete(self) -> list[str]:
        return await delete_leftovers(self.cluster, self.engine, names_of("alpha", self.engine))


@pytest.fixture(params=["kafka", "opensearch"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Prefixed]:
    async with (
        Sandbox(windows=[]) as sandbox,
        DatabaseClient(
            sandbox.token, base_url=sandbox.url, budget=RateBudget([]), retry=RetryPolicy(base_delay=0.01)
        ) as client,
    ):
        cluster = await sandbox.add_cluster(request.param)
        yield Prefixed(sandbox, client.cluster(cluster), request.param)


async def test_only_what_begins_with_the_prefix_is_deleted(place: Prefixed) -> None:
    assert await place.left() == []
    place.make(*MINE, *OTHERS)
    assert sorted(await place.left()) == sorted(MINE)

    assert await place.delete() == []

    assert await place.left() == []
    assert await leftovers(place.cluster, place.engine, names_of("alphabet", place.engine)) == [ALPHABET]
    deleted = [each.name for each in place.sandbox.requests if each.operation == f"{place.kind}.delete"]
    assert sorted(filter(None, deleted)) == sorted(MINE)


async def test_a_prefix_of_the_names_counts(place: Prefixed) -> None:
    place.make("alpha-5306d220.events", "live_alpha-8108748f.events")
    names = names_of("alpha", place.engine, "live_")
    assert await leftovers(place.cluster, place.engine, names) == ["live_alpha-8108748f.events"]


async def test_lost_answers_and_errors_in_between_are_survived(place: Prefixed) -> None:
    place.make(*MINE, *OTHERS)
    place.sandbox.faults.add(f"{place.kind}.list", status=503, times=1)
    place.sandbox.faults.add(f"{place.kind}.delete", cut=True, after=True, times=1)

    assert await place.delete() == []

    assert await place.left() == []


async def test_a_lasting_refusal_of_the_api_is_raised_and_the_next_run_continues(place: Prefixed) -> None:
    place.make(*MINE)
    place.sandbox.faults.add(f"{place.kind}.delete", status=403, times=1)
    with pytest.raises(APIError):
        await place.delete()
    assert await place.delete() == []
    assert await place.left() == []


async def test_a_list_of_another_form_is_not_taken_for_an_empty_one(
    place: Prefixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[object] = [
        {},
        {"other": []},
        {place.kind: [{"id": "x"}]},
        {place.kind: "alpha.x"},
        [],
        {place.kind: [7]},
    ]
    for answer in answers:

        async def answered(*_: object, answer: object = answer, **__: object) -> object:
            return answer

        monkeypatch.setattr(prefixes, "request_below", answered)
        with pytest.raises(InvalidResponseError, match="has another form"):
            await place.left()


async def test_the_next_pages_are_read_too(place: Prefixed, monkeypatch: pytest.MonkeyPatch) -> None:
    member = "name" if place.engine == "kafka" else "index_name"
    pages = iter(
        [
            {
                place.kind: [{member: "alpha-5306d220.one"}],
                "links": {"pages": {"next": "https://api.digitalocean.com/v2/databases/x/topics?page=2&per_page=20"}},
            },
            {
                place.kind: [{member: "alpha-5306d220.two"}],
                "links": {"pages": {"prev": "https://api.digitalocean.com/x"}},
            },
        ]
    )
    asked: list[object] = []

    async def paged(*_: object, params: object = None) -> object:
        asked.append(params)
        return next(pages)

    monkeypatch.setattr(prefixes, "request_below", paged)

    assert await place.left() == ["alpha-5306d220.one", "alpha-5306d220.two"]
    assert asked == [None, {"page": ["2"], "per_page": ["20"]}]


async def test_a_topic_that_is_still_being_deleted_is_waited_for(
    place: Prefixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixes, "_LISTED_AFTER_DELETION", 0.2)
    listings = iter([["alpha-5306d220.one"], ["alpha-5306d220.one"], []])
    deletes: list[str] = []
    member = "name" if place.engine == "kafka" else "index_name"

    async def slow(_: object, method: str, kind: str, *name: str, **__: object) -> object:
        if method == "DELETE":
            deletes.extend(name)
            return None
        return {kind: [{member: each} for each in next(listings, [])]}

    monkeypatch.setattr(prefixes, "request_below", slow)

    assert await place.delete() == []
    assert deletes == ["alpha-5306d220.one"]

    listings = iter([["alpha-5306d220.one"]] * 9)
    assert await place.delete() == ["alpha-5306d220.one"]


async def test_a_name_that_the_server_would_take_for_a_pattern_is_never_sent(
    place: Prefixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = "name" if place.engine == "kafka" else "index_name"

    async def answered(*_: object, **__: object) -> object:
        return {place.kind: [{member: f"alpha-5306d220.{end}"} for end in ("*", "x,beta.y", "?", "z")]}

    monkeypatch.setattr(prefixes, "request_below", answered)
    assert await place.left() == ["alpha-5306d220.z"]


async def test_engines_with_databases_leave_nothing_and_are_not_asked(place: Prefixed) -> None:
    before = len(place.sandbox.requests)
    for engine in ("pg", "mysql", "mongodb"):
        assert await leftovers(place.cluster, engine, names_of("alpha", engine)) == []
        assert await delete_leftovers(place.cluster, engine, names_of("alpha", engine)) == []
    assert len(place.sandbox.requests) == before
