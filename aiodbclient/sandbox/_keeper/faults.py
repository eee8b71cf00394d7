"""``Choice`` selects what a fault fails. ``Failures`` applies the faults of SQL to one connection."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from .stream import fatal

LOGIN, STATEMENT = "sql.login", "sql.statement"

# PostgreSQL's messages for these codes.
_MESSAGES = {
    "28P01": 'password authentication failed for user "{user}"',
    "53300": "sorry, too many clients already",
    "57P03": "the database system is starting up",
}
_MESSAGE = "the sandbox refuses this login"


class Choice:
    """Counts the requests that match a fault with these ``options``, and selects those that it fails."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        nth, times, lasts = options["nth"], options["times"], options["lasts"]
        self.seen = self.fired = 0
        self._first = nth or 1
        self._limit = times if times is not None else 1 if nth is not None and lasts is None else inf
        self._probability = options["probability"]
        self._random = random.Random(options["seed"])
        self._lasts = inf if lasts is None else lasts
        self._over_at = inf

    def fires(self, now: float) -> bool:
        """Count a request at ``now``, in monotonic seconds, and return whether to fail it."""
        self.seen += 1
        if self.seen < self._first or self.fired >= self._limit or now >= self._over_at:
            return False
        if self._probability < 1.0 and self._random.random() >= self._probability:
            return False
        if not self.fired:
            self._over_at = now + self._lasts
        self.fired += 1
        return True


class Broken(Exception):
    """Ends the connection, after ``answer`` is sent."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer


SqlFault = dict[str, Any]
"""The options of ``Faults.add``, with the ``id`` of the fault and its ``operations``."""


class SqlFaults:
    """The faults of one server."""

    def __init__(self) -> None:
        self._faults: list[SqlFault] = []
        self._choices: dict[int, Choice] = {}

    def set(self, faults: list[SqlFault]) -> None:
        """Replace the faults; one that stays keeps its counts."""
        self._faults = faults
        self._choices = {fault["id"]: self._choices.get(fault["id"]) or Choice(fault) for fault in faults}

    def counts(self) -> dict[int, tuple[int, int]]:
        """For each fault, by id: how many logins or statements it has matched, and how many it has failed."""
        return {number: (choice.seen, choice.fired) for number, choice in self._choices.items()}

    def meeting(self, operation: str, user: str) -> list[SqlFault]:
        """The faults that fire on a login or statement of ``user``."""
        matching = [each for each in self._faults if operation in each["operations"] and each["name"] in (None, user)]
        return [each for each in matching if self._choices[each["id"]].fires(time.monotonic())]


class Failures:
    """Applies the faults to one connection; ``stop`` stops the server, for so many seconds or, with None, for good."""

    def __init__(self, faults: SqlFaults, stop: Callable[[float | None], None]) -> None:
        self._faults = faults
        self._stop = stop
        self._user = ""
        self.after: list[SqlFault] = []  # to apply after the server has answered

    async def login(self, user: str) -> None:
        """Apply the faults to a login, or raise Broken if the connection ends."""
        self._user = user
        for fault in self._faults.meeting(LOGIN, user):
            await self._apply(fault)

    async def statement(self) -> None:
        """Apply the faults to a statement, before the server gets it, or raise Broken if the connection ends."""
        met = self._faults.meeting(STATEMENT, self._user)
        self.after = [fault for fault in met if fault["after"]]
        for fault in met:
            if not fault["after"]:
                await self._apply(fault)

    async def answered(self) -> None:
        """Apply the faults after a statement, or raise Broken if the connection ends."""
        met, self.after = self.after, []
        for fault in met:
            await self._apply(fault)

    async def _apply(self, fault: SqlFault) -> None:
        await asyncio.sleep(fault["delay"])
        if fault["stop"]:
            self._stop(fault["lasts"])
            raise Broken
        if fault["sqlstate"] is not None:
            message = _MESSAGES.get(fault["sqlstate"], _MESSAGE).format(user=self._user)
            raise Broken(fatal(fault["sqlstate"], message))
        if fault["cut"]:
            raise Broken
