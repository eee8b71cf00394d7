"""``TenantEvent``: the work on one tenant and its duration, for metrics and audit logs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Literal, TypeVar

from attrs import frozen

from .._bulk.outcomes import Action
from .._request.call import Meter
from .._request.events import logger
from ._naming import Role

T = TypeVar("T")


@frozen
class TenantEvent:
    """The finished work on one tenant. It holds no credential.

    Attributes:
        name: The tenant.
        role: The role of the login.
        action: The action of its outcome.
        duration: Seconds in all.
        api: Seconds of requests to the API, including ``budget``.
        sql: Seconds in the database server, and in the programs of a move or a dump.
        store: Seconds in the store.
        requests: The number of requests to the API.
        error: The name of the exception's class; None if the work did not fail.
        budget: Seconds of waiting for the rate limit.
        turn: Seconds of waiting for other tenants of the same run, because a cluster works on few at a time.
        claim: Seconds of waiting for another process that works on the tenant.
        setup: Seconds in your ``setup``, or in the work that you gave to ``each``.
        ended: Logins of others whose sessions were ended, because they were in the way.
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
    budget: float = 0.0
    turn: float = 0.0
    claim: float = 0.0
    setup: float = 0.0
    ended: tuple[str, ...] = ()


class Timer:
    """Counts the seconds and the requests of the work on one tenant."""

    __slots__ = ("_counted", "_seconds", "_start", "ended", "meter")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.ended = set[str]()  # others whose sessions were ended
        self._start = monotonic()
        self._seconds = defaultdict[str, float](float)
        self._counted = 0.0  # of all kinds

    async def on(self, what: Literal["sql", "store", "setup", "turn", "claim"], call: Awaitable[T]) -> T:
        """Await ``call``, and count its seconds as ``what``, except those of requests and of other kinds."""
        start = monotonic() - self.meter.seconds - self._counted
        try:
            return await call
        finally:
            seconds = max(0.0, monotonic() - self.meter.seconds - self._counted - start)
            self._seconds[what] += seconds
            self._counted += seconds

    def report(
        self, on_event: Callable[[TenantEvent], object] | None, name: str, role: Role, action: Action, error: str | None
    ) -> None:
        """Call ``on_event`` with the event. If it raises, log the exception."""
        if on_event is None:
            return
        meter, seconds = self.meter, self._seconds
        event = TenantEvent(
            name=name,
            role=role,
            action=action,
            duration=monotonic() - self._start,
            api=meter.seconds,
            sql=seconds["sql"],
            store=seconds["store"],
            requests=meter.requests,
            error=error,
            budget=meter.waited,
            turn=seconds["turn"],
            claim=seconds["claim"],
            setup=seconds["setup"],
            ended=tuple(sorted(self.ended)),
        )
        try:
            on_event(event)
        except Exception:  # noqa: BLE001 - the work is done, even if its event fails
            logger.exception("on_event raised")
