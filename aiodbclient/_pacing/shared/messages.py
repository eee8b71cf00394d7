"""What a process asks the script ``slots.lua``, and what the script replies. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple, NewType, TypeVar

from attrs import frozen
from cattrs import Converter

_T = TypeVar("_T")

_MICROSECONDS = 1_000_000

Seconds = NewType("Seconds", float)  # microseconds in the script
Moment = NewType("Moment", float)  # null in JSON for minus infinity, which stands for never


class Place(NamedTuple):
    """A place in this process's queue, 1 for the first, and for how many seconds the call there may still wait."""

    place: int
    bulk: bool
    patience: float


class Ask(NamedTuple):
    """A question to the script.

    Attributes:
        interactive: How many calls of this lane wait.
        bulk: How many calls of this lane wait.
        places: Those of them that want to know how long they would wait.
        sync: Whether this only exchanges facts, and says nothing of the calls that wait.
    """

    interactive: int = 0
    bulk: int = 0
    places: Sequence[Place] = ()
    sync: bool = False


@frozen
class Granted:
    """What an ask got.

    Attributes:
        interactive: Slots for calls of this lane.
        bulk: Slots for calls of this lane.
        wait: For how many seconds the first call without a slot would wait.
        waits: For how many seconds the call at each of the places would wait.
    """

    interactive: int
    bulk: int
    wait: Seconds
    waits: tuple[Seconds, ...]


@frozen
class Reply(Granted):
    """The script's reply.

    Attributes:
        epoch: Names Valkey's memory. It changes when Valkey loses its data.
        now: The server's clock.
        used: For each window: how many slots the answered and the unanswered requests of all processes hold.
        counted: as ``used`` in ``Ours``, of all processes.
        in_flight: as in ``Ours``, of all processes.
        least: as in ``Ours``, of all processes.
        most: as in ``Ours``, of all processes.
        recovering: For how long nobody gets a slot, while the processes report what Valkey does not know.
        version: Of the facts that Valkey has.
        stale: Whether the asking process had older facts. Then it got no slot.
        facts: The newer ones, if so.
    """

    epoch: str
    now: Seconds
    used: tuple[int, ...]
    counted: tuple[int, ...]
    in_flight: int
    least: int
    most: int
    recovering: Seconds
    version: int
    stale: bool
    facts: str | None = None


class ForgottenError(Exception):
    """Valkey has lost what this process reported, and has a new memory, named ``epoch``."""

    def __init__(self, epoch: str) -> None:
        super().__init__("it has lost its memory")
        self.epoch = epoch


class LateError(Exception):
    """By the server's clock the ask arrived after this process gave it up."""


def read_reply(text: object, ask: Ask, windows: int) -> Reply:
    """Read the script's reply to ``ask``.

    Raises:
        ForgottenError: Valkey has another memory than the asking process knows.
        LateError: The ask arrived too late.
        ValueError, TypeError, LookupError, AttributeError, RecursionError: This is no reply of the script.
    """
    if not isinstance(text, str):
        raise ValueError("no text")
    reply = json.loads(text)
    if reply.get("late"):
        raise LateError
    if reply.get("forgotten"):
        raise ForgottenError(structure(reply["epoch"], str))
    read = structure(reply, Reply)
    if read.interactive > ask.interactive or read.bulk > ask.bulk:
        raise ValueError("more slots than were asked for")
    if [len(read.waits), len(read.used), len(read.counted)] != [len(ask.places), windows, windows]:
        raise ValueError("values are missing")
    return read


def micro(seconds: float) -> int:
    """Seconds in the script's unit of time."""
    return round(seconds * _MICROSECONDS)


def structure(value: Any, kind: type[_T]) -> _T:
    """Read what JSON says as ``kind``, strictly. Raises what ``read_reply`` raises for nonsense."""
    return _converter.structure(value, kind)


def _number(value: Any) -> float:
    # Also one in a string: Lua would round a number of many digits.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    number = float(str(value))  # float() of a long int raises OverflowError
    if not isfinite(number):
        raise ValueError("not a finite number")
    return number


def _count(value: Any) -> int:
    number = _number(value)
    if not number.is_integer() or number < 0:
        raise ValueError("not a count")
    return int(number)


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"not a {kind.__name__}")
        return value

    return check


_converter = Converter(detailed_validation=False)
_converter.register_structure_hook(str, _exactly(str))
_converter.register_structure_hook(bool, _exactly(bool))
_converter.register_structure_hook(int, lambda value, _: _count(value))
_converter.register_structure_hook(float, lambda value, _: _number(value))
_converter.register_structure_hook(Seconds, lambda value, _: _number(value) / _MICROSECONDS)
_converter.register_structure_hook(Moment, lambda value, _: float("-inf") if value is None else _number(value))
