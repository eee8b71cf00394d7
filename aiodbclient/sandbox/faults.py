"""Failures on demand."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from math import inf

from attrs import define, field

from .routes import OPERATIONS

# What these effects are about happens in few operations only.
_HAPPENS_IN: dict[str, frozenset[str]] = {
    "unseen_for": frozenset({"users.get", "dbs.get"}),
    "password_empty_for": frozenset({"users.create", "users.reset_auth"}),
    "still_listed_for": frozenset({"users.delete"}),
    "endless": frozenset({"clusters.list", "users.list", "dbs.list"}),
    "answer_name": frozenset(
        {"clusters.get", "users.get", "users.create", "users.update", "users.reset_auth", "dbs.get", "dbs.create"}
    ),
}


@define(kw_only=True, eq=False)
class Fault:
    """A failure that a sandbox is told to show, as ``faults.add`` returns it: its arguments, and two counters.

    Attributes:
        operations: The operations that it is for; None for all.
        cluster: The id of the only cluster that it is for; None for all.
        name: The name of the only user or db that it is for; None for all.
        nth: The request that it begins with, counted from 1; None for the first.
        times: The number of requests that it fails at most; None: no limit, or 1 with ``nth``.
        probability: The share of the requests that it fails, from 0 to 1.
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
        password_empty_for: Seconds for which a new password is told as ``""``.
        still_listed_for: Seconds for which a deleted user is listed.
        reset_skew: Seconds that are added to ``ratelimit-reset``.
        seen: The number of requests that it was for, so far.
        fired: The number of requests that it failed, so far.
    """

    operations: frozenset[str] | None
    cluster: str | None
    name: str | None
    nth: int | None
    times: int | None
    probability: float
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
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)
    _random: random.Random = field(alias="random", repr=False)

    def fires(self, operation: str | None, cluster: str | None, name: str | None) -> bool:
        """Whether this fault meets the request; counts it, so ask once for each request."""
        if self.operations is not None and operation not in self.operations:
            return False
        if (self.cluster is not None and cluster != self.cluster) or (self.name is not None and name != self.name):
            return False
        self.seen += 1
        limit = self.times if self.times is not None else 1 if self.nth is not None else None
        if self.seen < (self.nth or 1) or (limit is not None and self.fired >= limit):
            return False
        if self.probability < 1.0 and self._random.random() >= self.probability:
            return False
        self.fired += 1
        return True


class Faults:
    """The failures that a sandbox is told to show. Faults that meet the same request add up.

    ``mongodb_overlap`` (on by default) lets user writes that overlap on one MongoDB cluster answer 500, as
    the provider's do (terraform-provider-digitalocean #1027). When ``ratelimit-remaining`` tells 0 is not a fault but
    an option of the ``Sandbox``.
    """

    def __init__(self) -> None:
        self.mongodb_overlap = True
        self._faults: list[Fault] = []

    def add(
        self,
        operation: str | Collection[str] = "*",
        *,
        cluster: str | None = None,
        name: str | None = None,
        nth: int | None = None,
        times: int | None = None,
        probability: float = 1.0,
        seed: int | None = None,
        cut: bool = False,
        delay: float = 0.0,
        status: int | None = None,
        not_implemented: bool = False,
        headers: Mapping[str, str] | None = None,
        html: bool = False,
        truncate: bool = False,
        after: bool = False,
        answer_name: str | None = None,
        endless: bool = False,
        unseen_for: float = 0.0,
        password_empty_for: float = 0.0,
        still_listed_for: float = 0.0,
        reset_skew: float = 0.0,
    ) -> Fault:
        """Make requests fail from now on, until ``remove`` or ``clear``.

        Which requests (all that are given must hold):
            operation: a name such as ``"users.create"``, several of them, or ``"*"`` for every request.
            cluster, name: the id of a cluster; the name of a user or db, in the path or the body.
            nth: from the nth such request on, and only that one unless ``times`` says more.
            times: so many requests at most.
            probability, seed: each with this probability, repeatable with a seed.

        What happens, before the work (it is not done) or, with ``after``, when the work has been done:
            cut: the connection is closed without an answer; with ``truncate``, in the middle of the answer's body.
            delay: seconds to wait. Alone, it only delays: the work is done even when the client has gone meanwhile, as
                it would be at the provider. The end of the sandbox ends it.
            status, headers: this status with the documented error body instead of the answer, and these headers. 520
                to 526 come from the proxy in front of the API (godo #142), with its HTML page.
            not_implemented: 501 with the words of the provider (terraform-provider-digitalocean #1387).
        What happens to the answer after the work:
            html: its body is a proxy's HTML page.
            truncate: its body breaks off in the middle, and says so in no header.
            answer_name: the user or db in it has this name; the cluster in it, for ``clusters.get``, this id.
            endless: every page of a list has a next one, with the same members.
        What is told later than it is so, for so many seconds:
            unseen_for: reads of a user or db answer 404 until it is so old.
            password_empty_for: after this create or reset_auth the password is told as ``""``, there too.
            still_listed_for: after this delete, lists and clusters go on telling the user; reading it is a 404.
        And:
            reset_skew: seconds added to ``ratelimit-reset``, in a 429 too.

        Raises ValueError for an operation that does not exist, a fault that does nothing or not there, or a number out
        of range.
        """
        effects: dict[str, object] = {
            "unseen_for": unseen_for,
            "password_empty_for": password_empty_for,
            "still_listed_for": still_listed_for,
            "endless": endless,
            "answer_name": answer_name,
        }
        somewhere = {effect: _HAPPENS_IN[effect] for effect, given in effects.items() if given}
        anywhere = cut or delay or status or not_implemented or headers or html or truncate or reset_skew
        if not (anywhere or somewhere):
            raise ValueError("this fault does nothing: give cut, delay, status, headers, html, truncate, ...")
        operations = _operations(operation)
        for effect, there in somewhere.items():
            if operations is not None and not operations & there:
                raise ValueError(f"{effect} does nothing there; it happens in {', '.join(sorted(there))}")
        if operations is None and not anywhere:
            operations = frozenset[str]().union(*somewhere.values())
        for what, number, low, high in (
            ("nth", nth, 1, inf),
            ("times", times, 1, inf),
            ("probability", probability, 0, 1),
            ("delay", delay, 0, inf),
            ("status", status, 200, 599),
            ("unseen_for", unseen_for, 0, inf),
            ("password_empty_for", password_empty_for, 0, inf),
            ("still_listed_for", still_listed_for, 0, inf),
        ):
            if number is not None and not low <= number <= high:
                raise ValueError(f"{what} must be from {low} to {high}, not {number}")
        fault = Fault(
            operations=operations,
            cluster=cluster,
            name=name,
            nth=nth,
            times=times,
            probability=probability,
            random=random.Random(seed),
            cut=cut,
            delay=delay,
            status=status,
            not_implemented=not_implemented,
            headers={} if headers is None else headers,
            html=html,
            truncate=truncate,
            after=after,
            answer_name=answer_name,
            endless=endless,
            unseen_for=unseen_for,
            password_empty_for=password_empty_for,
            still_listed_for=still_listed_for,
            reset_skew=reset_skew,
        )
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Let ``fault`` happen no more. Raises ValueError if it is not there."""
        self._faults.remove(fault)

    def clear(self) -> None:
        """Let no fault happen any more. ``mongodb_overlap`` stays as it is."""
        self._faults.clear()

    def meeting(self, operation: str | None, cluster: str | None, name: str | None, *, limited: bool) -> list[Fault]:
        """The faults that this request meets; if the rate limit refused it, those that skew headers."""
        return [
            fault
            for fault in self._faults
            if (fault.reset_skew or not limited) and fault.fires(operation, cluster, name)
        ]


def _operations(operation: str | Collection[str]) -> frozenset[str] | None:
    """The operations named, None for all."""
    if operation == "*":
        return None
    operations = frozenset({operation} if isinstance(operation, str) else operation)
    unknown = operations - OPERATIONS
    if unknown:
        raise ValueError(f"no operation {', '.join(sorted(unknown))}; there are {', '.join(sorted(OPERATIONS))}")
    return operations
