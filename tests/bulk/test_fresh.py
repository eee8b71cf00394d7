"""Late reads of the API: a deleted user is still listed, a new password is empty, a rival is not visible."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiodbclient import Cluster, DatabaseClient, errors
from aiodbclient._http.context import Deletions
from aiodbclient.bulk import Action
from aiodbclient.sandbox import Sandbox

from ..changes import delay_passwords, list_deleted_users
from ..conftest import quick_options
from .test_outcomes import by_name
from .truth import WITHOUT_CREDENTIALS, Truth


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient._bulk.settle.LOOK", 0.02)
    monkeypatch.setattr("aiodbclient._bulk.settle.FRESH", 0.5)


async def test_deleted_user_still_listed_is_created(sandbox: Sandbox, pg: Cluster) -> None:
    list_deleted_users(sandbox, 30.0)
    await pg.users.provision(["a", "b"])
    await pg.users.deprovision(["a", "b"])
    truth = Truth(sandbox, pg.id)
    assert {"a", "b"} <= {user.name for user in await pg.users.list()}

    again = by_name(await pg.users.provision(["a", "b"]))

    assert {name: outcome.action for name, outcome in again.items()} == dict.fromkeys("ab", Action.CREATED)
    assert {name: outcome.user.password for name, outcome in again.items()} == {
        name: truth.passwords[name] for name in "ab"
    }


async def test_user_that_is_there_after_deletion_is_kept(sandbox: Sandbox, pg: Cluster) -> None:
    """Whether this client created it again or another one did, or its deletion was refused."""
    names = ["ours", "theirs", "refused"]
    await pg.users.provision(names)
    sandbox.faults.add("users.delete", name="refused", status=403)
    assert sum(outcome.error is None for outcome in await pg.users.deprovision(names)) == 2
    await pg.users.create("ours")
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as other:
        theirs = await other.cluster(pg.id).users.create("theirs")

    again = by_name(await pg.users.provision(names))

    assert {each.action for each in again.values()} == {Action.KEPT}
    assert {each.tries for each in again.values()} == {1}  # each is read: the list may be wrong for a minute
    assert again["theirs"].user == theirs


@pytest.mark.usefixtures("quick_looks")
async def test_late_password_is_read_again(sandbox: Sandbox, pg: Cluster) -> None:
    await pg.users.create("old")
    truth = Truth(sandbox, pg.id)
    delay_passwords(sandbox, ["users.create", "users.reset_auth"], 0.1)

    made = by_name(await pg.users.provision(["new"]))
    rotated = by_name(await pg.users.rotate(["old"]))

    assert made["new"].action is Action.CREATED
    assert made["new"].user.password == truth.passwords["new"]
    assert rotated["old"].action is Action.RESET
    assert rotated["old"].user.password == truth.passwords["old"]
    assert truth.reset == {"old": 1}


@pytest.mark.usefixtures("quick_looks")
async def test_missing_password_is_reset_or_reported(sandbox: Sandbox, pg: Cluster) -> None:
    truth = Truth(sandbox, pg.id)
    delay_passwords(sandbox, ["users.create"], 60.0)

    made = by_name(await pg.users.provision(["new"]))

    assert made["new"].action is Action.CREATED
    assert made["new"].user.password == truth.passwords["new"]
    assert truth.reset == {"new": 1}

    delay_passwords(sandbox, ["users.reset_auth"], 60.0)
    rotated = by_name(await pg.users.rotate(["new"]))
    assert isinstance(rotated["new"].error, errors.InvalidResponseError)
    assert rotated["new"].error.may_have_applied


@pytest.mark.parametrize("engine", ["mongodb", "pg without the credentials scope"])
async def test_rival_after_list_is_not_reset(sandbox: Sandbox, client: DatabaseClient, engine: str) -> None:
    cluster_id = await sandbox.add_cluster(engine.split()[0], backend="memory")
    token = sandbox.add_token(WITHOUT_CREDENTIALS) if engine.endswith("scope") else sandbox.token
    truth = Truth(sandbox, cluster_id)

    async def specs() -> AsyncIterator[str]:
        yield "first"
        await client.cluster(cluster_id).users.create("rival")
        sandbox.faults.add("users.create", name="rival", status=503, nth=1)
        yield "rival"

    async with DatabaseClient(token, base_url=sandbox.url, **quick_options()) as narrow:
        outcomes = by_name(await narrow.cluster(cluster_id).users.provision(specs()))

    assert outcomes["first"].action is Action.CREATED
    assert outcomes["rival"].action is Action.KEPT
    assert not truth.reset


async def test_rival_after_deletion_is_not_reset(sandbox: Sandbox, mongodb: Cluster) -> None:
    """Found by test_random_faults."""
    await mongodb.users.deprovision(["a"])
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as other:
        await other.cluster(mongodb.id).users.create("a")
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.create", cut=True, nth=1)

    kept = by_name(await mongodb.users.provision(["a"]))

    assert kept["a"].action is Action.KEPT
    assert not truth.reset


@pytest.mark.usefixtures("quick_looks")
async def test_no_reset_without_list(sandbox: Sandbox, mongodb: Cluster) -> None:
    """Found by test_random_faults."""
    await mongodb.users.create("a")
    truth = Truth(sandbox, mongodb.id)
    sandbox.faults.add("users.list", status=403, nth=1)
    sandbox.faults.add("users.create", cut=True, nth=1)

    failed = by_name(await mongodb.users.provision(["a"]))

    assert isinstance(failed["a"].error, errors.InvalidResponseError)
    assert failed["a"].error.may_have_applied
    assert not truth.reset


def test_deletions_of_last_minute() -> None:
    deletions = Deletions()
    for n in range(10_000):
        deletions.note("cluster", f"t{n}", now=float(n))
        deletions.note("cluster", f"again{n % 2}", now=float(n))

    assert deletions.may_be_listed_still("cluster", "t9999", now=9999.0)
    assert deletions.may_be_listed_still("cluster", "t9950", now=9999.0)
    assert not deletions.may_be_listed_still("cluster", "t9939", now=9999.0)
    assert not deletions.may_be_listed_still("another cluster", "t9999", now=9999.0)
    assert len(deletions._sent) <= 64
    for name, sent_at in (("twice", 20_000.0), ("once", 20_001.0), ("twice", 20_050.0), ("other", 20_070.0)):
        deletions.note("cluster", name, now=sent_at)
    assert deletions.may_be_listed_still("cluster", "twice", now=20_100.0)
    assert not deletions.may_be_listed_still("cluster", "twice", now=20_110.0)
    assert not deletions.may_be_listed_still("cluster", "once", now=20_070.0)
