"""Plans: the differences between a cluster's users and the specs, without writes, and the run that removes them."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiodbclient import (
    Action,
    ClusterClient,
    DatabaseClient,
    KafkaACL,
    MongoUserSettings,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    RateLimiter,
    RetryPolicy,
    User,
    UserPlan,
    UserSettings,
    errors,
)
from aiodbclient.sandbox import Sandbox

from .truth import requests

REPLICATING = UserSettings(pg_allow_replication=True)
NO_SETTINGS: Any = {"pg_allow_replication": True}
NO_ACL: Any = "all"
OWN = {"doadmin", "do-readonly"}


async def names(cluster: ClusterClient) -> set[str]:
    return {user.name for user in await cluster.users.list()} - OWN


async def applied(plan: UserPlan) -> dict[str, Action]:
    outcomes = [outcome async for outcome in plan.apply()]
    assert not [outcome.error for outcome in outcomes if not outcome.ok]
    return {outcome.name: outcome.action for outcome in outcomes}


async def test_a_plan_reads_like_a_diff_and_writes_nothing(sandbox: Sandbox, pg: ClusterClient) -> None:
    for name in ("same", "other", "stranger"):
        await pg.users.create(name)
    sent = len(sandbox.requests)

    plan = await pg.users.plan(["new", "same", NewUser("other", settings=REPLICATING)])

    assert (plan.create, plan.update, plan.keep, plan.extra) == (["new"], ["other"], ["same"], ["stranger"])
    assert str(plan).splitlines() == [
        "+ new",
        "~ other",
        "    settings.pg_allow_replication: false -> true",
        "  stranger (not asked for; left alone)",
        "1 to create, 1 to update, 0 to delete, 1 as asked for",
    ]
    assert bool(plan)
    assert [request.operation for request in sandbox.requests[sent:]] == ["users.list"]


async def test_applying_creates_and_updates_and_deletes_last(sandbox: Sandbox, pg: ClusterClient) -> None:
    for name in ("same", "other", "stranger-1", "stranger-2"):
        await pg.users.create(name)
    sandbox.faults.add("users.create", name="new", delay=0.2)
    sent = len(sandbox.requests)
    specs: list[str | NewUser] = ["new", "same", NewUser("other", settings=REPLICATING)]

    plan = await pg.users.plan(specs, prune=True)
    assert str(plan).splitlines()[-3:] == [
        "- stranger-1",
        "- stranger-2",
        "1 to create, 1 to update, 2 to delete, 1 as asked for",
    ]
    assert await applied(plan) == {
        "new": Action.CREATED,
        "other": Action.UPDATED,
        "stranger-1": Action.DELETED,
        "stranger-2": Action.DELETED,
    }

    writes = [request for request in sandbox.requests[sent:] if request.method != "GET"]
    assert [request.operation for request in writes[-2:]] == ["users.delete"] * 2
    created = next(request for request in writes if request.operation == "users.create")
    assert all(delete.at >= created.at + 0.2 for delete in writes[-2:])
    again = await pg.users.plan(specs, prune=True)
    assert not again
    assert again.keep == ["new", "same", "other"]


async def test_a_plan_of_one_change_is_something_to_do(pg: ClusterClient) -> None:
    await pg.users.create("alice")
    assert await pg.users.plan(["alice", "bob"])
    assert await pg.users.plan([NewUser("alice", settings=REPLICATING)])
    assert await pg.users.plan([], prune=True)
    assert not await pg.users.plan(["alice"])


async def test_so_many_names_at_a_time_are_applied_as_asked_for(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.create", delay=0.05)
    plan = await pg.users.plan(["a", "b", "c"])
    with pytest.raises(errors.InvalidArgumentError, match="concurrency"):
        plan.apply(concurrency=0)

    assert [outcome.name async for outcome in plan.apply(concurrency=1)] == ["a", "b", "c"]

    begun = [request.at for request in sandbox.requests if request.operation == "users.create"]
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(begun))


async def test_without_prune_nothing_is_deleted(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.users.create("stranger")

    plan = await pg.users.plan([])
    assert plan.extra == ["stranger"]
    assert not plan
    assert await applied(plan) == {}

    assert requests(sandbox, "users.delete") == 0


async def test_those_that_came_with_the_cluster_are_never_extra(mongodb: ClusterClient) -> None:
    plan = await mongodb.users.plan(["doadmin"], prune=True)

    assert (plan.create, plan.update, plan.keep, plan.extra) == ([], [], ["doadmin"], [])
    assert await applied(plan) == {}
    assert {user.name for user in await mongodb.users.list()} == OWN


async def test_planning_thousands_costs_one_list(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.users.create("t1")
    sent = len(sandbox.requests)

    async def specs() -> Any:
        for n in range(5000):
            yield f"t{n}"

    plan = await pg.users.plan(specs())

    assert len(plan.create) == 4999
    assert [request.operation for request in sandbox.requests[sent:]] == ["users.list"]


async def test_a_name_in_another_spelling_is_looked_up(sandbox: Sandbox, pg: ClusterClient) -> None:
    """Names are case-sensitive in the sandbox. If they are not at a provider, the extra user is the requested one."""
    await pg.users.create("alice")

    plan = await pg.users.plan(["Alice"], prune=True)

    assert (plan.create, plan.extra) == (["Alice"], [])
    assert requests(sandbox, "users.get") == 1


@pytest.mark.parametrize(
    ("specs", "match"),
    [
        ("alice", "iterable of names, not str"),
        (5, "iterable of names, not int"),
        (["a", 5], "names and NewUsers"),
        (["a", ".."], "cannot be the name"),
        ([NewUser("a", settings=NO_SETTINGS)], "settings must be a UserSettings"),
        ([NewUser("a", settings=UserSettings(acl=NO_ACL))], r"settings\.acl must be a list"),
        (["a", "b", "a"], "'a' is asked for twice"),
    ],
)
async def test_specs_that_cannot_be_are_refused(sandbox: Sandbox, pg: ClusterClient, specs: Any, match: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=match):
        await pg.users.plan(specs)
    assert sandbox.requests == []


async def test_settings_of_another_engine_and_engines_without_users_are_refused(
    sandbox: Sandbox, client: DatabaseClient, pg: ClusterClient
) -> None:
    for spec, setting in (
        (NewUser("a", settings=UserSettings(acl=[])), "settings.acl"),
        (NewUser("a", mysql_settings=MySQLSettings("mysql_native_password")), "mysql_settings"),
        (NewUser("a", readonly=True), "readonly"),
    ):
        with pytest.raises(errors.UnsupportedOperationError, match=f"^users.create: {setting} is a setting of"):
            await pg.users.plan([spec])
    redis = client.cluster(await sandbox.add_cluster("redis"))
    with pytest.raises(errors.UnsupportedOperationError):
        await redis.users.plan(["a"])


async def test_changes_since_the_plan_are_noticed(pg: ClusterClient) -> None:
    await pg.users.create("gone")
    plan = await pg.users.plan([NewUser("raced", settings=REPLICATING)], prune=True)
    await pg.users.create("raced")
    await pg.users.delete("gone")

    assert await applied(plan) == {"raced": Action.UPDATED, "gone": Action.ABSENT}


async def test_later_changes_of_the_specs_do_not_matter(pg: ClusterClient) -> None:
    specs = [NewUser("first"), NewUser("second")]
    plan = await pg.users.plan(specs)

    specs[1].name = "first"

    assert await asyncio.wait_for(applied(plan), 60) == {"first": Action.CREATED, "second": Action.CREATED}


async def test_a_failure_stops_no_other_and_the_next_plan_has_the_rest(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.users.create("stranger")
    sandbox.faults.add("users.create", name="forbidden", status=403)
    plan = await pg.users.plan(["forbidden", "new"], prune=True)

    failed = [outcome.name async for outcome in plan.apply() if not outcome.ok]

    assert failed == ["forbidden"]
    assert (await pg.users.plan(["forbidden", "new"], prune=True)).create == ["forbidden"]
    assert await names(pg) == {"new"}


async def test_stopping_deletes_nothing_more(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.users.create("stranger")
    plan = await pg.users.plan([f"t{n}" for n in range(20)], prune=True)
    run = plan.apply(concurrency=2)
    async for _ in run:
        run.stop()
    assert requests(sandbox, "users.delete") == 0


NAMES = st.sampled_from([f"t{n}" for n in range(5)] + ["doadmin", "do-readonly", "T1", "t 1", "ü/1"])
SOME = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


KAFKA = maybe(
    st.lists(st.builds(KafkaACL, SOME.map("".join), st.sampled_from(["admin", "consume", "produce_consume"])))
)
OPENSEARCH = maybe(st.lists(st.builds(OpenSearchACL, maybe(st.just("logs")), maybe(st.sampled_from(["read", "deny"])))))
MONGO = maybe(st.builds(MongoUserSettings, maybe(SOME), maybe(st.sampled_from(["readOnly", "readWrite", "dbAdmin"]))))
SPECS = {
    "pg": st.builds(UserSettings, pg_allow_replication=maybe(st.booleans())),
    "kafka": st.builds(UserSettings, acl=KAFKA),
    "opensearch": st.builds(UserSettings, opensearch_acl=OPENSEARCH),
    "mongodb": st.builds(UserSettings, mongo_user_settings=MONGO),
}


@st.composite
def specs_of(draw: st.DrawFn, engine: str) -> list[NewUser]:
    chosen = draw(st.lists(NAMES, unique=True, max_size=6))
    plugins = maybe(st.builds(MySQLSettings, st.sampled_from(["mysql_native_password", "caching_sha2_password"])))
    return [
        NewUser(
            name,
            mysql_settings=draw(plugins) if engine == "mysql" else None,
            settings=draw(maybe(SPECS[engine])) if engine in SPECS else None,
            readonly=draw(maybe(st.booleans())) if engine == "mongodb" else None,
        )
        for name in chosen
    ]


@pytest.mark.parametrize("engine", ["pg", "mysql", "kafka", "opensearch", "mongodb"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), prune=st.booleans())
def test_an_applied_plan_is_empty_when_it_is_made_again(engine: str, data: st.DataObject, prune: bool) -> None:
    there, wanted = data.draw(specs_of(engine)), data.draw(specs_of(engine))

    async def scenario() -> None:
        async with (
            Sandbox(windows=[]) as sandbox,
            DatabaseClient(
                sandbox.token, base_url=sandbox.url, budget=RateLimiter([]), retry=RetryPolicy(base_delay=0.001)
            ) as client,
        ):
            cluster = client.cluster(await sandbox.add_cluster(engine, backend="memory"))
            own = {user.name: user for user in await cluster.users.list()}
            for spec in there:
                if spec.name not in own:
                    await cluster.users.create(spec.name, spec.mysql_settings, spec.settings, spec.readonly)
            before = {user.name: user for user in await cluster.users.list()}
            await _apply_and_check(cluster, wanted, prune=prune, before=before, own=own)

    asyncio.run(scenario())


async def _apply_and_check(
    cluster: ClusterClient, wanted: list[NewUser], *, prune: bool, before: dict[str, User], own: dict[str, User]
) -> None:
    plan = await cluster.users.plan(wanted, prune=prune)
    assert sorted([*plan.create, *plan.update, *plan.keep]) == sorted(spec.name for spec in wanted)
    assert {user.name: user for user in await cluster.users.list()} == before
    actions = await applied(plan)

    assert set(actions) == {*plan.create, *plan.update, *(plan.extra if prune else ())}
    again = await cluster.users.plan(wanted, prune=prune)
    if plan.unknown:  # other users have settings now, so it is known that these have none
        actions |= await applied(again)
        again = await cluster.users.plan(wanted, prune=prune)
    assert not again, str(again)
    after = {user.name: user for user in await cluster.users.list()}
    assert {name: after[name] for name in own} == own  # never touched
    assert {spec.name for spec in wanted} <= set(after)
    assert set(before) - set(after) == (set(plan.extra) if prune else set())
    for name in set(before) & set(after) - {name for name, action in actions.items() if action is Action.RESET}:
        assert after[name].password == before[name].password
