"""Logins of strangers, records for another place, and working credentials are left unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TypeVar

import psycopg
import pytest
from psycopg import AsyncConnection

from aiodbclient import Outcome
from aiodbclient.errors import ConfigurationError, ConflictError, InvalidArgumentError
from aiodbclient.tenants import Credential, Tenants

from ..requirements import postgres_with_tls
from .conftest import Place
from .dying import begun

Out = TypeVar("Out", bound=Outcome)


async def works(credential: Credential) -> bool:
    try:
        async with await AsyncConnection.connect(credential.uri) as connection:
            await connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def by_name(run: AsyncIterable[Out]) -> dict[str, Out]:
    return {outcome.name: outcome async for outcome in run}


async def test_login_of_stranger_not_on_record(place: Place) -> None:
    tenants = place.tenants()
    await place.cluster.users.create(place.prefix + "alpha")

    outcomes = await by_name(tenants.provision(["alpha"], if_exists="error"))

    assert isinstance(outcomes["alpha"].error, ConflictError)
    assert await place.store.get("alpha") is None


async def elsewhere(place: Place, what: str) -> Tenants:
    """Tenants with the same store and another prefix, or another cluster."""
    if what == "another prefix":
        return place.tenants(prefix=f"{place.prefix}other_")
    other = place.client.cluster(await place.sandbox.add_cluster("pg", backend="postgres"))
    return Tenants(other, place.store, prefix=place.prefix)


@pytest.mark.parametrize("what", ["another cluster", "another prefix"])
@pytest.mark.parametrize("removing", [False, True], ids=["in use", "in removal"])
async def test_records_for_another_place_are_left_alone(place: Place, what: str, removing: bool) -> None:
    wrong = await elsewhere(place, what)
    credential = await place.tenants().ensure("alpha")
    if removing:
        await begun(place, lambda dying: by_name(dying.remove(["alpha"])))
    record = await place.store.get("alpha")
    before = len(place.sent())

    for run in (wrong.provision, wrong.rotate, wrong.revoke_previous, wrong.remove):
        outcome = (await by_name(run(["alpha"])))["alpha"]
        assert isinstance(outcome.error, InvalidArgumentError)
        assert "a name is taken in the whole store" in str(outcome.error)
        assert what == "another prefix" or place.cluster.id in str(outcome.error)
    for call in (wrong.ensure("alpha"), wrong.get("alpha")):
        with pytest.raises(InvalidArgumentError, match="a name is taken in the whole store"):
            await call
    assert await by_name(wrong.check()) == {}
    for over_all in (wrong.repair, wrong.rotate, wrong.revoke_previous):
        assert await by_name(over_all(all=True)) == {}
    assert [each async for each in wrong.records()] == []

    reads = {"clusters.get", "clusters.ca"}
    assert {what for what, _ in place.sent()[before:]} <= reads
    assert await place.store.get("alpha") == record
    assert await works(credential)


async def test_missing_authority_before_create(place: Place) -> None:
    cluster_id = await place.sandbox.add_cluster("pg", server=postgres_with_tls())
    place.sandbox.faults.add("clusters.ca", status=404)
    tenants = Tenants(place.client.cluster(cluster_id), place.store)

    with pytest.raises(ConfigurationError, match=r"uses TLS, but the API returns no certificate authority"):
        await tenants.ensure("alpha")

    assert await place.store.get("alpha") is None
    assert not [what for what, _ in place.sent() if what not in ("clusters.get", "clusters.ca")]
