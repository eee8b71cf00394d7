"""A call on its way, and what its caller chose for it. Pure."""

from __future__ import annotations

import json
from asyncio import Lock
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import InvalidArgumentError
from .operations import RULES, Failure, Operation, Then


class Meter:
    """Counts the requests that were sent with its options."""

    __slots__ = ("requests",)

    def __init__(self) -> None:
        self.requests = 0


class Options(NamedTuple):
    """What a caller chose for its calls: seconds of patience for the budget (None: any), and the budget's bulk lane."""

    max_wait: float | None = None
    bulk: bool = False
    meter: Meter | None = None


class Call:
    """One call on its way: what is asked, and what has become of it so far."""

    __slots__ = (
        "body",
        "closed_for",
        "failure",
        "may_have_applied",
        "operation",
        "options",
        "path",
        "patience",
        "tries",
        "turn",
    )

    def __init__(
        self,
        operation: Operation,
        path: str,
        body: Mapping[str, Any] | None,
        options: Options,
        turn: Lock | None = None,
    ) -> None:
        self.operation = operation
        self.path = path
        self.body = None if body is None else _encoded(operation, body)
        self.options = options
        self.turn = turn
        self.tries = 0
        self.patience = options.max_wait
        self.failure = Failure.REFUSED
        self.may_have_applied = False
        self.closed_for: float | None = None

    @property
    def what(self) -> str:
        return self.operation.at(self.path)

    @property
    def then(self) -> Then:
        return RULES[self.failure][self.operation.kind]


def _encoded(operation: Operation, body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body).encode()
    except (TypeError, ValueError) as error:
        problem = f"{operation.name}: the arguments hold what JSON cannot say: {error}; nothing was sent"
    raise InvalidArgumentError(problem)
