"""The password that a run reports is the valid one, whatever happened to the answers of earlier resets.

The server performs a reset whose answer is lost or unreadable some time later.
"""

from __future__ import annotations

import asyncio
from itertools import count, product

import pytest
from aiohttp import web

from aiodbclient import RetryPolicy
from aiodbclient.bulk import Action

from ..conftest import MakeCluster
from ..server import Server, hangs_up
from ..waiting import until

LATEST = 0.15  # seconds
# The answer to a reset that the server performs later. None: it performs the reset, and then answers with the user.
ANSWERS = {
    "202": lambda: web.Response(status=202),
    "HTML": lambda: web.Response(text="<html>a gateway</html>"),
    "408": lambda: web.Response(status=408),
    "500": lambda: web.Response(status=500),
    "502": lambda: web.Response(status=502),
    "504": lambda: web.Response(status=504),
    "cut": None,
}
SEQUENCES = [(first,) for first in ANSWERS] + list(product(ANSWERS, repeat=2))


class Api:
    """Answers the n-th reset of each user as the user's sequence says, and then performs each at once."""

    def __init__(self, server: Server, *, returns_passwords: bool) -> None:
        server.otherwise = self.answer
        self.returns_passwords = returns_passwords
        self.passwords = {str(number): "old" for number in range(len(SEQUENCES))}
        self.performing = 0
        self._resets = {name: count() for name in self.passwords}
        self._loop = asyncio.get_running_loop()

    def user(self, name: str, *, is_read: bool) -> dict[str, str]:
        hidden = is_read and not self.returns_passwords
        return {"name": name, "role": "normal", "password": "" if hidden else self.passwords[name]}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/users"):
            return web.json_response({"users": [self.user(name, is_read=True) for name in self.passwords]})
        name = request.path.split("/")[5]
        if request.method == "GET":
            return web.json_response({"user": self.user(name, is_read=True)})
        number, sequence = next(self._resets[name]), SEQUENCES[int(name)]
        if number >= len(sequence):
            self.perform(name, number)
            return web.json_response({"user": self.user(name, is_read=False)})
        self.performing += 1
        self._loop.call_later(LATEST / (1 + number), self.perform_late, name, number)
        make = ANSWERS[sequence[number]]
        return await hangs_up(request) if make is None else make()

    def perform(self, name: str, number: int) -> None:
        self.passwords[name] = f"password-{number}"

    def perform_late(self, name: str, number: int) -> None:
        self.performing -= 1
        self.perform(name, number)


async def wrong(server: Server, make_cluster: MakeCluster, engine: str, retry: RetryPolicy) -> list[tuple[str, ...]]:
    """Reset each user by a run, and return the sequences after which the reported password is not the valid one."""
    api = Api(server, returns_passwords=engine == "pg")
    names = list(api.passwords)
    outcomes = await make_cluster(engine=engine, retry=retry, timeout=2.0).users.rotate(names, concurrency=len(names))
    await until(lambda: not api.performing)
    assert {outcome.action for outcome in outcomes} == {Action.RESET}
    return [
        sequence
        for sequence, outcome in zip(SEQUENCES, outcomes, strict=True)
        if outcome.user is not None and outcome.user.password != api.passwords[outcome.name]
    ]


@pytest.mark.parametrize("engine", ["pg", "mongodb"])
async def test_run_reports_the_valid_password(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr("aiodbclient._bulk.settle.PERFORMED", 2 * LATEST)
    assert await wrong(server, make_cluster, engine, RetryPolicy(base_delay=LATEST)) == []


async def test_run_without_waiting_reports_dead_passwords(
    server: Server, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: resets are repeated before the server has performed the earlier ones."""
    monkeypatch.setattr("aiodbclient._bulk.settle.PERFORMED", 0.0)
    assert {("202",), ("HTML",)} <= {*await wrong(server, make_cluster, "pg", RetryPolicy(base_delay=LATEST / 8))}
