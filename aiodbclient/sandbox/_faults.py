"""``Fault`` and ``Faults``: the failures that a sandbox injects."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from inspect import Parameter, signature
from math import inf
from typing import Any

from ._embedded import EmbeddedPostgres
from ._keeper.faults import Choice
from ._protocol import LISTS, OPERATIONS

_SQL = frozenset({"sql.login", "sql.statement"})
_IDS = itertools.count(1)

# What each option can happen to. The other options select requests, or say when it happens.
_APPLIES_TO: dict[str, frozenset[str]] = {
    "cut": OPERATIONS | _SQL,
    "delay": OPERATIONS | _SQL,
    "status": OPERATIONS,
    "headers": OPERATIONS,
    "html": OPERATIONS,
    "truncate": OPERATIONS,
    "answer_name": frozenset(
        {"clusters.get", "users.get", "users.create", "users.update", "users.reset_auth", "dbs.get", "dbs.create"}
    ),
    "endless": LISTS,
    "unseen_for": frozenset({"users.get", "dbs.get"}),
    "password_empty_for": frozenset({"users.create", "users.reset_auth"}),
    "still_listed_for": frozenset({"users.delete"}),
    "stop": _SQL,
    "sqlstate": frozenset({"sql.login"}),
}
_RANGES: dict[str, tuple[float, float]] = {
    "nth": (1, inf),
    "times": (1, inf),
    "probability": (0, 1),
    "lasts": (0, inf),
    "delay": (0, inf),
    "status": (200, 599),
    "unseen_for": (0, inf),
    "password_empty_for": (0, inf),
    "still_listed_for": (0, inf),
}
_SQLSTATE = re.compile("[0-9A-Z]{5}")


class Fault:
    """A failure for a sandbox to inject, as ``faults.add`` returns it.

    Attributes:
        id: A number that is unique in this process.
        operations: The operations that it matches; None for all of the API.
        options: The other arguments of ``faults.add``, by their names.
    """

    def __init__(self, operations: frozenset[str] | None, options: dict[str, Any], sync: Callable[[], None]) -> None:
        self.id: int = next(_IDS)
        self.operations = operations
        self.options = options
        self._sync = sync
        self.choice: Choice = Choice(options | {"operations": operations})
        self.counts: dict[str, tuple[int, int]] = {}  # of SQL, by cluster

    def __repr__(self) -> str:
        return f"<Fault {self}>"

    def __str__(self) -> str:
        """The fault as the command line takes it."""
        words: list[str] = []
        for name, value in self.options.items():
            if isinstance(value, Mapping):
                words += [f"{name}={shlex.quote(f'{key}:{text}')}" for key, text in value.items()]
            elif value != _DEFAULTS[name]:
                words.append(name if value is True else f"{name}={shlex.quote(str(value))}")
        return f"{','.join(sorted(self.operations or '*'))}: {' '.join(words)}"

    @property
    def seen(self) -> int:
        """The number of requests that it has matched."""
        return self._counted(0)

    @property
    def fired(self) -> int:
        """The number of requests that it has failed."""
        return self._counted(1)

    def _counted(self, which: int) -> int:
        if not self.is_of_sql:
            return (self.choice.seen, self.choice.fired)[which]
        self._sync()
        return sum(counts[which] for counts in self.counts.values())

    @property
    def is_of_sql(self) -> bool:
        """Whether it affects SQL instead of requests to the API."""
        return bool(self.operations and self.operations & _SQL)


class Faults:
    """The failures that a sandbox injects: ``sandbox.faults``.

    Attributes:
        mongodb_overlap: Whether overlapping user writes on one MongoDB cluster fail with a 500, as at the provider
            (terraform-provider-digitalocean #1027). True by default.
    """

    def __init__(self) -> None:
        self.mongodb_overlap = True
        self._faults: list[Fault] = []
        self._servers: dict[str, EmbeddedPostgres] = {}  # by cluster; the faults of SQL happen there

    def __iter__(self) -> Iterator[Fault]:
        """Return the present faults."""
        return iter(list(self._faults))

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
        lasts: float | None = None,
        cut: bool = False,
        delay: float = 0.0,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        html: bool = False,
        truncate: bool = False,
        after: bool = False,
        answer_name: str | None = None,
        endless: bool = False,
        unseen_for: float = 0.0,
        password_empty_for: float = 0.0,
        still_listed_for: float = 0.0,
        stop: bool = False,
        sqlstate: str | None = None,
    ) -> Fault:
        """Make requests fail from now on, until ``remove`` or ``clear``.

        The options from ``operation`` to ``lasts`` select requests: a request must match all that you pass. The other
        options say what happens to it. You can combine them, and all faults that match a request apply.

        ``cut``, ``delay`` and ``status`` happen before the work. ``cut`` and ``status`` then replace it. With ``after``
        they happen after the work.

        An embedded PostgreSQL also has SQL faults: for ``"sql.login"``, ``"sql.statement"``, or ``"sql"`` for both.
        They take ``cut``, ``delay``, ``after`` (of statements), ``stop`` and ``sqlstate``. They do not affect the API.
        Each cluster counts separately.

        Args:
            operation: A name such as ``"users.create"``, several of them, or ``"*"`` for every request to the API.
            cluster: The id of a cluster.
            name: The name of a user or db, in the path or the body; for SQL, the login.
            nth: The first request to fail, counted from 1. It is the only one unless you pass ``times`` or ``lasts``.
            times: The largest number of requests to fail.
            probability: The share of the requests to fail, from 0 to 1.
            seed: Makes ``probability`` choose the same requests each time.
            lasts: Seconds from the first failure to the end of the fault.
            cut: Close the connection without an answer; with ``truncate``, in the middle of the answer's body.
            delay: Wait this many seconds. Alone, it only delays: the work is done even if the client disconnects
                meanwhile, as at the provider. A delay ends when the sandbox stops.
            status: Answer with this status and the documented error body. 520 to 526 come from the proxy in front of
                the API, with its HTML page (godo #142). 501 has the provider's body (terraform-provider-digitalocean
                #1387).
            headers: Add these headers to the answer.
            html: Replace the answer's body by a proxy's HTML page.
            truncate: Break off the answer's body in the middle. No header shows it.
            after: Do the work first.
            answer_name: Rename the user or db in the answer; for ``clusters.get``, change the cluster's id.
            endless: Give every page of a list a next one, with the same entries.
            unseen_for: Answer reads of a user or db with 404 until it is this many seconds old.
            password_empty_for: Return the new password of this create or reset_auth as ``""`` for this many seconds,
                also in its own answer.
            still_listed_for: Keep a deleted user in lists and clusters for this many seconds. Reading it is a 404.
            stop: Stop the database, as ``Sandbox.stop_database`` does. With ``lasts`` it restarts by itself.
            sqlstate: Refuse the login with this error, such as ``"53300"`` (too many connections), ``"57P03"`` (the
                server is starting) or ``"28P01"`` (the password is wrong).

        Returns:
            The fault, for ``remove``. Its ``fired`` counts the requests that it has failed.

        Raises:
            ValueError: An operation does not exist, the fault has no effect there, or a number is out of range.
        """
        given: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("self", "operation")}
        operations = check_fault(operation, given)
        if stop and times is None:
            given["times"] = 1  # otherwise the next login would stop it again
        given["headers"] = dict(headers or {})
        fault = Fault(operations, given, self._sync)
        self._faults.append(fault)
        if fault.is_of_sql:
            self._sync()
        return fault

    def remove(self, fault: Fault) -> None:
        """End ``fault``.

        Raises:
            ValueError: It was removed already.
        """
        if fault.is_of_sql:
            self._sync()  # reads what it has counted
        self._faults.remove(fault)
        if fault.is_of_sql:
            self._sync()

    def clear(self) -> None:
        """Remove all faults. ``mongodb_overlap`` stays as it is."""
        for fault in self:
            self.remove(fault)

    def meeting(self, operation: str | None, cluster: str | None, name: str | None) -> list[Fault]:
        """The faults that fire on this request."""
        return [fault for fault in self._faults if fault.choice.fires(operation, name, cluster)]

    def attach(self, cluster: str, server: EmbeddedPostgres) -> None:
        """Apply the faults of SQL to the server of this cluster too."""
        self._servers[cluster] = server
        self._sync()

    def detach(self) -> None:
        """Forget all servers. The faults keep what these have counted."""
        self._sync()
        self._servers.clear()

    def _sync(self) -> None:
        """Send the faults of SQL to the servers, and read what these have counted."""
        for cluster, server in self._servers.items():
            faults = [each for each in self._faults if each.is_of_sql and each.options["cluster"] in (None, cluster)]
            orders = [
                each.options | {"id": each.id, "operations": sorted(each.operations or ()), "cluster": None}
                for each in faults
            ]
            with suppress(RuntimeError):  # the server was killed
                counts = server.ask(faults=orders)
                for each in faults:
                    each.counts[cluster] = counts[str(each.id)]


_DEFAULTS: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in signature(Faults.add).parameters.items()
    if parameter.kind is Parameter.KEYWORD_ONLY
}


def add_given(faults: Faults, given: dict[str, Any], clusters: Mapping[str, str]) -> None:
    """``faults.add``, but ``cluster`` may also be the name of one of the ``clusters``, as on a command line."""
    wanted = given.get("cluster")
    if wanted is not None:
        found = [each for each, name in clusters.items() if wanted in (each, name)]
        if not found:
            raise ValueError(f"the fault names no cluster: {wanted}")
        given = dict(given, cluster=found[0])
    faults.add(**given)


def check_fault(operation: str | Collection[str], options: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the operations that a fault applies to, None for all of the API, or raise ValueError."""
    given = {**_DEFAULTS, **options}
    effects = [effect for effect in _APPLIES_TO if given[effect] not in (_DEFAULTS[effect], {})]
    if not effects:
        raise ValueError("this fault has no effect: pass cut, delay, status, headers, html, truncate, ...")
    of_the_api = operation == "*" and any(_APPLIES_TO[effect] >= OPERATIONS for effect in effects)
    if of_the_api:
        operations = OPERATIONS
    elif operation == "*":
        operations = frozenset[str]().union(*(_APPLIES_TO[effect] for effect in effects))
    else:
        operations = _named({operation} if isinstance(operation, str) else operation)
    if operations & _SQL and operations - _SQL:
        raise ValueError("a fault is for the API or for SQL, not both: add two faults")
    for effect in effects:
        possible = _APPLIES_TO[effect]
        if not operations & possible:
            where = "the API" if possible == OPERATIONS else ", ".join(sorted(possible))
            raise ValueError(f"{effect} has no effect there; it applies to {where}")
    for what, (low, high) in _RANGES.items():
        if given[what] is not None and not low <= given[what] <= high:
            raise ValueError(f"{what} must be from {low} to {high}, not {given[what]}")
    if given["sqlstate"] is not None and not _SQLSTATE.fullmatch(given["sqlstate"]):
        raise ValueError(f"sqlstate must be five digits or capital letters, not {given['sqlstate']!r}")
    return None if of_the_api else operations


def _named(names: Collection[str]) -> frozenset[str]:
    """The operations with these names, of which "sql" names all of SQL."""
    operations = (frozenset(names) - {"sql"}) | (_SQL if "sql" in names else frozenset())
    unknown = operations - OPERATIONS - _SQL
    if unknown:
        every = ", ".join(sorted(OPERATIONS | _SQL | {"sql"}))
        raise ValueError(f"unknown operation {', '.join(sorted(unknown))}; the operations are {every}")
    return operations
