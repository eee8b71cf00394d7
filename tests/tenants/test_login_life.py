"""The life of a login: made, in use, previous, ended. Each step sends as few requests as the engine allows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from traceback import TracebackException
from typing import Any

import psycopg
import pymysql
import pytest
from attrs import evolve

from aiodbclient import Action
from aiodbclient.engines import MYSQL, Engine
from aiodbclient.tenants import Tenants
from aiodbclient.tenants import _logins as logins

from .conftest import SQL, Place, only
from .programs import ask, refusal, session_of


class Sent:
    """The requests since the last look, by their operation."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._seen = len(place.sent())

    def since(self) -> list[str | None]:
        sent = self._place.sent()
        new, self._seen = sent[self._seen :], len(sent)
        return [operation for operation, _ in new]


async def test_a_rotation_sends_one_request_and_a_retirement_at_most_one(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    ends = ["users.reset_auth"] if first.engine == Engine.MONGODB else []
    sent = Sent(anywhere)

    for rotation in range(3):
        before = await tenants.get("alpha")
        rotated = await only(tenants.rotate(["alpha"]))
        assert rotated.action is Action.ROTATED
        assert sent.since() == ["users.create" if rotation == 0 else "users.reset_auth"]
        assert (await only(tenants.retire(["alpha"]))).action is Action.RETIRED
        assert sent.since() == ends
        if first.engine != Engine.MONGODB:
            assert before is not None
            assert rotated.credential is not None
            assert await refusal(before)
            assert not await refusal(rotated.credential)
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_a_forced_rotation_sends_one_request(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    sent = Sent(anywhere)

    rotated = await only(tenants.rotate(["alpha"], force=True))

    assert rotated.credential is not None
    assert sent.since() == ["users.reset_auth"]


async def test_a_password_that_the_tenant_changed_costs_one_reset(place: Place) -> None:
    tenants = place.tenants()
    first = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    await ask(first, "SET ROLE NONE", "ALTER ROLE CURRENT_USER PASSWORD 'mine'")
    sent = Sent(place)

    assert (await only(tenants.rotate(["alpha"], force=True))).ok

    assert sent.since() == ["users.reset_auth", "users.reset_auth"]
    assert await refusal(first)


async def test_a_login_that_keeps_its_sessions_is_reset_at_the_next_rotation(place: Place) -> None:
    tenants = place.tenants()
    await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    sent = Sent(place)

    await only(tenants.retire(["alpha"], end_sessions=False))
    assert sent.since() == ["users.reset_auth"]
    assert (await only(tenants.rotate(["alpha"]))).ok
    assert sent.since() == ["users.reset_auth"]


@pytest.mark.parametrize("its_cluster", SQL, indirect=True)
async def test_a_session_that_was_left_open_ends_before_its_login_is_used_again(anywhere: Place) -> None:
    """It could set another password."""
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    async with session_of(first) as run:
        await run("SELECT 1")
        await only(tenants.rotate(["alpha"]))
        await only(tenants.retire(["alpha"], end_sessions=False))
        await run("SELECT 1")

        rotated = await only(tenants.rotate(["alpha"]))

        with pytest.raises((psycopg.Error, pymysql.Error)):
            await run("SELECT 1")
    assert rotated.credential is not None
    assert rotated.credential.username == first.username
    assert not await refusal(rotated.credential)
    assert (await only(tenants.check(["alpha"]))).problems == ()


@pytest.mark.parametrize("its_cluster", SQL[1:], indirect=True)
async def test_a_record_of_1_0_does_not_say_that_the_other_login_is_there(anywhere: Place) -> None:
    """The first rotation finds out, and the next ones know."""
    tenants = anywhere.tenants()
    assert (await tenants.ensure("alpha")).engine in MYSQL
    await only(tenants.rotate(["alpha"]))
    await only(tenants.retire(["alpha"]))
    record = await anywhere.store.get("alpha")
    claim = await anywhere.store.claim("alpha", 60.0)
    assert record is not None
    assert record.current is not None
    assert claim is not None
    await anywhere.store.keep(claim, evolve(record.current, spare=False))
    sent = Sent(anywhere)

    await only(tenants.rotate(["alpha"]))
    assert sent.since() == ["users.create", "users.reset_auth"]
    await only(tenants.retire(["alpha"]))
    sent.since()
    await only(tenants.rotate(["alpha"]))
    assert sent.since() == ["users.reset_auth"]


@pytest.mark.parametrize("retired", [True, False])
async def test_a_login_that_is_gone_is_made_by_the_next_rotation(anywhere: Place, retired: bool) -> None:
    """Version 1.0 deleted a retired login on PostgreSQL; elsewhere somebody may delete it by hand."""
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    if retired:
        await only(tenants.retire(["alpha"]))
    await anywhere.cluster.users.delete(first.username)

    rotated = await only(tenants.rotate(["alpha"], force=True))

    assert rotated.credential is not None
    assert rotated.credential.username == first.username
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_a_removal_deletes_each_login_once(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    credential = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    sent = Sent(anywhere)

    assert (await only(tenants.remove(["alpha"]))).action is Action.DELETED

    assert credential.database is not None
    logins = ["users.delete", "users.delete"]
    first_logins = credential.engine == Engine.MONGODB
    assert sent.since() == ([*logins, "dbs.delete"] if first_logins else ["dbs.delete", *logins])


async def test_a_login_that_is_made_is_waited_for_without_a_second_create(
    mongodb_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was just made may answer 404 to a reset."""
    monkeypatch.setattr(logins, "_VISIBLE", 0.2)
    tenants = mongodb_place.tenants()
    await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    mongodb_place.sandbox.faults.add("users.reset_auth", status=404, times=1)
    sent = Sent(mongodb_place)

    assert (await only(tenants.retire(["alpha"]))).action is Action.RETIRED

    assert sent.since() == ["users.reset_auth", "users.reset_auth"]


Verb = Callable[[Tenants], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "rotate": lambda tenants: only(tenants.rotate(["alpha"], force=True)),
    "retire": lambda tenants: only(tenants.retire(["alpha"])),
    "repair": lambda tenants: only(tenants.repair(["alpha"])),
    "suspend": lambda tenants: only(tenants.suspend(["alpha"])),
    "remove": lambda tenants: only(tenants.remove(["alpha"])),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_no_traceback_shows_a_password_among_its_local_variables(anywhere: Place, verb: str) -> None:
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    second = (await only(tenants.rotate(["alpha"]))).credential
    assert second is not None
    if verb == "repair":
        await anywhere.cluster.users.reset_auth(second.username)
    for operation in ("users.create", "users.reset_auth", "users.delete", "dbs.delete"):
        anywhere.sandbox.faults.add(operation, status=403)

    outcome: Any = await VERBS[verb](tenants)

    if outcome.error is None:  # MySQL ends a login without the API, and MongoDB needs no repair
        return
    shown = "".join(TracebackException.from_exception(outcome.error, capture_locals=True).format())
    assert "end_login" in shown or "working_credential" in shown or "delete" in shown
    connection = (await anywhere.cluster.info()).connection
    assert connection is not None
    for secret in (first.password, second.password, connection.password):
        assert secret is None or secret not in shown
