"""The demo does what it says, and can fail."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import psycopg
import pytest

import demo
from aiodbclient import DatabaseClient, Window
from aiodbclient.sandbox import Sandbox

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_demo_shows_it_all() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "demo.py"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    told = done.stdout
    assert "1 database and 200 users, in" in told
    assert "as each of the 200, in" in told
    assert "the old one is refused, the new one works" in told
    assert "users.create on redis, before anything was sent (0 requests)" in told
    assert "204 in all, of which 0 met the rate limit" in told


class Broken(Sandbox):
    """One in which a user cannot be created."""

    async def __aenter__(self) -> Broken:
        self.faults.add("users.create", status=422, nth=3)
        return await super().__aenter__()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(Broken, "was not created: users.create", id="a user is missing"),
        pytest.param(
            partial(Sandbox, windows=[Window(6, 0.5), Window(5000, 3600.0)]),
            "met the rate limit",
            id="the rate limit was met",
        ),
    ],
)
def test_the_demo_fails_when_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: object, reason: str
) -> None:
    monkeypatch.setattr(demo, "Sandbox", broken)
    monkeypatch.setattr(demo, "NAMES", demo.NAMES[:6])

    assert demo.main() == 1
    assert reason in capsys.readouterr().out


async def test_a_login_that_works_is_not_taken_for_refused(sandbox: Sandbox) -> None:
    cluster = await sandbox.add_cluster("pg", backend="postgres")
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
        info = await client.clusters.get(cluster)
        user = await client.cluster(cluster).users.create("tenant")

        with pytest.raises(demo.Unexpected, match="still works"):
            await demo.expect_refused(info.connection.uri_for(user))
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            await demo.expect_refused(info.connection.uri_for(user, database="nowhere"))
