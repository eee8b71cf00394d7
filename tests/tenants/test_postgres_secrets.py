"""No frame of an error, also of an earlier one, shows a password: neither the administrator's nor a login's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import pytest
from attrs import fields, has
from psycopg.conninfo import make_conninfo

from aiodbclient.errors import DatabaseClientError
from aiodbclient.tenants._credential import Secret
from aiodbclient.tenants._servers.postgres import PostgresServer

from .managed import Managed
from .tenant import Tenant

NEW = "hunter2-hunter2"


def frames(error: BaseException) -> Iterator[FrameType]:
    """The frames of an error, and of those that it came from."""
    seen, waiting = set[int](), [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        trace = one.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
        waiting += getattr(one, "exceptions", ())


def shown(value: Any, depth: int = 3) -> str:
    """What a tool that reports errors with local variables shows of a value: its repr, and that of its parts."""
    text = repr(value)
    if depth and isinstance(value, dict):
        text += "".join(shown(each, depth - 1) for each in value.values())
    elif depth and isinstance(value, (list, tuple)):
        text += "".join(shown(each, depth - 1) for each in value)
    elif depth and has(type(value)):
        text += "".join(shown(getattr(value, each.name, None), depth - 1) for each in fields(type(value)))
    return text


def leaks(error: BaseException, secrets: tuple[str, ...], show: Callable[[Any], str] = shown) -> list[str]:
    found = [f"{type(error).__name__}: {error}"] if any(each in str(error) for each in secrets) else []
    for frame in frames(error):
        if Path(frame.f_code.co_filename).parent == Path(__file__).parent:
            continue
        for name, value in frame.f_locals.items():
            if any(each in show(value) for each in secrets):
                found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}: {name}")
    return found


async def life(tenant: Tenant) -> None:
    """Each step, with a new login."""
    await tenant.server.find(tenant.names)
    login = await tenant.add(password=NEW)
    await tenant.problems()
    await tenant.repair()
    await tenant.end(login)
    await tenant.steps.shut()


@pytest.mark.thorough
async def test_timeout_shows_no_password(managed: Managed, victim: Tenant) -> None:
    errors, found, began = 0, set[str](), monotonic()
    await life(Tenant(managed.postgres(), victim.names))
    whole = monotonic() - began
    for part in itertools.cycle(range(1, 50, 3)):
        if errors == 16:
            break
        tenant, began = Tenant(managed.postgres(), victim.names), monotonic()
        try:
            async with asyncio.timeout(whole * part / 60):
                await life(tenant)
                whole = monotonic() - began  # the machine was slower when it was measured
        except (TimeoutError, DatabaseClientError) as error:
            errors += 1
            found.update(leaks(error, ("doadmin-secret", NEW)))
    assert found == set()


async def test_refused_connection_shows_no_password(managed: Managed, victim: Tenant) -> None:
    wrong = Secret(make_conninfo(managed.admin, password="wrong-wrong", port=1))
    refused = Secret(make_conninfo(managed.admin, password="wrong-wrong"))
    for server in (PostgresServer(wrong, None), PostgresServer(refused, None)):
        steps = Tenant(server, victim.names).steps
        for step in (server.administrator(), server.find(victim.names), steps.end_logins(victim.logins)):
            with pytest.raises(DatabaseClientError) as caught:
                await step
            assert leaks(caught.value, ("wrong-wrong",)) == []
