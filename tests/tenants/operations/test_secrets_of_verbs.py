"""Whenever a verb is cut off, no frame of its error shows a password: the administrator's, or a tenant's old or new."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from aiodbclient._masking import Secret
from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants import Tenants
from aiodbclient.tenants._operations import tenant

from ...thorough import first_of
from ..conftest import SQL, Place
from ..leaks import leaks

MILLISECONDS = (1, 4, 10, 20, 40, 80, 200)
VERBS = ("ensure", "rotate", "suspend", "resume", "repair", "remove")
NEW = "Aa1-hunter2-hunter2-hunter2"


async def act(tenants: Tenants, verb: str) -> None:
    if verb == "ensure":
        await tenants.ensure("alpha")
        return
    options = {"force": True} if verb == "rotate" else {}  # again, if it was done when its time was up
    run: AsyncIterable[Any] = getattr(tenants, verb)(["alpha"], **options)
    async for outcome in run:
        if outcome.error is not None:
            raise outcome.error


async def cut_off(tenants: Tenants, secrets: tuple[str, ...], waits: Iterable[int]) -> tuple[Counter[str], set[str]]:
    """How often each verb was cut off, and what the frames of its errors showed."""
    cut, found = Counter[str](), set[str]()
    for milliseconds in waits:
        for verb in VERBS:
            try:
                async with asyncio.timeout(milliseconds / 1000):
                    await act(tenants, verb)
            except (TimeoutError, DatabaseClientError) as error:
                cut[verb] += 1
                found.update(leaks(error, *secrets))
            await act(tenants, verb)  # to its end, so that the next verb has something to do
    return cut, found


@pytest.mark.parametrize("its_cluster", first_of(reversed(SQL)), indirect=True)  # PostgreSQL takes longer
async def test_no_password_in_frames_under_timeout(anywhere: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    info = await anywhere.cluster.info()
    assert info.connection is not None
    assert info.connection.password
    secrets = (info.connection.password, NEW)

    monkeypatch.setattr(tenant, "new_password", lambda: Secret(NEW))
    cut, found = await cut_off(anywhere.tenants(), secrets, MILLISECONDS)
    assert set(cut) == set(VERBS)
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
