"""``Failures``: applies the SQL faults to one connection. The sandbox sends the faults as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .choice import Choice
from .stream import LOGIN, STATEMENT, fatal

# PostgreSQL's messages for these codes.
_MESSAGES = {
    "28P01": 'password authentication failed for user "{user}"',
    "53300": "sorry, too many clients already",
    "57P03": "the database system is starting up",
}
_MESSAGE = "the sandbox refuses this login"


class Broken(Exception):
    """Ends the connection, after ``answer`` is sent."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer


class SqlFault:
    """One fault, with the fields of ``Fault`` that the sandbox sends."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.id: int = spec["id"]
        self.operations: list[str] = spec["operations"]
        self.user: str | None = spec["name"]
        self.cut, self.after, self.stop = spec["cut"], spec["after"], spec["stop"]
        self.delay: float = spec["delay"]
        self.lasts: float | None = spec["lasts"]
        self.sqlstate: str | None = spec["sqlstate"]
        self.breaks_after: int | None = spec["breaks_after"]
        self.choice = Choice(spec["nth"], spec["times"], spec["probability"], spec["seed"], spec["lasts"])


class SqlFaults:
    """The faults of one server.

    Args:
        stop: Called to stop the server, with the seconds until it restarts (None: it stays stopped).
    """

    def __init__(self, stop: Callable[[float | None], None]) -> None:
        self._faults: dict[int, SqlFault] = {}
        self._stop = stop

    def set(self, specs: list[dict[str, Any]]) -> None:
        """Replace the faults. A fault that stays keeps its counts."""
        self._faults = {spec["id"]: self._faults.get(spec["id"]) or SqlFault(spec) for spec in specs}

    def counts(self) -> dict[int, tuple[int, int]]:
        """For each fault, by id: how many logins or statements it has matched, and how many it has failed."""
        return {fault.id: (fault.choice.seen, fault.choice.fired) for fault in self._faults.values()}

    def connection(self) -> Failures:
        return Failures(self, self._stop)

    def meeting(self, operation: str, user: str) -> list[SqlFault]:
        now = time.monotonic()
        return [
            fault
            for fault in self._faults.values()
            if operation in fault.operations and fault.user in (None, user) and fault.choice.fires(now)
        ]


class Failures:
    """Applies the faults to one connection."""

    def __init__(self, faults: SqlFaults, stop: Callable[[float | None], None]) -> None:
        self._faults = faults
        self._stop = stop
        self._user = ""
        self._statements_left: int | None = None
        self.after: list[SqlFault] = []
        """The faults to apply after the server has answered."""

    async def login(self, user: str) -> None:
        """Apply the faults to a login. Raises Broken if the connection ends."""
        self._user = user
        for fault in self._faults.meeting(LOGIN, user):
            if fault.breaks_after is not None:
                self._statements_left = fault.breaks_after
            await self._apply(fault)

    async def statement(self) -> None:
        """Apply the faults to a statement, before the server gets it. Raises Broken if the connection ends."""
        if self._statements_left is not None:
            self._statements_left -= 1
            if self._statements_left < 0:
                raise Broken
        met = self._faults.meeting(STATEMENT, self._user)
        self.after = [fault for fault in met if fault.after]
        for fault in met:
            if not fault.after:
                await self._apply(fault)

    async def answered(self) -> None:
        """Apply the faults after a statement. Raises Broken if the connection ends."""
        met, self.after = self.after, []
        for fault in met:
            await self._apply(fault)

    async def _apply(self, fault: SqlFault) -> None:
        await asyncio.sleep(fault.delay)
        if fault.stop:
            self._stop(fault.lasts)
            raise Broken
        if fault.sqlstate is not None:
            message = _MESSAGES.get(fault.sqlstate, _MESSAGE).format(user=self._user)
            raise Broken(fatal(fault.sqlstate, message))
        if fault.cut:
            raise Broken
