"""What a run does when a reset's answer cannot be read, or the API refuses for longer than its window."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from aiodbclient import RetryPolicy
from aiodbclient.bulk import Action
from aiodbclient.rate_limiter import RateLimiter, Window

from ..conftest import MakeCluster
from ..server import Server, fails, returns_the_user

PERFORMED = 0.3  # seconds


@pytest.mark.parametrize("engine", ["pg", "mongodb"])
@pytest.mark.parametrize(("status", "text"), [(202, ""), (200, "<html>a gateway</html>")])
async def test_rotate_reports_the_valid_password(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, engine: str, status: int, text: str
) -> None:
    """The server performs the first reset after its answer, when a reset sent at once would be done already."""
    monkeypatch.setattr("aiodbclient._bulk.settle.PERFORMED", PERFORMED)
    resets, password = 0, "old"

    def perform(number: int) -> None:
        nonlocal password
        password = f"password-{number}"

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal resets
        user = {"name": "a", "role": "normal"}
        if request.method == "POST":
            resets += 1
            if resets == 1:
                asyncio.get_running_loop().call_later(PERFORMED / 2, perform, resets)
                return web.Response(status=status, text=text)
            perform(resets)
        return web.json_response({"user": user | ({"password": password} if engine == "pg" or resets > 1 else {})})

    server.otherwise = answer
    [outcome] = await make_cluster(engine=engine).users.rotate(["a"])

    await asyncio.sleep(PERFORMED)
    assert outcome.action is Action.RESET
    assert outcome.user.password == password


async def test_429s_do_not_fail_a_name(server: Server, make_cluster: MakeCluster) -> None:
    """The hour can be used up for much longer than the limiter's shortest window."""
    limiter, retry = RateLimiter([Window(100, 0.05)]), RetryPolicy(max_tries=2)
    server.will(*(fails(429, retry_after="0.05") for _ in range(8)))
    server.otherwise = returns_the_user()

    [outcome] = await make_cluster(rate_limiter=limiter, retry=retry).users.rotate(["a"])

    assert outcome.action is Action.RESET
    assert len(server.requests) == 9
