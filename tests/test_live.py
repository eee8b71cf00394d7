"""``tests/live`` passes on the sandbox, fails where it differs from the pages, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiodbclient.sandbox import Answer, RecordedRequest, Sandbox

from .live import conftest as live
from .requirements import postgres_with_tls
from .sweeping import names_on

ROOT = Path(__file__).parents[1]


def run_live(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "DIGITALOCEAN"))}
    environment |= {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
    command = [sys.executable, "-m", "pytest", "tests/live", "--cluster", "mine", "-q", "-n", "0"]
    command += ["-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.thorough
def test_live_passes_on_postgres() -> None:
    with Sandbox() as sandbox:
        cluster_id = asyncio.run(sandbox.add_cluster("pg", "mine", server=postgres_with_tls()))
        done = run_live(sandbox)
        requests = len(sandbox.requests)
        assert asyncio.run(names_on(sandbox, cluster_id, "live-")) == []

    assert done.returncode == 0, done.stdout
    assert "16 passed" in done.stdout
    assert requests < 150


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["mongodb", "kafka", "opensearch"])
def test_live_passes_on_other_engines(engine: str) -> None:
    with Sandbox() as sandbox:
        asyncio.run(sandbox.add_cluster(engine, "mine"))
        done = run_live(sandbox)
    assert done.returncode == 0, done.stdout
    assert "skipped" in done.stdout


def test_live_fails_and_cleans_up() -> None:
    """Control: where the API differs, the test fails, and its user is deleted all the same."""

    def keep_password(request: RecordedRequest, answer: Answer) -> None:
        answer.body["user"]["password"] = "AVNS_always_the_same"

    with Sandbox() as sandbox:
        cluster_id = asyncio.run(sandbox.add_cluster("pg", "mine", backend="memory"))
        for operation in ("users.create", "users.reset_auth"):
            sandbox.faults.add(operation, change=keep_password)
        done = run_live(sandbox, "-k", "reset")
        assert asyncio.run(names_on(sandbox, cluster_id, "live-")) == []
    assert done.returncode == 1
    assert "1 failed" in done.stdout


@pytest.mark.parametrize(("cluster", "complaint"), [("", "name it with --cluster"), ("mine", "set DIGITALOCEAN_TOKEN")])
def test_live_needs_cluster_and_token(cluster: str, complaint: str) -> None:
    config: Any = SimpleNamespace(getoption={"--cluster": cluster}.get)

    with pytest.raises(pytest.UsageError, match=complaint):
        live.pytest_configure(config)


def test_suite_leaves_live_out(pytestconfig: pytest.Config) -> None:
    """``pytest tests`` enters the other folders."""
    ignores = pytestconfig.hook.pytest_ignore_collect

    assert (ROOT / "tests" / "live" / "test_tenants.py").exists()
    assert ignores(collection_path=ROOT / "tests" / "live", config=pytestconfig)
    assert not ignores(collection_path=ROOT / "tests" / "bulk", config=pytestconfig)
