"""``Fault`` and ``Faults``: the failures that a sandbox injects."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from math import inf
from typing import Any

from attrs import Factory, define, field

from ._protocol import OPERATIONS, Answer, RecordedRequest

Change = Callable[[RecordedRequest, Answer], None]

_NUMBERS: dict[str, tuple[type, float, float]] = {
    "nth": (int, 1, inf),
    "times": (int, 1, inf),
    "probability": (float, 0, 1),
    "seed": (int, -inf, inf),
    "lasts": (float, 0, inf),
    "status": (int, 200, 599),
    "delay": (float, 0, inf),
}


@define(eq=False, repr=False)
class Fault:
    """A failure for a sandbox to inject, as ``faults.add`` returns it.

    Attributes:
        options: The arguments of ``faults.add``, by their names.
        seen: The number of requests that it has matched.
        fired: The number of requests that it has failed.
    """

    options: dict[str, Any]
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)
    _over_at: float = field(default=inf, init=False)
    _random: random.Random = field(default=Factory(lambda self: random.Random(self.options["seed"]), True), init=False)

    def __repr__(self) -> str:
        return f"<Fault {self.options['operation']}: fired {self.fired} of {self.seen}>"

    def fires(self, request: RecordedRequest, cluster_name: str | None) -> bool:
        """Count a request that matches, and return whether to fail it."""
        options = self.options
        operation, nth, times, lasts = (options[name] for name in ("operation", "nth", "times", "lasts"))
        if operation != "*" and request.operation not in ([operation] if isinstance(operation, str) else operation):
            return False
        if options["cluster"] not in (None, request.cluster, cluster_name):
            return False
        if options["name"] not in (None, request.name):
            return False
        self.seen += 1
        most = times if times is not None else 1 if nth is not None and lasts is None else inf
        now = time.monotonic()
        if self.seen < (nth or 1) or self.fired >= most or now >= self._over_at:
            return False
        if options["probability"] < 1 and self._random.random() >= options["probability"]:
            return False
        if not self.fired and lasts is not None:
            self._over_at = now + lasts
        self.fired += 1
        return True


class Faults:
    """The failures that a sandbox injects: ``sandbox.faults``.

    Attributes:
        mongodb_overlap: Whether overlapping user writes on one MongoDB cluster fail with a 500, as at the provider
            (terraform-provider-digitalocean #1027). True by default.
    """

    def __init__(self) -> None:
        self.mongodb_overlap = True
        self._faults: list[Fault] = []

    def __iter__(self) -> Iterator[Fault]:
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
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        cut: bool = False,
        after: bool = False,
        change: Change | None = None,
    ) -> Fault:
        """Make requests fail from now on, until ``remove`` or ``clear``.

        The options from ``operation`` to ``lasts`` select requests: a request must match all that you pass. The other
        options say what happens to it. You can combine them, and all faults that match a request apply.

        Args:
            operation: A name such as ``"users.create"``, several of them, or ``"*"`` for every request.
            cluster: The id or name of a cluster.
            name: The name of a user or db, in the path or the body.
            nth: The first request to fail, counted from 1. It is the only one unless you pass ``times`` or ``lasts``.
            times: The largest number of requests to fail.
            probability: The share of the requests to fail, from 0 to 1.
            seed: Makes ``probability`` choose the same requests each time.
            lasts: Seconds from the first failure to the end of the fault.
            status: Answer with this status and the documented error body, instead of doing the work.
            headers: Add these headers to the answer.
            delay: Wait this many seconds before the work. Alone, it only delays: the work is done even if the client
                disconnects meanwhile, as at the provider. A delay ends when the sandbox stops.
            cut: Close the connection without an answer, instead of doing the work.
            after: Do the work before ``delay``, ``cut`` and ``status``.
            change: A function of the ``RecordedRequest`` and its ``Answer``, which may change the answer.

        Returns:
            The fault, for ``remove``. Its ``fired`` counts the requests that it has failed.

        Raises:
            ValueError: An operation does not exist, the fault has no effect, or a value is invalid.
        """
        given: dict[str, Any] = {name: value for name, value in locals().items() if name != "self"}
        _check(given)
        fault = Fault(given)
        self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """End ``fault``.

        Raises:
            ValueError: It was removed already.
        """
        self._faults.remove(fault)

    def clear(self) -> None:
        """Remove all faults. ``mongodb_overlap`` stays as it is."""
        self._faults.clear()

    def matching(self, request: RecordedRequest, cluster_name: str | None) -> list[Fault]:
        return [fault for fault in self._faults if fault.fires(request, cluster_name)]


def add_json(faults: Faults, given: Any) -> Fault:
    """Add the fault that a JSON object describes: the arguments of ``Faults.add``. Raises ValueError."""
    if not isinstance(given, dict):
        raise ValueError('a fault is a JSON object, such as {"operation": "users.create", "status": 503}')
    if unknown := given.keys() - _JSON:
        raise ValueError(f"unknown option {', '.join(sorted(unknown))}; the options are {', '.join(_JSON)}")
    return faults.add(**given)


_JSON = [name for name in Faults.add.__annotations__ if name not in ("change", "return")]  # a function is not JSON


def _check(given: Mapping[str, Any]) -> None:
    """Raise ValueError if the arguments of ``Faults.add`` are invalid; they may come from JSON."""
    operation = given["operation"]
    names = [operation] if isinstance(operation, str) else operation
    if not isinstance(names, Collection) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("operation must be a name, or a list of names")
    if unknown := set(names) - OPERATIONS - ({"*"} if operation == "*" else set()):
        every = ", ".join(sorted(OPERATIONS))
        raise ValueError(f"unknown operation {', '.join(sorted(unknown))}; the operations are {every}")
    for what, (kind, low, high) in _NUMBERS.items():
        value = given[what]
        is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and low <= value <= high):
            number = "a whole number" if kind is int else "a number"
            raise ValueError(f"{what} must be {number} from {low:g} to {high:g}, not {value!r}")
    for what in ("cluster", "name"):
        if not isinstance(given[what], str | None):
            raise ValueError(f"{what} must be a string, not {given[what]!r}")
    for what in ("cut", "after"):
        if not isinstance(given[what], bool):
            raise ValueError(f"{what} must be true or false, not {given[what]!r}")
    headers = given["headers"] or {}
    if not isinstance(headers, Mapping) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise ValueError("headers must map names to strings")
    if not any(given[effect] for effect in ("status", "headers", "delay", "cut", "change")):
        raise ValueError("this fault has no effect: pass status, headers, delay, cut or change")
