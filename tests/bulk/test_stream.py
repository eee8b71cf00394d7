"""A run is a stream: it yields outcomes as they arrive, reads specs when there is room, and fails single names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aiodbclient import Action, ClusterClient, DatabaseClient, NewUser, Run, UserSettings, errors
from aiodbclient.sandbox import Sandbox

from .truth import Truth, requests


async def collect(run: Run[Any]) -> dict[str, Any]:
    outcomes: dict[str, Any] = {outcome.name: outcome async for outcome in run}
    assert all(outcome.ok == (outcome.action is not Action.FAILED) for outcome in outcomes.values())
    return outcomes


async def test_outcomes_come_in_the_order_of_completion(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.create", name="slow", delay=1.0)

    names = [outcome.name async for outcome in pg.users.provision(["slow", "b", "c"])]

    assert set(names[:2]) == {"b", "c"}
    assert names[2] == "slow"


async def test_one_failure_stops_no_other(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.create", name="forbidden", status=403)

    outcomes = await collect(pg.users.provision(["a", "forbidden", "b"]))

    assert {name: outcome.action for name, outcome in outcomes.items()} == {
        "a": Action.CREATED,
        "b": Action.CREATED,
        "forbidden": Action.FAILED,
    }
    error = outcomes["forbidden"].error
    assert isinstance(error, errors.PermissionDeniedError)
    assert not error.may_have_applied


async def test_invalid_specs_are_failed_outcomes(sandbox: Sandbox, pg: ClusterClient) -> None:
    other_engine = NewUser("x", settings=UserSettings(acl=[]))
    specs: list[Any] = ["", "..", "a\0b", "\ud800", other_engine, 5, None, NewUser(5), "fine"]  # type: ignore[arg-type]

    outcomes = [outcome async for outcome in pg.users.provision(specs)]

    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert [outcome.name for outcome in outcomes if outcome.ok] == ["fine"]
    assert len(failed) == 8
    assert all(
        isinstance(outcome.error, errors.InvalidArgumentError | errors.UnsupportedOperationError) for outcome in failed
    )
    assert all(outcome.tries == 0 for outcome in failed)
    assert requests(sandbox, "users.create") == 1


async def test_settings_of_a_wrong_type_fail_their_name_whether_it_is_there_or_not(
    sandbox: Sandbox, pg: ClusterClient
) -> None:
    await pg.users.create("there")
    sent = requests(sandbox, "users.create")
    wrong: Any = {"pg_allow_replication": True}

    outcomes = await collect(pg.users.provision([NewUser("there", settings=wrong), NewUser("new", settings=wrong)]))

    for outcome in outcomes.values():
        assert isinstance(outcome.error, errors.InvalidArgumentError)
        assert outcome.tries == 0
    assert requests(sandbox, "users.create") == sent


async def test_a_name_that_comes_twice_is_sent_once(sandbox: Sandbox, pg: ClusterClient) -> None:
    outcomes = [outcome async for outcome in pg.users.provision(["a", "b", "a"])]

    (duplicate,) = (outcome for outcome in outcomes if not outcome.ok)
    assert duplicate.name == "a"
    assert "duplicate" in str(duplicate.error)
    assert requests(sandbox, "users.create") == 2


async def test_running_twice_creates_once(sandbox: Sandbox, pg: ClusterClient) -> None:
    names = [f"t{n}" for n in range(40)]
    first = await collect(pg.users.provision(names))
    sent = len(sandbox.requests)

    second = await collect(pg.users.provision(names))

    assert all(outcome.action is Action.KEPT and outcome.tries == 0 for outcome in second.values())
    assert {name: outcome.user for name, outcome in second.items()} == {
        name: outcome.user for name, outcome in first.items()
    }
    assert [request.operation for request in sandbox.requests[sent:]] == ["users.list"]


async def test_existing_users_are_kept_reset_or_an_error(sandbox: Sandbox, pg: ClusterClient) -> None:
    old = await pg.users.create("old")
    truth = Truth(sandbox, pg.id)

    kept = await collect(pg.users.provision(["old", "new-1"], if_exists="keep"))
    refused = await collect(pg.users.provision(["old", "new-2"], if_exists="error"))

    assert kept["old"].action is Action.KEPT
    assert kept["old"].user == old
    assert isinstance(refused["old"].error, errors.NameTakenError)
    assert refused["new-2"].action is Action.CREATED
    assert not truth.reset

    reset = await collect(pg.users.provision(["old", "new-3"], if_exists="reset"))

    assert reset["old"].action is Action.RESET
    assert reset["new-3"].action is Action.CREATED
    assert truth.reset == {"old": 1}
    assert reset["old"].user is not None
    assert reset["old"].user.password == truth.passwords["old"] != old.password


@pytest.mark.parametrize(
    ("if_exists", "action"), [("keep", Action.KEPT), ("reset", Action.RESET), ("error", Action.FAILED)]
)
async def test_a_user_that_turns_up_after_the_list_is_known_by_the_refusal(
    pg: ClusterClient, if_exists: str, action: Action
) -> None:
    async def specs() -> AsyncIterator[str]:
        await pg.users.create("rival")  # the run has read its list by now
        yield "rival"

    outcomes = await collect(pg.users.provision(specs(), if_exists=if_exists))  # type: ignore[arg-type]

    assert outcomes["rival"].action is action
    if action is Action.FAILED:
        assert isinstance(outcomes["rival"].error, errors.NameTakenError)


async def test_a_name_that_is_taken_and_not_visible_is_reported_as_taken(
    sandbox: Sandbox, pg: ClusterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodbclient._bulk.settle.LOOK", 0.01)
    monkeypatch.setattr("aiodbclient._bulk.settle.FRESH", 0.05)
    sandbox.faults.add("users.get", status=404)

    async def specs() -> AsyncIterator[str]:
        await pg.users.create("rival")  # the run has read its list by now
        yield "rival"

    [outcome] = (await collect(pg.users.provision(specs()))).values()

    assert isinstance(outcome.error, errors.NameTakenError)
    assert not outcome.error.may_have_applied
    assert requests(sandbox, "users.get") >= 2


async def test_a_refusal_for_another_reason_is_reported(pg: ClusterClient) -> None:
    outcomes = await collect(pg.users.provision(["x" * 64]))

    error = outcomes["x" * 64].error
    assert isinstance(error, errors.UnprocessableEntityError)
    assert "63" in str(error)
    assert not error.may_have_applied


async def test_settings_of_new_users_go_along(sandbox: Sandbox, pg: ClusterClient, mongodb: ClusterClient) -> None:
    replicating = NewUser("r", settings=UserSettings(pg_allow_replication=True))
    outcomes = await collect(pg.users.provision([replicating, "plain"]))

    assert outcomes["r"].user is not None
    assert outcomes["r"].user.settings == UserSettings(pg_allow_replication=True)
    assert {request.name: request.json for request in sandbox.requests if request.operation == "users.create"} == {
        "r": {"name": "r", "settings": {"pg_allow_replication": True}},
        "plain": {"name": "plain"},
    }

    await collect(mongodb.users.provision([NewUser("m", readonly=True)]))
    assert sandbox.requests[-1].json == {"name": "m", "readonly": True}


async def test_tries_count_the_requests_of_a_name(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.create", name="twice", nth=1, status=429)
    sandbox.faults.add("users.create", name="lost", nth=1, cut=True, after=True)

    outcomes = await collect(pg.users.provision(["once", "twice", "lost"]))

    assert {name: outcome.tries for name, outcome in outcomes.items()} == {"once": 1, "twice": 2, "lost": 2}


async def test_rotate_and_deprovision(sandbox: Sandbox, pg: ClusterClient) -> None:
    await collect(pg.users.provision(["a", "b"]))
    truth = Truth(sandbox, pg.id)

    rotated = await collect(pg.users.rotate(["a", "nobody"]))

    assert rotated["a"].action is Action.RESET
    assert rotated["a"].user is not None
    assert rotated["a"].user.password == truth.passwords["a"]
    assert isinstance(rotated["nobody"].error, errors.NotFoundError)
    assert truth.reset == {"a": 1}

    removed = await collect(pg.users.deprovision(["a", "nobody"]))

    assert removed["a"].action is Action.DELETED
    assert removed["nobody"].action is Action.ABSENT
    assert {user.name for user in await pg.users.list()} == {"doadmin", "b"}


async def test_dbs_are_provisioned_and_deprovisioned(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("dbs.create", name="lost", nth=1, status=500, after=True)
    sandbox.faults.add("dbs.create", name="not-done", nth=1, cut=True)

    made = await collect(pg.dbs.provision(["lost", "not-done", "defaultdb"]))

    assert {name: outcome.action for name, outcome in made.items()} == {
        "lost": Action.CREATED,
        "not-done": Action.CREATED,
        "defaultdb": Action.KEPT,
    }
    assert all(outcome.db is not None and outcome.db.name == name for name, outcome in made.items())
    assert {db.name for db in await pg.dbs.list()} == {"lost", "not-done", "defaultdb"}

    sandbox.faults.add("dbs.delete", name="lost", nth=1, cut=True, after=True)
    gone = await collect(pg.dbs.deprovision(["lost", "nowhere"]))

    assert {name: outcome.action for name, outcome in gone.items()} == {
        "lost": Action.DELETED,
        "nowhere": Action.ABSENT,
    }


@pytest.mark.parametrize("engine", ["redis", "valkey"])
async def test_on_an_engine_without_users_nothing_is_sent(
    sandbox: Sandbox, client: DatabaseClient, engine: str
) -> None:
    cluster = client.cluster(await sandbox.add_cluster(engine))

    for run in (
        cluster.users.provision(["a", "b"]),
        cluster.users.rotate(["a", "b"]),
        cluster.users.deprovision(["a", "b"]),
        cluster.dbs.provision(["a", "b"]),
        cluster.dbs.deprovision(["a", "b"]),
    ):
        outcomes = await collect(run)
        assert len(outcomes) == 2
        assert all(isinstance(outcome.error, errors.UnsupportedOperationError) for outcome in outcomes.values())
    assert [request.operation for request in sandbox.requests] == ["clusters.get"]


async def test_specs_are_pulled_as_room_frees(pg: ClusterClient) -> None:
    pulled = 0

    def names() -> Iterator[str]:
        nonlocal pulled
        for n in range(100):
            pulled += 1
            yield f"t{n}"

    async def async_names() -> AsyncIterator[str]:
        for name in names():
            yield name

    for specs in (names(), async_names()):
        pulled = taken = 0
        async for _ in pg.users.provision(specs, concurrency=4):
            taken += 1
            assert pulled - taken < 2 * 4
        assert pulled == taken == 100


async def test_a_slow_consumer_slows_the_sending(sandbox: Sandbox, pg: ClusterClient) -> None:
    taken = 0
    async for _ in pg.users.provision((f"t{n}" for n in range(40)), concurrency=4):
        taken += 1
        if taken % 10 == 1:
            await asyncio.sleep(0.05)  # as long as ten requests take
        assert requests(sandbox, "users.create") - taken < 2 * 4
    assert taken == 40


async def test_an_exception_from_specs_comes_after_what_was_in_flight(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.create", delay=0.05)

    def broken() -> Iterator[str]:
        yield "a"
        yield "b"
        raise OSError("the disk is gone")

    async def async_broken() -> AsyncIterator[str]:
        yield "c"
        yield "d"
        raise OSError("the disk is gone")

    for specs, expected in ((broken(), {"a", "b"}), (async_broken(), {"c", "d"})):
        names = set[str]()

        async def consume(run: Run[Any], names: set[str] = names) -> None:
            async for outcome in run:
                names.add(outcome.name)

        with pytest.raises(OSError, match="the disk is gone"):
            await consume(pg.users.provision(specs))
        assert names == expected


async def test_specs_that_raise_what_ends_a_loop_do_not_end_the_run_as_if_they_were_all(pg: ClusterClient) -> None:
    def specs() -> Iterator[str]:
        yield "a"
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        await collect(pg.users.provision(specs()))


async def test_specs_that_are_cancelled_do_not_end_the_run_as_if_they_were_all(pg: ClusterClient) -> None:
    async def specs() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError  # as after awaiting a cancelled producer

    with pytest.raises(errors.DatabaseClientError, match="was cancelled"):
        await collect(pg.users.provision(specs()))
    assert {user.name for user in await pg.users.list()} == {"doadmin", "a"}


async def test_a_cancelled_token_fails_its_name_instead_of_dropping_it(sandbox: Sandbox, pg: ClusterClient) -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise asyncio.CancelledError
        return sandbox.token

    async with DatabaseClient(token, base_url=sandbox.url) as client:
        sandbox.faults.add("users.create", name="a", status=401)
        outcomes = await collect(client.cluster(pg.id).users.provision(["a", "b"]))

    assert outcomes["b"].ok
    assert isinstance(outcomes["a"].error, errors.DatabaseClientError)
    assert outcomes["a"].error.may_have_applied


async def test_several_clusters_run_side_by_side(sandbox: Sandbox, client: DatabaseClient) -> None:
    clusters = [client.cluster(await sandbox.add_cluster("pg", backend="memory")) for _ in range(3)]
    sandbox.faults.add("users.create", delay=0.02)
    order: list[str] = []

    async def provision(cluster: ClusterClient) -> None:
        async for outcome in cluster.users.provision((f"t{n}" for n in range(8)), concurrency=2):
            assert outcome.ok
            order.append(cluster.id)

    await asyncio.gather(*map(provision, clusters))

    assert {name: order.count(name) for name in order} == {cluster.id: 8 for cluster in clusters}
    assert set(order[:12]) == {cluster.id for cluster in clusters}


@pytest.mark.parametrize("specs", ["a name", b"bytes", 5, None])
async def test_specs_that_are_no_iterable_of_names_are_refused_at_once(pg: ClusterClient, specs: Any) -> None:
    for make in (pg.users.provision, pg.users.rotate, pg.users.deprovision, pg.dbs.provision, pg.dbs.deprovision):
        with pytest.raises(errors.InvalidArgumentError, match="iterable of names"):
            make(specs)


async def test_options_that_cannot_be_are_refused_at_once(pg: ClusterClient) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="if_exists"):
        pg.users.provision(["a"], if_exists="replace")  # type: ignore[arg-type]
    for concurrency in (0, -1, True, 1.5, "4"):
        with pytest.raises(errors.InvalidArgumentError, match="concurrency"):
            pg.users.provision(["a"], concurrency=concurrency)  # type: ignore[arg-type]


async def test_a_run_waits_for_the_budget_however_long(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add(nth=1, times=2, status=429, headers={"retry-after": "0.1"})
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, max_wait=0.0) as client:
        outcomes = await collect(client.cluster(pg.id).users.provision(["a"]))

    assert outcomes["a"].action is Action.CREATED
