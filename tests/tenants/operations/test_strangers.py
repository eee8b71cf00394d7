"""Records for another cluster or prefix are left alone."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TypeVar

import pytest

from aiodbclient.bulk import Outcome
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Tenants

from ..conftest import Place
from ..dying import begun
from ..programs import refusal

Out = TypeVar("Out", bound=Outcome)


async def by_name(run: AsyncIterable[Out]) -> dict[str, Out]:
    return {outcome.name: outcome async for outcome in run}


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
    assert not await refusal(credential)
