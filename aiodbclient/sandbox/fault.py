"""``Fault``: one failure that a sandbox is to show. Pure."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from .keeper.choice import Choice

_SPEC = (
    *("id", "name", "nth", "times", "probability", "seed", "lasts"),
    *("cut", "delay", "after", "stop", "sqlstate", "breaks_after"),
)
_IDS = itertools.count(1)


@define(kw_only=True, eq=False)
class Fault:
    """A failure that a sandbox is to show: the arguments of ``faults.add``, which returns it, and two counters.

    Attributes:
        operations: The operations that it is for; None for all.
        cluster: The id of the only cluster that it is for; None for all.
        name: The name of the only user or db that it is for; None for all.
        nth: The request that it begins with, counted from 1; None for the first.
        times: The number of requests that it fails at most; None: no limit, or 1 with ``nth``.
        probability: The share of the requests that it fails, from 0 to 1.
        seed: What ``probability`` draws from; None for random numbers.
        lasts: Seconds from the first request that it fails until it is over; None: it is never over.
        cut: Whether the connection is closed without an answer.
        delay: Seconds until the work is done.
        status: The status that is answered instead; None to leave it.
        not_implemented: Whether 501 is answered, with the words of the provider.
        headers: Headers that are added to the answer.
        html: Whether the body is a proxy's HTML page.
        truncate: Whether the body breaks off in the middle.
        after: Whether it happens when the work has been done, and not instead of the work.
        answer_name: The name that stands in the answer; None to leave it.
        endless: Whether every page of a list has a next one.
        unseen_for: Seconds for which a new user or db is answered by 404.
        password_empty_for: Seconds for which a new password is returned as ``""``.
        still_listed_for: Seconds for which a deleted user is listed.
        reset_skew: Seconds that are added to ``ratelimit-reset``.
        stop: Whether the database stops.
        sqlstate: The error of SQL by which the login is refused; None to leave it.
        breaks_after: The statements after which the connection breaks; None: it does not.
        id: A number that no other fault of this process has.
        seen: The number of requests that it was for, so far.
        fired: The number of requests that it failed, so far.
    """

    operations: frozenset[str] | None
    cluster: str | None
    name: str | None
    nth: int | None
    times: int | None
    probability: float
    seed: int | None
    lasts: float | None
    cut: bool
    delay: float
    status: int | None
    not_implemented: bool
    headers: Mapping[str, str]
    html: bool
    truncate: bool
    after: bool
    answer_name: str | None
    endless: bool
    unseen_for: float
    password_empty_for: float
    still_listed_for: float
    reset_skew: float
    stop: bool
    sqlstate: str | None
    breaks_after: int | None
    id: int = field(factory=lambda: next(_IDS), init=False, repr=False)
    _choice: Choice = field(init=False, repr=False)
    _count: Callable[[Fault], tuple[int, int]] | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._choice = Choice(self.nth, self.times, self.probability, self.seed, self.lasts)

    @property
    def is_of_sql(self) -> bool:
        """Whether it happens to SQL, and not to requests of the API."""
        return self.operations is not None and any(operation.startswith("sql.") for operation in self.operations)

    @property
    def seen(self) -> int:
        return self._counted()[0]

    @property
    def fired(self) -> int:
        return self._counted()[1]

    def _counted(self) -> tuple[int, int]:
        return self._count(self) if self._count is not None else (self._choice.seen, self._choice.fired)

    def count_by(self, count: Callable[[Fault], tuple[int, int]]) -> None:
        """Read the counters from where the faults of SQL happen."""
        self._count = count

    def spec(self) -> dict[str, Any]:
        """What the front of a server (``keeper/faults.py``) needs to know of a fault of SQL, as JSON."""
        return {"operations": sorted(self.operations or ())} | {name: getattr(self, name) for name in _SPEC}

    def fires(self, operation: str | None, cluster: str | None, name: str | None) -> bool:
        """Whether this fault fails the request. It counts the request, so call it once for each."""
        if self.operations is not None and operation not in self.operations:
            return False
        if (self.cluster is not None and cluster != self.cluster) or (self.name is not None and name != self.name):
            return False
        return self._choice.fires(time.monotonic())
