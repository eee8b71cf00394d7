"""Late reads of the API: a deleted user is still listed, a new password is empty, a rival is not visible."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiodbclient import Action, ClusterClient, DatabaseClient, RateLimiter, RetryPolicy, errors
from aiodbclient._http.context import Deletions
from aiodbclient.sandbox import Sandbox

from .test_stream import collect
from .truth import Truth, requests


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._bulk.settle.LOOK", 0.02)
    monkeypatch.setattr("aiodbclient._bulk.settle.FRESH", 0.5)


async def test_a_deleted_user_that_is_still_listed_is_created(sandbox: Sandbox, pg: ClusterClient) -> None:
    sandbox.faults.add("users.delete", still_listed_for=30.0)
    await collect(pg.users.provision(["a", "b"]))
    await collect(pg.users.deprovision(["a", "b"]))
    truth = Truth(sandbox, pg.id)
    assert {"a", "b"} <= {user.name for user in await pg.users.list()}

    again = await collect(pg.users.provision(["a", "b"]))

    assert {name: outcome.action for name, outcome in again.items()} == dict.fromkeys("ab", Action.CREATED)
    assert {name: outcome.user.password for name, outcome in again.items()} == {
        name: truth.passwords[name] for name in "ab"
    }


async def test_a_user_that_was_deleted_and_created_again_is_believed_in(pg: ClusterClient) -> None:
    await collect(pg.users.provision(["a"]))
    await collect(pg.users.deprovision(["a"]))
    await collect(pg.users.provision(["a"]))

    again = await collect(pg.users.provision(["a"]))

    assert again["a"].action is Action.KEPT
    assert again["a"].tries == 0


async def test_a_user_that_others_deleted_and_created_again_is_kept(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.users.create("a")
    await pg.users.delete("a")
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as other:
        user = await other.cluster(pg.id).users.create("a")

    kept = await collect(pg.users.provision(["a"]))

    assert kept["a"].action is Action.KEPT
    assert kept["a"].user == user


async def test_a_deletion_that_was_refused_is_no_deletion(sandbox: Sandbox, pg: ClusterClient) -> None:
    await pg.users.create("a")
    sandbox.faults.add("users.delete", status=403, nth=1)
    with pytest.raises(errors.PermissionDeniedError):
        await pg.users.delete("a")

    kept = await collect(pg.users.provision(["a"]))
    assert kept["a"].action is Action.KEPT
    assert kept["a"].tries == 0


@pytest.mark.usefixtures("quick_looks")
async def test_a_password_that_is_empty_for_a_moment_is_read_and_not_replaced(
    sandbox: Sandbox, pg: ClusterClient
) -> None:
    await pg.users.create("old")
    truth = Truth(sandbox, pg.id)
    sandbox.faults.add(["users.create", "users.reset_auth"], password_empty_for=0.1)

    made = await collect(pg.users.provision(["new"]))
    rotated = await collect(pg.users.rotate(["old"]))

    assert made["new"].action is Action.CREATED
    assert made["new"].user.password == truth.passwords["new"]
    assert rotated["old"].action is Action.RESET
    assert rotated["old"].user.password == truth.passwords["old"]
    assert truth.reset == {"old": 1}


@pytest.mark.usefixtures("quick_looks")
async def test_a_password_that_stays_empty_is_replaced_or_reported(sandbox: Sandbox, pg: ClusterClient) -> None:
    truth = Truth(sandbox, pg.id)
    sandbox.faults.add("users.create", password_empty_for=60.0)

    made = await collect(pg.users.provision(["new"]))

    assert made["new"].action is Action.CREATED
    assert made["new"].user.password == truth.passwords["new"]
    assert truth.reset == {"new": 1}

    sandbox.faults.add("users.reset_auth", password_empty_for=60.0)
    rotated = await collect(pg.users.rotate(["new"]))
    assert isinstance(rotated["new"].error, errors.InvalidResponseError)
    assert rotated["new"].error.may_have_applied


@pytest.mark.parametrize("engine", ["mongodb", "pg without the credentials scope"])
async def test_a_rival_made_after_the_list_is_not_reset(sandbox: Sandbox, client: DatabaseClient, engine: str) -> None:
    cluster_id = await sandbox.add_cluster(engine.split()[0], backend="memory")
    token = sandbox.token
    if engine.endswith("scope"):
        token = sandbox.add_token(["database:read", "database:create", "database:update", "database:delete"])
    truth = Truth(sandbox, cluster_id)

    async def specs() -> AsyncIterator[str]:
        yield "first"
        await client.cluster(cluster_id).users.create("rival")
        sandbox.faults.add("users.create", name="rival", status=503, nth=1)
        yield "rival"

    async with DatabaseClient(
        token, base_url=sandbox.url, rate_limiter=RateLimiter([]), retry=RetryPolicy(base_delay=0.001)
    ) as narrow:
        outcomes = await collect(narrow.cluster(cluster_id).users.provision(specs()))

    assert outcomes["first"].action is Action.CREATED
    assert outcomes["rival"].action is Action.KEPT
    assert not truth.reset


async def test_where_passwords_are_returned_no_name_is_read_before_its_create(
    sandbox: Sandbox, pg: ClusterClient
) -> None:
    await collect(pg.users.provision([f"t{n}" for n in range(20)]))
    assert requests(sandbox, "users.get") == 0


async def test_a_rival_in_the_place_of_a_deleted_user_is_not_reset(sandbox: Sandbox, mongodb: ClusterClient) -> None:
    """Found by test_random_faults."""
    await collect(mongodb.users.deprovision(["a"]))
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as other:
        await other.cluster(mongodb.id).users.create("a")
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.create", cut=True, nth=1)

    kept = await collect(mongodb.users.provision(["a"]))

    assert kept["a"].action is Action.KEPT
    assert not truth.reset


@pytest.mark.usefixtures("quick_looks")
async def test_without_a_list_nobody_is_given_a_new_password(sandbox: Sandbox, mongodb: ClusterClient) -> None:
    """Found by test_random_faults."""
    await mongodb.users.create("a")
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.list", status=403, nth=1)
    sandbox.faults.add("users.create", cut=True, nth=1)

    failed = await collect(mongodb.users.provision(["a"]))

    assert isinstance(failed["a"].error, errors.InvalidResponseError)
    assert failed["a"].error.may_have_applied
    assert not truth.reset


def test_a_client_remembers_the_deletions_of_a_minute_and_no_more() -> None:
    deletions = Deletions()
    for n in range(10_000):
        deletions.note("cluster", f"t{n}", now=float(n))
        deletions.note("cluster", f"again{n % 2}", now=float(n))

    assert deletions.may_be_listed_still("cluster", "t9999", now=9999.0)
    assert deletions.may_be_listed_still("cluster", "t9950", now=9999.0)
    assert not deletions.may_be_listed_still("cluster", "t9939", now=9999.0)
    assert not deletions.may_be_listed_still("another cluster", "t9999", now=9999.0)
    assert len(deletions._sent) <= 64
    deletions.forget("cluster", "t9999")
    assert not deletions.may_be_listed_still("cluster", "t9999", now=9999.0)


def test_a_user_that_is_deleted_once_more_is_remembered_from_then_on() -> None:
    deletions = Deletions()
    deletions.note("cluster", "again", now=0.0)
    deletions.note("cluster", "once", now=1.0)
    deletions.note("cluster", "again", now=50.0)
    deletions.note("cluster", "other", now=70.0)

    assert deletions.may_be_listed_still("cluster", "again", now=100.0)
    assert not deletions.may_be_listed_still("cluster", "again", now=110.0)
    assert not deletions.may_be_listed_still("cluster", "once", now=70.0)
