"""The life of a login: made, in use, previous, ended. No request but those for the cluster."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from aiodbclient._masking import Secret
from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants import TenantAction, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._operations import tenant
from aiodbclient.tenants.errors import GrantError

from ...thorough import first_of
from ..conftest import SQL, Place, only, present
from ..leaks import leaks
from ..programs import refusal


async def test_operations_request_only_the_cluster(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    for _ in range(2):
        credential = await tenants.ensure("alpha")
        for run in (
            tenants.rotate,
            tenants.revoke_previous,
            tenants.suspend,
            tenants.resume,
            tenants.check,
            tenants.repair,
        ):
            assert (await only(run(["alpha"]))).error is None
        assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED
        assert await refusal(credential)
    assert {operation for operation, _ in anywhere.sent()} <= {"clusters.get", "clusters.ca"}
    assert len(anywhere.sent()) <= 2


async def test_each_rotation_makes_a_new_login(anywhere: Place) -> None:
    """With a name of its own, which goes on counting, and a password of its own."""
    tenants, names = anywhere.tenants(), names_of("alpha", (await anywhere.cluster.info()).engine, anywhere.prefix)
    used = [await tenants.ensure("alpha")]
    for _ in range(3):
        rotated = present((await only(tenants.rotate(["alpha"]))).credential)
        assert not await refusal(used[-1])
        assert (await only(tenants.revoke_previous(["alpha"]))).action is TenantAction.REVOKED
        assert await refusal(used[-1])
        assert not await refusal(rotated)
        used.append(rotated)
    assert [names.number(each.username) for each in used] == [1, 2, 3, 4]
    assert len({each.password for each in used}) == len(used)
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_rotation_goes_on_without_the_previous_login(anywhere: Place) -> None:
    """Somebody dropped it by hand."""
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    await anywhere.cluster.users.delete(first.username)

    rotated = await only(tenants.rotate(["alpha"], force=True))

    assert rotated.error is None
    assert (await only(tenants.check(["alpha"]))).problems == ()


Verb = Callable[[Tenants], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "rotate": lambda tenants: only(tenants.rotate(["alpha"], force=True)),
    "revoke-previous": lambda tenants: only(tenants.revoke_previous(["alpha"])),
    "repair": lambda tenants: only(tenants.repair(["alpha"])),
    "suspend": lambda tenants: only(tenants.suspend(["alpha"])),
    "remove": lambda tenants: only(tenants.remove(["alpha"])),
}


@pytest.mark.parametrize("operation", VERBS)
async def test_no_password_in_traceback_locals(anywhere: Place, operation: str) -> None:
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    second = present((await only(tenants.rotate(["alpha"]))).credential)
    connection = present((await anywhere.cluster.info()).connection)
    wrong = f"wrong-{secrets.token_hex(8)}"
    hidden = [Secret(each) for each in (wrong, first.password, second.password, connection.password) if each]
    for admin in (("doadmin", wrong), ("nobody", wrong)):
        error: BaseException | None = None
        try:
            outcome: Any = await VERBS[operation](anywhere.tenants(admin=admin))
            error = outcome.error
        except GrantError as ended:  # the whole run
            error = ended

        assert error is not None
        assert leaks(error, *hidden) == []


MILLISECONDS = (1, 4, 10, 20, 40, 80, 200)
CUT_OFF = ("ensure", "rotate", "suspend", "resume", "repair", "remove")
NEW = "Aa1-hunter2-hunter2-hunter2"


async def act(tenants: Tenants, operation: str) -> None:
    if operation == "ensure":
        await tenants.ensure("alpha")
        return
    options = {"force": True} if operation == "rotate" else {}  # again, if it was done when its time was up
    run: AsyncIterable[Any] = getattr(tenants, operation)(["alpha"], **options)
    async for outcome in run:
        if outcome.error is not None:
            raise outcome.error


async def cut_off(tenants: Tenants, secrets: tuple[str, ...], waits: Iterable[int]) -> tuple[Counter[str], set[str]]:
    """How often each operation was cut off, and what the frames of its errors showed."""
    cut, found = Counter[str](), set[str]()
    for milliseconds in waits:
        for operation in CUT_OFF:
            try:
                async with asyncio.timeout(milliseconds / 1000):
                    await act(tenants, operation)
            except (TimeoutError, DatabaseClientError) as error:
                cut[operation] += 1
                found.update(leaks(error, *secrets))
            await act(tenants, operation)  # to its end, so that the next operation has something to do
    return cut, found


@pytest.mark.parametrize("its_cluster", first_of(reversed(SQL)), indirect=True)  # PostgreSQL takes longer
async def test_no_password_in_frames_under_timeout(anywhere: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    info = await anywhere.cluster.info()
    assert info.connection is not None
    assert info.connection.password
    secrets = (info.connection.password, NEW)

    monkeypatch.setattr(tenant, "new_password", lambda: Secret(NEW))
    cut, found = await cut_off(anywhere.tenants(), secrets, MILLISECONDS)
    assert set(cut) == set(CUT_OFF)
    assert found == set()

    shown = set[str]()
    for milliseconds in range(0, 100, 5):  # after the password was made: a frame would show it, if it were no Secret
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as timeout:

                def plain(cut: asyncio.Timeout = timeout, wait: float = milliseconds / 1000) -> str:
                    cut.reschedule(asyncio.get_running_loop().time() + wait)
                    return NEW

                monkeypatch.setattr(tenant, "new_password", plain)
                try:
                    await anywhere.tenants().ensure(f"beta-{milliseconds}")
                except asyncio.CancelledError as error:
                    shown.update(leaks(error, *secrets))
                    raise
        if shown:
            return
    pytest.fail("no frame showed the password that is no Secret, so the test would not see one")
