"""A tenant signs up on a real PostgreSQL. A name that no tenant can have is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from aiodbclient.errors import InvalidArgumentError, UnsupportedOperationError
from aiodbclient.tenants import Tenants
from aiodbclient.tenants.errors import TenantNotFoundError

from ...test_call_path import traced
from ..conftest import Place, only


async def test_second_ensure_sends_nothing(place: Place) -> None:
    first = await place.tenants().ensure("alpha")
    sent = len(place.sent())

    tenants = place.tenants()
    again = await tenants.ensure("alpha")

    assert again == first == await tenants.get("alpha")
    assert (first.name, first.database) == ("alpha", place.prefix + "alpha")
    assert first.username.startswith(f"{first.database}_")
    assert len(place.sent()) == sent
    assert await tenants.get("beta") is None


UNKNOWN = "does not know the engine 'cockroach'"


@pytest.mark.parametrize(
    ("engine", "given", "why"),
    [
        *(
            (engine, engine, f"{engine} clusters have")
            for engine in ("redis", "valkey", "mongodb", "kafka", "opensearch")
        ),
        *(("cockroach", given, UNKNOWN) for given in (None, "cockroach")),
    ],
)
async def test_engine_without_tenants_refused(place: Place, engine: str, given: str | None, why: str) -> None:
    """Nothing is on record, and nothing is sent to a cluster of a known engine."""
    cluster = place.client.cluster(await place.sandbox.add_cluster(engine), given)
    before = len(place.sent())
    tenants = Tenants(cluster, place.store)

    for make in (tenants.ensure("alpha"), tenants.provision(["alpha", "beta"])):
        with pytest.raises(UnsupportedOperationError, match=f"{why}.*nothing was created"):
            await make

    assert [operation for operation, _ in place.sent()[before:]] == ["clusters.get"] * (2 if why == UNKNOWN else 0)
    assert [record async for record in place.store.records()] == []


@pytest.mark.parametrize("store", [None, "tenants.db", {}])
async def test_invalid_store_refused(place: Place, store: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="store must have the methods of a Store, and"):
        Tenants(place.cluster, store)


BAD: Iterable[Any] = [
    "",
    " ",
    ".",
    "..",
    "defaultdb",
    "doadmin",
    "pg_x",
    "x" * 64,
    "a_0123456789ab_0001beef",
    "nul\0",
    7,
]


@pytest.mark.parametrize("name", BAD)
async def test_invalid_tenant_name_refused(place: Place, name: Any) -> None:
    tenants = place.tenants(prefix="")
    with pytest.raises(InvalidArgumentError):
        await tenants.ensure(name)
    assert not [what for what, _ in place.sent() if what not in ("clusters.get", "clusters.ca")]


@pytest.mark.parametrize("verb", ["check", "repair", "rotate", "revoke_previous", "suspend", "resume", "usage"])
async def test_unknown_tenant_fails_every_verb(place: Place, verb: str) -> None:
    run = getattr(place.tenants(), verb)
    outcome = await only(run(["nobody"]))
    assert isinstance(outcome.error, TenantNotFoundError)
    with pytest.raises(InvalidArgumentError, match="an iterable of names"):
        await anext(aiter(run("alpha")))
    assert place.sent() in ([], [("clusters.get", None)])
    assert await place.store.get("nobody") is None
    assert [outcome async for outcome in place.tenants().check()] == []


async def test_rotation_path(place: Place) -> None:
    """A rotation on a cluster that is known, as a person who reads it counts: each function once."""
    tenants = place.tenants()
    await tenants.ensure("acme")

    trace = await traced(only(tenants.rotate(["acme"])))

    print(trace)
    assert len(trace.functions) <= 113
    assert len(trace.files) <= 23
