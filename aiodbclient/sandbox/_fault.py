"""``Fault``: one failure for a sandbox to inject. Pure."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from ._keeper.choice import Choice

_SPEC = (
    *("id", "name", "nth", "times", "probability", "seed", "lasts"),
    *("cut", "delay", "after", "stop", "sqlstate", "breaks_after"),
)
_IDS = itertools.count(1)


@define(kw_only=True, eq=False)
class Fault:
    """A failure for a sandbox to inject, as ``faults.add`` returns it: its arguments and two counters.

    Attributes:
        operations: The operations that it matches; None for all.
        cluster: The id of the only cluster that it matches; None for all.
        name: The name of the only user or db that it matches; None for all.
        nth: The first matching request that it fails, counted from 1; None for the first.
        times: The largest number of requests that it fails; None: no limit, or 1 with ``nth``.
        probability: The share of the requests that it fails, from 0 to 1.
        seed: The seed for ``probability``; None for random numbers.
        lasts: Seconds from its first failure to its end; None: it does not end.
        cut: Whether the connection closes without an answer.
        delay: Seconds to wait before the work.
        status: The status to answer with; None to leave it.
        not_implemented: Whether to answer with the provider's 501.
        headers: Headers to add to the answer.
        html: Whether the body is a proxy's HTML page.
        truncate: Whether the body breaks off in the middle.
        after: Whether it happens after the work, instead of replacing it.
        answer_name: The name in the answer; None to leave it.
        endless: Whether every page of a list has a next one.
        unseen_for: Seconds during which reads of a new user or db are a 404.
        password_empty_for: Seconds during which a new password is returned as ``""``.
        still_listed_for: Seconds during which a deleted user is still listed.
        reset_skew: Seconds to add to ``ratelimit-reset``.
        stop: Whether the database stops.
        sqlstate: The SQL error that refuses the login; None to leave it.
        breaks_after: The number of statements before the connection breaks; None: it does not break.
        id: A number that is unique in this process.
        seen: The number of requests that it has matched.
        fired: The number of requests that it has failed.
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
        """Whether it affects SQL instead of requests to the API."""
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
        """Read the counters from the front, where the SQL faults happen."""
        self._count = count

    def spec(self) -> dict[str, Any]:
        """The JSON form of a SQL fault for the front of a server (``_keeper/faults.py``)."""
        return {"operations": sorted(self.operations or ())} | {name: getattr(self, name) for name in _SPEC}

    def fires(self, operation: str | None, cluster: str | None, name: str | None) -> bool:
        """Return whether this fault fails the request. It also counts the request: call it once per request."""
        if self.operations is not None and operation not in self.operations:
            return False
        if (self.cluster is not None and cluster != self.cluster) or (self.name is not None and name != self.name):
            return False
        return self._choice.fires(time.monotonic())
