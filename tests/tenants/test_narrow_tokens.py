"""A token without database:view_credentials, on the engines where the API grants rights."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from attrs import frozen

from aiodbclient import Action, ClusterClient, DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.errors import ConfigurationError, InvalidResponseError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants
from aiodbclient.tenants._record import intended_login

from ..bulk.truth import Truth, requests
from .conftest import only

SCOPES = ["database:read", "database:create", "database:update", "database:delete"]


@frozen
class Narrow:
    """A cluster through a token that cannot read passwords, and through one that can."""

    sandbox: Sandbox
    narrow: ClusterClient
    full: ClusterClient
    truth: Truth
    store: SQLiteStore


@pytest.fixture(params=["mongodb", "kafka", "opensearch"])
async def place(request: pytest.FixtureRequest, tmp_path: object) -> AsyncIterator[Narrow]:
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster(request.param)
        options = {"base_url": sandbox.url, "budget": RateBudget([]), "retry": RetryPolicy(base_delay=0.01)}
        async with (
            DatabaseClient(sandbox.add_token(SCOPES), **options) as narrow,  # type: ignore[arg-type]
            DatabaseClient(sandbox.token, **options) as full,  # type: ignore[arg-type]
            SQLiteStore(f"{tmp_path}/tenants.db") as store,
        ):
            yield Narrow(sandbox, narrow.cluster(cluster), full.cluster(cluster), Truth(sandbox, cluster), store)


async def test_the_password_in_the_answer_to_the_create_is_enough(place: Narrow) -> None:
    tenants = Tenants(place.narrow, place.store)
    place.sandbox.faults.add("users.create", cut=True, after=True, times=1)  # so that one password is lost

    credentials = [await tenants.ensure("alpha")]
    for _ in range(2):  # the second login is created, and then the first is reset
        rotated = await only(tenants.rotate(["alpha"], force=True))
        assert rotated.credential is not None, rotated.error
        credentials.append(rotated.credential)
        assert {each.username: each.password for each in credentials}.items() <= place.truth.passwords.items()
    retired = await only(tenants.retire(["alpha"]))

    assert retired.action is Action.RETIRED
    assert await tenants.get("alpha") == credentials[-1]
    assert place.truth.passwords[credentials[1].username] != credentials[1].password
    assert (await only(tenants.remove(["alpha"]))).action is Action.DELETED


async def test_a_login_that_was_there_before_is_not_adopted_nor_touched(place: Narrow) -> None:
    tenants = Tenants(place.narrow, place.store)
    before = await place.full.users.create("alpha")

    for _ in range(2):
        with pytest.raises(InvalidResponseError, match="the token needs the scope database:view_credentials"):
            await tenants.ensure("alpha", if_exists="adopt")

    assert await place.store.get("alpha") is None
    assert place.truth.passwords["alpha"] == before.password
    reset = await only(tenants.provision(["alpha"], if_exists="reset"))
    assert reset.credential is not None
    assert place.truth.passwords["alpha"] == reset.credential.password


async def test_a_token_that_gets_no_password_ends_the_run_and_created_tenants_are_on_record(place: Narrow) -> None:
    """The API description does not specify whether a create returns the password to such a token."""
    tenants = Tenants(place.narrow, place.store)
    untold = place.sandbox.faults.add(["users.create", "users.reset_auth"], password_empty_for=3600.0)
    names = [f"tenant-{number}" for number in range(100)]

    with pytest.raises(ConfigurationError, match="give the token the scope database:view_credentials") as refused:
        [_ async for _ in tenants.provision(names)]

    assert refused.value.may_have_applied
    made = {name for name in place.truth.passwords if name in names}
    assert 0 < len(made) <= 16
    records = {record.name: record async for record in place.store.records()}
    assert made <= {intended_login(record) for record in records.values()}
    assert {record.current for record in records.values()} == {None}
    assert max(place.truth.reset.values()) == 1

    place.sandbox.faults.remove(untold)
    outcomes = [outcome async for outcome in Tenants(place.full, place.store).provision(names)]
    assert {outcome.name: outcome.credential and outcome.credential.password for outcome in outcomes} == {
        name: place.truth.passwords[name] for name in names
    }
    assert max(place.truth.created.values()) == 1


async def test_a_rotation_without_a_returned_password_leaves_the_credential_in_use(place: Narrow) -> None:
    tenants = Tenants(place.narrow, place.store)
    credential = await tenants.ensure("alpha")
    place.sandbox.faults.add(["users.create", "users.reset_auth"], password_empty_for=3600.0)

    with pytest.raises(ConfigurationError, match="database:view_credentials"):
        await only(tenants.rotate(["alpha"]))

    assert await tenants.get("alpha") == credential
    assert place.truth.passwords["alpha"] == credential.password
    record = await place.store.get("alpha")
    assert record is not None
    assert intended_login(record) not in (None, "alpha")
    assert requests(place.sandbox, "users.reset_auth") == 1


async def test_a_list_that_is_refused_is_asked_for_once(place: Narrow) -> None:
    place.sandbox.faults.add("users.list", status=403)

    outcomes = [outcome async for outcome in Tenants(place.full, place.store).provision(["alpha", "beta", "gamma"])]

    assert [outcome.action for outcome in outcomes] == [Action.CREATED] * 3
    assert requests(place.sandbox, "users.list") == 1
