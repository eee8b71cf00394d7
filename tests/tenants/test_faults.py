"""Answers are lost, late or refused, and claims are lost. The stored credential still works."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from random import Random
from typing import Any

import pytest
from psycopg import AsyncConnection

from aiodbclient import DatabaseClient, Engine, RateBudget
from aiodbclient._request.call import Meter
from aiodbclient.clusters import for_work
from aiodbclient.errors import (
    ClaimLostError,
    ConfigurationError,
    ConflictError,
    GrantError,
    InvalidArgumentError,
    InvalidResponseError,
    PermissionDeniedError,
    UnprocessableEntityError,
)
from aiodbclient.tenants import Credential, Tenants
from aiodbclient.tenants._claims import HeldClaim, clock
from aiodbclient.tenants._events import Timer
from aiodbclient.tenants._record import intended_login
from aiodbclient.tenants.testing import LONG

from .conftest import Place


async def works(credential: Credential) -> None:
    async with await AsyncConnection.connect(credential.uri) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS mine (x int)")


FAULTS: list[Any] = [
    pytest.param("users.create", {"cut": True}, id="create cut before"),
    pytest.param("users.create", {"cut": True, "after": True}, id="create cut after"),
    pytest.param("users.create", {"status": 500, "after": True}, id="create 500 after"),
    pytest.param("users.create", {"status": 522}, id="create 522"),
    pytest.param("users.create", {"html": True}, id="create answered with HTML"),
    pytest.param("users.create", {"password_empty_for": 0.4}, id="password returned late"),
    pytest.param("dbs.create", {"cut": True, "after": True}, id="db cut after"),
    pytest.param("dbs.create", {"status": 503}, id="db 503"),
    pytest.param("users.get", {"unseen_for": 1.0}, id="fresh names are not seen"),
]


@pytest.mark.parametrize(("operation", "fault"), FAULTS)
async def test_a_fault_is_settled(place: Place, operation: str, fault: dict[str, Any]) -> None:
    place.sandbox.faults.add(operation, times=1, **fault)

    credential = await place.tenants().ensure("alpha")

    await works(credential)
    record = await place.store.get("alpha")
    assert record is not None
    assert (record.current, record.intended) == (credential, None)
    logins = [user.name for user in await place.cluster.users.list() if user.name.startswith(place.prefix)]
    assert logins == [credential.username]


async def test_a_refusal_to_make_the_database_counts_unless_it_is_there(place: Place) -> None:
    place.sandbox.faults.add("dbs.create", status=422, times=1)
    with pytest.raises(UnprocessableEntityError) as caught:
        await place.tenants().ensure("alpha")
    assert not caught.value.may_have_applied
    assert await place.tenants().get("alpha") is None

    place.sandbox.faults.add("dbs.create", status=422, times=1, after=True)
    await works(await place.tenants().ensure("alpha", if_exists="adopt"))


async def test_a_login_that_could_not_be_seen_yet_is_adopted_and_not_reset(place: Place) -> None:
    before = await place.cluster.users.create(place.prefix + "alpha")
    place.sandbox.faults.add("users.get", unseen_for=1.0)

    credential = await place.tenants().ensure("alpha", if_exists="adopt")

    assert credential.password == before.password
    record = await place.store.get("alpha")
    assert record is not None
    assert record.intended is None


async def test_a_login_that_somebody_makes_in_between_is_left_alone_if_asked(place: Place) -> None:
    before = await place.cluster.users.create(place.prefix + "alpha")
    place.sandbox.faults.add("users.list", status=403, times=2)  # so that the create is refused

    for _ in range(2):
        [outcome] = [outcome async for outcome in place.tenants().provision(["alpha"], if_exists="error")]
        assert isinstance(outcome.error, ConflictError)

    assert (await place.cluster.users.get(before.name)).password == before.password


async def test_a_reset_that_is_performed_twice_leaves_a_credential_that_works(place: Place) -> None:
    tenants = place.tenants()
    first = await tenants.ensure("alpha")
    [_ async for _ in tenants.rotate(["alpha"])]
    await place.cluster.users.reset_auth(first.username)  # so that the next rotation is a reset
    place.sandbox.faults.add("users.reset_auth", cut=True, after=True, times=1)

    [rotated] = [outcome async for outcome in tenants.rotate(["alpha"], force=True)]

    assert rotated.credential is not None
    await works(rotated.credential)


async def test_an_error_leaves_the_intent_and_whoever_comes_next_goes_on(place: Place) -> None:
    place.sandbox.faults.add("users.create", status=403, times=1)
    with pytest.raises(PermissionDeniedError):
        await place.tenants().ensure("alpha")
    record = await place.store.get("alpha")
    assert record is not None
    assert (record.current, intended_login(record)) == (None, place.prefix + "alpha")
    assert await place.tenants().get("alpha") is None

    await works(await place.tenants().ensure("alpha"))


async def test_a_login_that_a_dead_process_made_is_reset_since_nobody_knows_its_password(place: Place) -> None:
    login = place.prefix + "alpha"
    claim = await place.store.claim("alpha", LONG)
    assert claim is not None
    await place.store.intend(claim, login)
    lost = await place.cluster.users.create(login)
    await place.store.release(claim)

    [outcome] = [outcome async for outcome in place.tenants().provision(["alpha"], if_exists="error")]

    assert outcome.credential is not None
    assert outcome.credential.password != lost.password
    await works(outcome.credential)


async def test_after_a_failed_removal_the_tenant_can_be_ensured_or_removed(place: Place) -> None:
    tenants = place.tenants()
    await tenants.ensure("alpha")
    place.sandbox.faults.add("dbs.delete", status=403, times=1)

    [outcome] = [outcome async for outcome in tenants.remove(["alpha"])]

    assert isinstance(outcome.error, PermissionDeniedError)
    assert await tenants.get("alpha") is None
    assert (await tenants.plan(["alpha"])).resume == ("alpha",)
    await works(await tenants.ensure("alpha"))
    [outcome] = [outcome async for outcome in tenants.remove(["alpha"])]
    assert outcome.ok


async def test_a_just_removed_tenant_is_created_again_although_it_is_still_listed(place: Place) -> None:
    tenants = place.tenants()
    place.sandbox.faults.add("users.delete", still_listed_for=5.0)
    await tenants.ensure("alpha")
    [_ async for _ in tenants.remove(["alpha"])]

    [outcome] = [outcome async for outcome in tenants.provision(["alpha"])]

    assert outcome.credential is not None
    await works(outcome.credential)


async def test_missing_rights_of_the_administrator_are_reported_with_the_statement_and_no_secret(place: Place) -> None:
    plain = await place.cluster.users.create(place.prefix + "plain")
    admin = (await place.cluster.info()).connection.uri_for(plain)

    with pytest.raises(GrantError) as caught:
        await place.tenants(admin=admin).ensure("alpha")

    error = caught.value
    assert error.tenant == "alpha"
    assert error.statement.startswith("CREATE ROLE")
    assert "the name is on record for the cluster " in str(error)
    assert ", without a credential" in str(error)
    assert plain.password is not None
    assert plain.password not in str(error)
    await works(await place.tenants().ensure("alpha"))


async def test_an_administrator_who_cannot_log_in_is_met_before_anything_is_made(place: Place) -> None:
    connection = (await place.cluster.info()).connection
    admin = f"postgresql://doadmin:wrong-secret@{connection.host}:{connection.port}/defaultdb"
    with pytest.raises(GrantError, match="cannot log in") as caught:
        await place.tenants(admin=admin).ensure("alpha")
    assert "wrong-secret" not in str(caught.value)
    assert not caught.value.may_have_applied
    assert not [what for what, _ in place.sent() if what is not None and what.endswith("create")]
    for nonsense in ("nonsense wrong-secret", "postgresql://doadmin:a@wrong-secret@127.0.0.1/defaultdb"):
        with pytest.raises(ConfigurationError, match="not a DSN") as refused:
            await place.tenants(admin=nonsense).ensure("alpha")
        assert "wrong-secret" not in str(refused.value)


async def test_a_token_without_view_credentials_needs_an_administrator(place: Place) -> None:
    primary = (await place.cluster.info()).connection
    token = place.sandbox.add_token(["database:read", "database:create", "database:update", "database:delete"])
    async with DatabaseClient(token, base_url=place.sandbox.url, budget=RateBudget([])) as client:
        cluster = client.cluster(place.cluster.id)
        with pytest.raises(ConfigurationError, match="database:view_credentials"):
            await Tenants(cluster, place.store, place.prefix).ensure("alpha")
        assert await place.store.get("alpha") is None

        user = await place.cluster.users.get("doadmin")
        tenants = Tenants(cluster, place.store, place.prefix, admin=primary.uri_for(user))
        await works(await tenants.ensure("alpha"))


async def test_an_ensure_that_is_cancelled_anywhere_can_be_repeated(place: Place) -> None:
    random = Random(20261)
    tenants = place.tenants()
    for number in range(12):
        ensuring = asyncio.create_task(tenants.ensure(f"n{number}"))
        await asyncio.sleep(random.uniform(0.0, 0.25))
        ensuring.cancel()
        await asyncio.gather(ensuring, return_exceptions=True)

    outcomes = [outcome async for outcome in tenants.provision(f"n{number}" for number in range(12))]

    assert len(outcomes) == 12
    for outcome in outcomes:
        assert outcome.credential is not None, outcome.error
        await works(outcome.credential)


async def test_mongodb_gets_its_rights_by_the_api_and_returns_its_password_once(place: Place) -> None:
    cluster = place.client.cluster(await place.sandbox.add_cluster("mongodb"))
    tenants = Tenants(cluster, place.store)
    place.sandbox.faults.add("users.create", cut=True, after=True, times=1)

    alpha = await tenants.ensure("alpha")
    [rotated] = [outcome async for outcome in tenants.rotate(["alpha"])]

    assert alpha.engine is Engine.MONGODB
    assert alpha.password
    assert alpha.uri.startswith("mongodb+srv://alpha:")
    assert "/alpha?" in alpha.uri
    assert rotated.credential is not None
    for login in (alpha.username, rotated.credential.username):
        settings = (await cluster.users.get(login)).settings
        assert settings is not None
        assert settings.mongo_user_settings is not None
        assert (settings.mongo_user_settings.databases, settings.mongo_user_settings.role) == (["alpha"], "readWrite")
    await cluster.users.create("beta")
    [failed] = [outcome async for outcome in tenants.provision(["beta"], if_exists="adopt")]
    assert isinstance(failed.error, InvalidResponseError)
    assert 'if_exists="reset"' in str(failed.error)


@pytest.mark.parametrize("engine", ["kafka", "opensearch"])
async def test_topics_and_indexes_are_given_by_prefix(place: Place, engine: str) -> None:
    cluster = place.client.cluster(await place.sandbox.add_cluster(engine))
    credential = await Tenants(cluster, place.store).ensure("alpha")
    settings = (await cluster.users.get("alpha")).settings
    assert settings is not None
    acl: list[tuple[str | None, str | None]] = [(entry.topic, entry.permission) for entry in settings.acl or ()]
    acl += [(entry.index, entry.permission) for entry in settings.opensearch_acl or ()]
    assert acl == [("alpha-5306d220.*", "admin")]
    assert credential.prefix == "alpha-5306d220."
    assert credential.database is None
    assert credential.env()


async def test_a_store_of_another_cluster_is_not_used(place: Place) -> None:
    await place.tenants().ensure("alpha")
    other = place.client.cluster(await place.sandbox.add_cluster("mongodb"))
    with pytest.raises(
        InvalidArgumentError, match=f"is on record for the cluster {place.cluster.id}, but this is {other.id}"
    ):
        await Tenants(other, place.store).get("alpha")


STOPPED = """
import asyncio, sys
from aiodbclient import DatabaseClient
from aiodbclient.tenants import SQLiteStore, Tenants

async def main(cluster, store, prefix):
    async with DatabaseClient() as client, SQLiteStore(store) as opened:
        tenants = Tenants(client.cluster(cluster), opened, prefix, lease=1.0)
        async for outcome in tenants.rotate(["alpha"], force=True):
            print(outcome.action, outcome.error)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_a_worker_that_sleeps_past_its_lease_leaves_no_record_that_is_dead(
    place: Place, tmp_path: Path, after: bool
) -> None:
    """A process is stopped during its reset. Another one takes over, and finishes before the first one wakes."""
    tenants = place.tenants(lease=1.0)
    first = await tenants.ensure("alpha")
    [_ async for _ in tenants.rotate(["alpha"])]
    await place.cluster.users.reset_auth(first.username)  # so that the next rotation is a reset
    reset = place.sandbox.faults.add("users.reset_auth", delay=4.0, after=after, times=1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STOPPED, place.cluster.id, str(tmp_path / "tenants.db"), place.prefix),
        env=os.environ | {"DIGITALOCEAN_TOKEN": place.sandbox.token, "DIGITALOCEAN_API_URL": place.sandbox.url},
        stdout=PIPE,
    )
    while not reset.fired:
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGSTOP)

    [outcome] = [outcome async for outcome in tenants.rotate(["alpha"], force=True)]
    assert outcome.credential is not None
    await asyncio.sleep(4.5 if not after else 0.0)  # the reset of the sleeping process comes after ours
    process.send_signal(signal.SIGCONT)
    printed, _ = await process.communicate()

    assert printed.decode().startswith("kept None"), printed
    record = await place.store.get("alpha")
    assert record is not None
    assert record.current is not None
    assert record.intended is None
    await works(record.current)


async def test_nothing_is_sent_once_the_lease_has_run_out(place: Place) -> None:
    """As if the process was stopped while a request waited for the rate limit."""
    claim = await place.store.claim("alpha", LONG)
    assert claim is not None
    held = HeldClaim(place.store, claim, LONG, clock() - LONG - 1, Timer(Meter()))
    before = len(place.sent())

    with pytest.raises(ClaimLostError, match="was not sent"):
        await for_work(place.cluster, Meter(), before_sending=held.check_lease).users.create("alpha")

    assert len(place.sent()) == before
