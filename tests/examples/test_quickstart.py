"""The quickstart leaves the cluster unchanged, even if a step fails."""

from __future__ import annotations

from typing import Any

import pytest

import quickstart
from aiodbclient.sandbox import Sandbox

from ..sweeping import names_on


@pytest.fixture
async def cluster(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster that the environment names, as for a real one."""
    cluster = await sandbox.add_cluster("pg", backend="memory")
    monkeypatch.setenv("DIGITALOCEAN_API_URL", sandbox.url)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", sandbox.token)
    monkeypatch.setenv("DIGITALOCEAN_CLUSTER_ID", cluster)
    return cluster


async def test_it_runs_on_a_sandbox_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DIGITALOCEAN_CLUSTER_ID", raising=False)
    assert await quickstart.main() == 0

    printed = capsys.readouterr().out
    assert "runs on a sandbox" in printed
    assert "another one after reset_auth" in printed
    assert printed.count("removed the") == 2


async def test_runs_on_cluster_of_environment(
    cluster: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await names_on(sandbox, cluster)

    assert await quickstart.main() == 0

    assert await names_on(sandbox, cluster) == before
    assert {"users.create", "dbs.create", "users.reset_auth"} < {request.operation for request in sandbox.requests}
    printed = capsys.readouterr().out
    assert "sandbox" not in printed
    assert "AVNS_" not in printed  # the prefix of every password


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"operation": "users.create", "status": 500, "after": True}, id="created, and the answer lost"),
        pytest.param({"operation": "users.reset_auth", "status": 403}, id="a token that may not reset"),
        pytest.param({"operation": "dbs.create", "status": 422}, id="no database to be had"),
    ],
)
async def test_it_removes_its_own_objects_when_it_fails(
    cluster: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], fault: dict[str, Any]
) -> None:
    before = await names_on(sandbox, cluster)
    sandbox.faults.add(**fault)

    assert await quickstart.main() == 1

    assert await names_on(sandbox, cluster) == before
    assert fault["operation"] in capsys.readouterr().err


async def test_it_says_what_it_could_not_remove(
    cluster: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.faults.add("users.delete", status=403)

    assert await quickstart.main() == 1

    assert "the user quickstart_" in capsys.readouterr().err
    assert await names_on(sandbox, cluster, "quickstart_") != []
