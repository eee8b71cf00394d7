"""OpenTelemetry sees each request through aiohttp's instrumentation, without its secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import aiohttp
import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor, create_trace_config
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy, User, errors
from aiodbclient.sandbox import Sandbox


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


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_client_of_an_instrumented_process(traces: Traces, sandbox: Sandbox, is_first: bool) -> None:
    """The client may be older than the instrumentation."""
    client = a_client(sandbox) if is_first else None
    with instrumented(traces):
        async with client or a_client(sandbox) as client:
            users = await use(client, sandbox)
    check(traces, sandbox, users)


async def test_borrowed_session_with_trace_config(traces: Traces, sandbox: Sandbox) -> None:
    config = create_trace_config(tracer_provider=traces.provider)
    async with aiohttp.ClientSession(trace_configs=[config]) as session, a_client(sandbox, session) as client:
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
