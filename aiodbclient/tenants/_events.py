"""``TenantEvent``: the work on one tenant and its duration, for metrics and audit logs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from attrs import frozen

from .._bulk.outcomes import Action
from .._request.call import Meter
from .._request.events import logger
from ._roles import Role

T = TypeVar("T")


@frozen
class TenantEvent:
    """The finished work on one tenant. It holds no credential.

    Attributes:
        name: The tenant.
        role: The role of the login.
        action: The action of its outcome.
        duration: Seconds in all.
        api: Seconds of requests to the API, including waits for the rate limit.
        sql: Seconds in the database server.
        store: Seconds in the store.
        requests: The number of requests to the API.
        error: The name of the exception's class; None if the work did not fail.
    """

    name: str
    role: Role
    action: Action
    duration: float
    api: float
    sql: float
    store: float
    requests: int
    error: str | None


class Spent:
    """Counts the seconds and the requests of the work on one tenant.

    Args:
        meter: Counts its requests.
    """

    __slots__ = ("meter", "sql", "start", "store")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.sql = 0.0
        self.store = 0.0
        self.start = monotonic()

    async def on_sql(self, call: Awaitable[T]) -> T:
        """Await ``call``, and count its seconds as SQL, except those of requests and of the store."""
        start = monotonic() - self.meter.seconds - self.store
        try:
            return await call
        finally:
            self.sql += max(0.0, monotonic() - self.meter.seconds - self.store - start)

    async def on_store(self, call: Awaitable[T]) -> T:
        """Await ``call``, and count its seconds as those of the store."""
        start = monotonic()
        try:
            return await call
        finally:
            self.store += monotonic() - start

    def report(
        self, on_event: Callable[[TenantEvent], object] | None, name: str, role: Role, action: Action, error: str | None
    ) -> None:
        """Call ``on_event`` with the event. If it raises, log the exception."""
        if on_event is None:
            return
        meter = self.meter
        event = TenantEvent(
            name, role, action, monotonic() - self.start, meter.seconds, self.sql, self.store, meter.requests, error
        )
        try:
            on_event(event)
        except Exception:  # noqa: BLE001 - the work is done, even if its event fails
            logger.exception("on_event raised")
