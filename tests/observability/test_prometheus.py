"""The Prometheus example counts the requests that were really sent."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy, errors
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants
from prometheus_metrics import record_metrics, record_tenants


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox with a small burst window."""
    with Sandbox(windows=[Window(limit=8, seconds=0.5)]) as running:
        yield running


def read(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """The samples in the exposition text, by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


async def test_each_request_is_counted_by_operation_and_status(sandbox: Sandbox, registry: CollectorRegistry) -> None:
    """The labels are no names and no secrets."""
    async with DatabaseClient(
        sandbox.token,
        base_url=sandbox.url,
        rate_limiter=RateLimiter([]),
        retry=RetryPolicy(max_tries=20, base_delay=0.01),
        on_event=record_metrics(registry),
    ) as client:
        cluster = await sandbox.add_cluster("pg", backend="memory")
        users = client.cluster(cluster, engine="pg").users
        await asyncio.gather(*(users.create(f"tenant{number}") for number in range(12)))
        sandbox.faults.add("users.get", status=503, nth=1)
        password = (await users.get("tenant0")).password or ""
        sandbox.faults.add("users.delete", cut=True, nth=1)
        await users.delete("tenant0")
        with pytest.raises(errors.NotFoundError):
            await users.get("tenant0")

    counters = read(registry)
    counted = {key[1:]: value for key, value in counters.items() if key[0] == "aiodbclient_requests_total"}
    wire = Counter((request.operation, str(request.status or "ConnectionLostError")) for request in sandbox.requests)
    assert counted == wire
    assert {("users.create", "429"), ("users.create", "201"), ("users.get", "404")} < set(wire)
    throttled = wire["users.create", "429"]
    assert counters["aiodbclient_throttled_total", "users.create"] == throttled > 0
    assert counters["aiodbclient_retries_total", "users.create"] == throttled
    assert counters["aiodbclient_retries_total", "users.delete"] >= 1
    assert counters["aiodbclient_rate_limit_wait_seconds_total", "users.create"] > 0.2
    assert counters["aiodbclient_request_duration_seconds_count", "users.create"] == 12 + throttled
    text = generate_latest(registry).decode()
    assert not any(word in text for word in ("tenant0", cluster, password, sandbox.token))


def test_the_example_prints_what_prometheus_reads() -> None:
    example = Path(__file__).parents[2] / "examples" / "prometheus_metrics.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    families = list(text_string_to_metric_families(done.stdout))
    assert {family.name for family in families} >= {
        "aiodbclient_requests",
        "aiodbclient_retries",
        "aiodbclient_throttled",
        "aiodbclient_rate_limit_wait_seconds",
        "aiodbclient_request_duration_seconds",
    }
    assert re.search(r'aiodbclient_throttled_total\{operation="users.create"\} [1-9]', done.stdout)


async def test_tenants_are_counted_by_action(registry: CollectorRegistry, tmp_path: Path) -> None:
    async with (
        Sandbox(windows=[]) as sandbox,
        DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([])) as client,
        SQLiteStore(tmp_path / "tenants.db") as store,
    ):
        cluster = client.cluster(await sandbox.add_cluster("pg", backend="postgres"))
        tenants = Tenants(cluster, store, on_event=record_tenants(registry))
        await tenants.ensure("alpha")
        await tenants.ensure("alpha")
        await cluster.dbs.create("beta")
        with pytest.raises(errors.NameTakenError):
            await tenants.ensure("beta")

    found = read(registry)
    actions = {action: found["aiodbclient_tenants_total", action, "owner"] for action in ("created", "kept", "failed")}
    assert actions == {"created": 1, "kept": 1, "failed": 1}
    assert found["aiodbclient_tenant_seconds_total", "owner"] > 0
