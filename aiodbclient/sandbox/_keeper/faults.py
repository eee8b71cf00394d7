"""``Choice`` selects what a fault fails. ``SqlFaults``: the faults of the SQL of one server."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from math import inf
from typing import Any

LOGIN, STATEMENT = "sql.login", "sql.statement"

Options = Mapping[str, Any]
"""The options of ``Faults.add``, with the ``id`` of the fault, and its ``operations``, or None for all of the API."""


class Choice:
    """Counts the requests that match a fault with these ``options``, and selects those that it fails."""

    def __init__(self, options: Options) -> None:
        nth, times, lasts = options["nth"], options["times"], options["lasts"]
        self.options = options
        self.seen: int = 0
        self.fired: int = 0
        self._first = nth or 1
        self._limit = times if times is not None else 1 if nth is not None and lasts is None else inf
        self._random = random.Random(options["seed"])
        self._lasts = inf if lasts is None else lasts
        self._over_at = inf

    def fires(self, operation: str | None, name: str | None, cluster: str | None = None) -> bool:
        """Count a request that matches, and return whether to fail it."""
        operations, probability = self.options["operations"], self.options["probability"]
        matches = operations is None or operation in operations
        if not matches or self.options["name"] not in (None, name) or self.options["cluster"] not in (None, cluster):
            return False
        self.seen += 1
        now = time.monotonic()
        if self.seen < self._first or self.fired >= self._limit or now >= self._over_at:
            return False
        if probability < 1.0 and self._random.random() >= probability:
            return False
        if not self.fired:
            self._over_at = now + self._lasts
        self.fired += 1
        return True


class SqlFaults:
    """The faults of one server."""

    def __init__(self) -> None:
        self._choices: dict[int, Choice] = {}  # by the id of the fault

    def set(self, faults: list[Options]) -> None:
        """Replace the faults; one that stays keeps its counts."""
        self._choices = {fault["id"]: self._choices.get(fault["id"]) or Choice(fault) for fault in faults}

    def counts(self) -> dict[int, tuple[int, int]]:
        """For each fault, by id: how many logins or statements it has matched, and how many it has failed."""
        return {number: (choice.seen, choice.fired) for number, choice in self._choices.items()}

    def meeting(self, operation: str, user: str) -> list[Options]:
        """The options of the faults that fire on a login or statement of ``user``."""
        return [choice.options for choice in self._choices.values() if choice.fires(operation, user)]
