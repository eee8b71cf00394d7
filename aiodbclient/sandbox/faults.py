"""``Faults``: the failures that a sandbox is told to show. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from math import inf

from attrs import define, field

from .routes import OPERATIONS

# The operations in which these faults do something.
_HAPPENS_IN: dict[str, frozenset[str]] = {
    "unseen_for": frozenset({"users.get", "dbs.get"}),
    "password_empty_for": frozenset({"users.create", "users.reset_auth"}),
    "still_listed_for": frozenset({"users.delete"}),
    "endless": frozenset({"clusters.list", "users.list", "dbs.list", "topics.list", "indexes.list"}),
    "answer_name": frozenset(
        {"clusters.get", "users.get", "users.create", "users.update", "users.reset_auth", "dbs.get", "dbs.create"}
    ),
}


@define(kw_only=True, eq=False)
class Fault:
    """A failure that a sandbox is told to show: the arguments of ``faults.add``, which returns it, and two counters.

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
        """Whether this fault fails the request. It counts the request, so call it once for each."""
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
    """The failures that a sandbox is told to show: ``sandbox.faults``.

    Attributes:
        mongodb_overlap: Whether user writes that overlap on one MongoDB cluster answer 500, as the provider's do
            (terraform-provider-digitalocean #1027). True unless you set it.
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

        ``operation`` to ``seed`` choose the requests; a fault is for those that fit all that is given. The others say
        what happens to them. Several may be given, and faults that meet the same request add up.

        ``cut``, ``delay``, ``status`` and ``not_implemented`` happen before the work, which is then not done, or with
        ``after`` when it has been done.

        Args:
            operation: A name such as ``"users.create"``, several of them, or ``"*"`` for every request.
            cluster: The id of a cluster.
            name: The name of a user or db, in the path or the body.
            nth: The request to begin with, counted from 1. It is the only one unless ``times`` says otherwise.
            times: How many requests it fails at most.
            probability: The share of the requests that it fails, from 0 to 1.
            seed: Makes ``probability`` choose the same requests each time.
            cut: Close the connection without an answer; with ``truncate``, in the middle of the answer's body.
            delay: Wait for so many seconds. Alone, it only delays: then the work is done even if the client has gone
                meanwhile, as at the provider. A delay ends when the sandbox stops.
            status: Answer with this status and the documented error body. 520 to 526 come from the proxy in front of
                the API, with its HTML page (godo #142).
            not_implemented: Answer 501 with the words of the provider (terraform-provider-digitalocean #1387).
            headers: Add these headers to the answer.
            html: Make the answer's body a proxy's HTML page.
            truncate: Break the answer's body off in the middle. No header says so.
            after: Do the work first.
            answer_name: Let the user or db in the answer have this name; for ``clusters.get`` let the cluster have this
                id.
            endless: Give every page of a list a next one, with the same members.
            unseen_for: Answer reads of a user or db with 404 until it is so many seconds old.
            password_empty_for: Tell the new password of this create or reset_auth as ``""`` for so many seconds, in its
                own answer too.
            still_listed_for: Go on telling a deleted user in lists and clusters for so many seconds. Reading it is a
                404.
            reset_skew: Add so many seconds to ``ratelimit-reset``, in a 429 too.

        Returns:
            The fault, for ``remove``. Its ``fired`` counts the requests that it failed.

        Raises:
            ValueError: An operation does not exist, the fault does nothing or nothing there, or a number is out of
                range.
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
        """Let ``fault`` happen no more.

        Raises:
            ValueError: It was removed already.
        """
        self._faults.remove(fault)

    def clear(self) -> None:
        """Remove all faults. ``mongodb_overlap`` stays as it is."""
        self._faults.clear()

    def meeting(self, operation: str | None, cluster: str | None, name: str | None, *, limited: bool) -> list[Fault]:
        """The faults that fail this request. If the rate limit refused it, only those that change its headers."""
        return [
            fault
            for fault in self._faults
            if (fault.reset_skew or not limited) and fault.fires(operation, cluster, name)
        ]


def _operations(operation: str | Collection[str]) -> frozenset[str] | None:
    """The operations that are named; None for all of them."""
    if operation == "*":
        return None
    operations = frozenset({operation} if isinstance(operation, str) else operation)
    unknown = operations - OPERATIONS
    if unknown:
        raise ValueError(f"no operation {', '.join(sorted(unknown))}; there are {', '.join(sorted(OPERATIONS))}")
    return operations
