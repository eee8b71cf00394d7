"""OpenTelemetry sees each request without its secrets, and the Prometheus example counts those that were sent."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor, create_trace_config
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy, User, errors
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants
from prometheus_metrics import record_metrics, record_tenants


class Traces:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    @property
    def text(self) -> str:
        """All exported data of the spans: names, attributes, events, states."""
        return "\n".join(span.to_json() for span in self.spans)


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.provider.shutdown()


@contextmanager
def instrumented(traces: Traces) -> Iterator[None]:
    AioHttpClientInstrumentor().instrument(tracer_provider=traces.provider)
    try:
        yield
    finally:
        AioHttpClientInstrumentor().uninstrument()


def a_client(sandbox: Sandbox, session: aiohttp.ClientSession | None = None) -> DatabaseClient:
    return DatabaseClient(
        sandbox.token,
        base_url=sandbox.url,
        session=session,
        rate_limiter=RateLimiter([]),
        retry=RetryPolicy(max_tries=2, base_delay=0.001),
    )


async def use(client: DatabaseClient, sandbox: Sandbox) -> list[User]:
    """Run into a success, a refusal, a retry and a lost answer. Returns the users, for their secrets."""
    users = client.cluster(await sandbox.add_cluster("pg", backend="memory")).users
    users_seen = [await users.create(f"tenant{number}") for number in range(5)]
    with pytest.raises(errors.APIError):
        await users.create("tenant0")
    sandbox.faults.add("users.get", status=503, nth=1)
    users_seen.append(await users.get("tenant1"))
    sandbox.faults.add("users.reset_auth", cut=True, after=True)
    with pytest.raises(errors.ConnectionLostError):
        await users.reset_auth("tenant2")
    sandbox.faults.clear()
    users_seen += [await users.reset_auth("tenant2"), *await users.list()]
    return users_seen


@pytest.mark.parametrize("which", ["older", "newer", "borrowed session"])
async def test_a_client_of_an_instrumented_process(traces: Traces, sandbox: Sandbox, which: str) -> None:
    """The client may be older than the instrumentation, or have a session with a trace config of its own."""
    config = create_trace_config(tracer_provider=traces.provider)
    async with aiohttp.ClientSession(trace_configs=[config]) as session:
        is_borrowed = which == "borrowed session"
        older = a_client(sandbox, session if is_borrowed else None) if which != "newer" else None
        with nullcontext() if is_borrowed else instrumented(traces):
            async with older or a_client(sandbox) as client:
                users = await use(client, sandbox)
    check(traces, sandbox, users)


def check(traces: Traces, sandbox: Sandbox, users: list[User]) -> None:
    assert len(traces.spans) == len(sandbox.requests)  # one span per try
    assert all(span.kind is SpanKind.CLIENT for span in traces.spans)
    assert {span.name for span in traces.spans} == {"GET", "POST"}
    statuses = [dict(span.attributes or {}).get("http.status_code") for span in traces.spans]
    assert statuses == [request.status for request in sandbox.requests]
    assert not all(span.status.is_ok for span in traces.spans)

    secrets = {sandbox.token, *(user.password for user in users if user.password)}
    assert len(secrets) > 5
    assert [secret for secret in secrets if secret in traces.text] == []
    assert "tenant1" in traces.text  # the URL is exported, with the names in it


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
