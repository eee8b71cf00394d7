"""A store is lost, and its tenants are adopted into a new one: programs that use either login keep working."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiodbclient import Action
from aiodbclient.engines import POSTGRESQL
from aiodbclient.errors import InvalidResponseError
from aiodbclient.tenants import Credential, SQLiteStore, Tenants

from .conftest import SQL, Place, only
from .programs import ask, refusal

on_sql = pytest.mark.parametrize("its_cluster", SQL, indirect=True)


@pytest.fixture
async def new(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "new.db") as store:
        yield store


async def rotated(tenants: Tenants) -> tuple[Credential, Credential]:
    """A tenant with two credentials that work: the previous and the current one."""
    previous = await tenants.ensure("gamma")
    if previous.role == "owner":
        await ask(previous, "CREATE TABLE t (x int)")
    current = (await only(tenants.rotate(["gamma"]))).credential
    assert current is not None
    return previous, current


async def passwords(place: Place) -> dict[str, str | None]:
    return {user.name: user.password for user in await place.cluster.users.list()}


@on_sql
@pytest.mark.parametrize("role", ["owner", "reader"])
async def test_the_second_login_is_adopted_when_the_first_is_retired(
    anywhere: Place, new: SQLiteStore, role: str
) -> None:
    owner = await anywhere.tenants().ensure("gamma")
    tenants = anywhere.tenants() if role == "owner" else anywhere.tenants().role("reader")
    _, current = await rotated(tenants)
    assert (await only(tenants.retire(["gamma"]))).action is Action.RETIRED
    if role == "reader":
        await Tenants(anywhere.cluster, new, anywhere.prefix).ensure("gamma", "adopt")
    before = await passwords(anywhere)

    after = Tenants(anywhere.cluster, new, anywhere.prefix)
    after = after if role == "owner" else after.role("reader")
    plan = await after.plan(["gamma"], if_exists="adopt")
    assert (plan.adopt, plan.shut_out) == (("gamma",), {})
    adopted = await only(plan.apply())

    assert adopted.error is None, adopted.error
    assert adopted.action is Action.ADOPTED
    assert adopted.credential is not None
    assert (adopted.credential.username, adopted.credential.password) == (current.username, current.password)
    assert await passwords(anywhere) == before
    await ask(current, "SELECT 1")
    if role == "reader":
        await ask(owner, "CREATE TABLE more (x int)")
    assert (await only(after.check(["gamma"]))).problems == ()
    again = (await only(after.rotate(["gamma"]))).credential
    assert again is not None
    assert again.username != current.username
    await ask(again, "SELECT 1")


@on_sql
@pytest.mark.parametrize("role", ["owner", "reader"])
async def test_both_logins_are_adopted_when_both_work_and_the_previous_can_be_retired(
    anywhere: Place, new: SQLiteStore, role: str
) -> None:
    await anywhere.tenants().ensure("gamma")
    tenants = anywhere.tenants() if role == "owner" else anywhere.tenants().role("reader")
    both = await rotated(tenants)
    owner = Tenants(anywhere.cluster, new, anywhere.prefix)
    if role == "reader":
        await owner.ensure("gamma", "adopt")
    after = owner if role == "owner" else owner.role("reader")

    plan = await after.plan(["gamma"], if_exists="adopt")
    assert (plan.adopt, plan.shut_out) == (("gamma",), {})
    adopted = await only(plan.apply())

    assert adopted.error is None, adopted.error
    assert adopted.credential is not None
    for credential in both:
        await ask(credential, "SELECT 1")
    assert (await only(after.check(["gamma"]))).problems == ()
    assert (await only(after.retire(["gamma"]))).action is Action.RETIRED
    for credential in both:
        assert bool(await refusal(credential)) == (credential.username != adopted.credential.username)


@on_sql
async def test_readers_are_shut_out_until_they_are_adopted_and_the_plan_says_so(
    anywhere: Place, new: SQLiteStore
) -> None:
    await anywhere.tenants().ensure("gamma")
    reader = await anywhere.tenants().role("reader").ensure("gamma")
    after = Tenants(anywhere.cluster, new, anywhere.prefix)

    plan = await after.plan(["gamma"], if_exists="adopt")
    await only(plan.apply())

    assert (await refusal(reader) != "") == ("gamma" in plan.shut_out)
    if reader.engine in POSTGRESQL:
        assert plan.shut_out == {"gamma": (reader.username,)}
    adopted = await after.role("reader").ensure("gamma", "adopt")
    assert (adopted.username, adopted.password) == (reader.username, reader.password)
    await ask(reader, "SELECT 1")


async def test_a_reset_shuts_the_second_login_out_and_the_plan_says_so(place: Place, new: SQLiteStore) -> None:
    _, second = await rotated(place.tenants())

    plan = await Tenants(place.cluster, new, place.prefix).plan(["gamma"], if_exists="reset")
    await only(plan.apply())

    assert plan.shut_out == {"gamma": (second.username,)}
    assert await refusal(second)


@on_sql
async def test_where_no_login_works_the_error_says_so_and_a_plan_shuts_nobody_out(
    anywhere: Place, new: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodbclient.tenants._provisioning._RETURNED_AFTER_DELETION", 0.0)
    tenants = anywhere.tenants()
    first, second = await rotated(tenants)
    assert (await only(tenants.suspend(["gamma"]))).error is None
    before = await passwords(anywhere)
    after = Tenants(anywhere.cluster, new, anywhere.prefix)

    assert (await after.plan(["gamma"], if_exists="adopt")).shut_out == {}
    with pytest.raises(InvalidResponseError, match="the API returns no password that works") as failed:
        await after.ensure("gamma", "adopt")

    assert {first.username, second.username} <= set(str(failed.value).split("'"))
    assert "locks out the tenant's programs" in str(failed.value)
    assert "scope" not in str(failed.value)
    assert await passwords(anywhere) == before
    assert await new.get("gamma") is None


@pytest.mark.parametrize("engine", ["kafka", "opensearch"])
async def test_without_sql_every_login_with_a_password_stays(place: Place, new: SQLiteStore, engine: str) -> None:
    cluster = place.client.cluster(await place.sandbox.add_cluster(engine))
    await Tenants(cluster, place.store).ensure("gamma")
    current = (await only(Tenants(cluster, place.store).rotate(["gamma"]))).credential

    after = Tenants(cluster, new)
    adopted = await after.ensure("gamma", "adopt")

    assert current is not None
    assert (adopted.username, adopted.password) == (current.username, current.password)
    record = await new.get("gamma")
    assert record is not None
    assert record.previous is not None
    assert record.previous.username == "gamma"
    assert (await only(after.retire(["gamma"]))).action is Action.RETIRED
