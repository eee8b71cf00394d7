"""Prometheus metrics of a client: requests by status, retries, 429s, durations, and time spent waiting.

    python examples/prometheus_metrics.py

This sends a few requests to a sandbox and prints the metrics. In your app, pass ``record_metrics()`` as the client's
``on_event``, once per registry, and serve the registry as you do already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest

from aiodbclient import DatabaseClient, RateLimiter, RequestEvent, RetryPolicy
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import TenantEvent


def record_metrics(registry: CollectorRegistry = REGISTRY) -> Callable[[RequestEvent], None]:
    """An ``on_event`` that counts into ``registry``. The labels are operations and statuses, never names of users."""
    labels = ("operation",)
    requests = Counter("aiodbclient_requests", "Requests by status, or error.", (*labels, "status"), registry=registry)
    retries = Counter("aiodbclient_retries", "Requests that repeated a call.", labels, registry=registry)
    throttled = Counter("aiodbclient_throttled", "Requests answered with 429.", labels, registry=registry)
    waited = Counter(
        "aiodbclient_rate_limit_wait_seconds", "Time spent waiting for the rate limit.", labels, registry=registry
    )
    duration = Histogram(
        "aiodbclient_request_duration_seconds", "From sending to the complete answer.", labels, registry=registry
    )

    def record(event: RequestEvent) -> None:
        requests.labels(event.operation, event.status or event.error).inc()
        retries.labels(event.operation).inc(event.attempt > 1)
        throttled.labels(event.operation).inc(event.status == 429)
        waited.labels(event.operation).inc(event.waited)
        duration.labels(event.operation).observe(event.duration)

    return record


def record_tenants(registry: CollectorRegistry = REGISTRY) -> Callable[[TenantEvent], None]:
    """An ``on_event`` of ``Tenants`` that counts into ``registry``. The labels never hold names of tenants."""
    tenants = Counter("aiodbclient_tenants", "Tenants by role and action.", ("role", "action"), registry=registry)
    seconds = Counter("aiodbclient_tenant_seconds", "Time of the work on tenants.", ("role",), registry=registry)

    def record(event: TenantEvent) -> None:
        tenants.labels(event.role, event.action).inc()
        seconds.labels(event.role).inc(event.duration)

    return record


async def main() -> None:
    registry = CollectorRegistry()
    async with (
        Sandbox(windows=[Window(limit=8, seconds=0.5)]) as sandbox,
        DatabaseClient(
            sandbox.token,
            base_url=sandbox.url,
            rate_limiter=RateLimiter([]),  # no pacing, so that a 429 occurs
            retry=RetryPolicy(base_delay=0.05),
            on_event=record_metrics(registry),
        ) as client,
    ):
        users = client.cluster(await sandbox.add_cluster("pg", backend="memory")).users
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(users.create(f"tenant{number}"))
        sandbox.faults.add("users.list", status=503, nth=1)
        await users.list()
    print(generate_latest(registry).decode(), end="")


if __name__ == "__main__":
    asyncio.run(main())
