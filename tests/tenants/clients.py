"""The client of a test: it knows no limit, and retries soon."""

from __future__ import annotations

from typing import Any

from aiodbclient import DatabaseClient, RateLimiter, RetryPolicy
from aiodbclient.sandbox import Sandbox


def client_of(sandbox: Sandbox, **retry: Any) -> DatabaseClient:
    policy = RetryPolicy(base_delay=0.01, **retry)
    return DatabaseClient(sandbox.token, base_url=sandbox.url, rate_limiter=RateLimiter([]), retry=policy)
