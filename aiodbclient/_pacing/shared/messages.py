"""What a process asks of the script ``slots.lua`` in Valkey, and what that replies. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from attrs import frozen

MICROSECONDS = 1_000_000


class Place(NamedTuple):
    """A place in this process's queue, 1 for the first, and for how many seconds the call there may still wait."""

    place: int
    bulk: bool
    patience: float


class Ask(NamedTuple):
    """What is asked for.

    Attributes:
        interactive: How many calls of this lane wait.
        bulk: How many calls of this lane wait.
        places: Those of them that want to know how long they would wait.
        learning: Whether this is only to tell facts and to learn newer ones, while others of this process may wait.
    """

    interactive: int = 0
    bulk: int = 0
    places: Sequence[Place] = ()
    learning: bool = False


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
    wait: float
    waits: Sequence[float]


@frozen
class Reply:
    """What the script replied. Times are in seconds.

    Attributes:
        epoch: Names Valkey's memory, which is another one if it lost its data.
        now: What the server's clock shows.
        interactive: as in ``Granted``.
        bulk: as in ``Granted``.
        wait: as in ``Granted``.
        waits: as in ``Granted``.
        used: For each window: how many slots the answered and the unanswered requests of all processes hold.
        counted: as ``used`` in ``Ours``, of all processes.
        in_flight: as in ``Ours``, of all processes.
        least: as in ``Ours``, of all processes.
        most: as in ``Ours``, of all processes.
        recovering: For how long nobody gets a slot, as all processes tell again what Valkey has lost.
        version: Of the facts that Valkey has.
        stale: Whether the asking process had older facts. Then it got no slot.
        facts: The newer ones, if so.
    """

    epoch: str
    now: float
    interactive: int
    bulk: int
    wait: float
    waits: Sequence[float]
    used: tuple[int, ...]
    counted: tuple[int, ...]
    in_flight: int
    least: int
    most: int
    recovering: float
    version: int
    stale: bool
    facts: str | None


class Forgot(NamedTuple):
    """Valkey has another memory, named ``epoch``, than the asking process knows."""

    epoch: str


class Late(NamedTuple):
    """By the server's clock the ask arrived after it was given up."""


def decoded(text: object, ask: Ask, windows: int) -> Reply | Forgot | Late:
    """What the script replied to ``ask``. Raises ValueError if it cannot be the script's reply.

    Args:
        text: The reply, in JSON.
        ask: What was asked.
        windows: How many windows there are.
    """
    try:
        reply = json.loads(text) if isinstance(text, str) else None
    except RecursionError:
        reply = None
    if not isinstance(reply, dict):
        raise ValueError("no JSON object")
    if reply.get("late"):
        return Late()
    epoch = _text(reply, "epoch")
    if reply.get("forgotten"):
        return Forgot(epoch)
    stale = reply.get("stale")
    if not isinstance(stale, bool):
        raise ValueError("stale is no boolean")
    return Reply(
        epoch=epoch,
        # A string, as Lua would round a number of so many digits.
        now=number(_text(reply, "now"), "now") / MICROSECONDS,
        interactive=_count(reply.get("interactive"), "interactive", ask.interactive),
        bulk=_count(reply.get("bulk"), "bulk", ask.bulk),
        wait=_seconds(reply.get("wait"), "wait"),
        waits=[_seconds(wait, "waits") for wait in _several(reply.get("waits"), "waits", len(ask.places))],
        used=tuple(_count(used, "used") for used in _several(reply.get("used"), "used", windows)),
        counted=tuple(_count(count, "counted") for count in _several(reply.get("counted"), "counted", windows)),
        in_flight=_count(reply.get("in_flight"), "in_flight"),
        least=_count(reply.get("least"), "least"),
        most=_count(reply.get("most"), "most"),
        recovering=_seconds(reply.get("recovering"), "recovering"),
        version=_count(reply.get("version"), "version"),
        stale=stale,
        facts=_text(reply, "facts") if stale and "facts" in reply else None,
    )


def micro(seconds: float) -> int:
    """Seconds in the script's unit of time."""
    return round(seconds * MICROSECONDS)


def number(value: object, name: str) -> float:
    """A finite number, also one that is written as a string. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name} is no number")
    try:
        told = float(value)
    except (OverflowError, ValueError):
        told = math.nan
    if not math.isfinite(told):
        raise ValueError(f"{name} is no finite number")
    return told


def _count(value: object, name: str, most: float = math.inf) -> int:
    told = number(value, name)
    if not (told.is_integer() and 0 <= told <= most):
        raise ValueError(f"{name} is out of range")
    return int(told)


def _seconds(value: object, name: str) -> float:
    return number(value, name) / MICROSECONDS


def _several(value: object, name: str, many: int) -> list[Any]:
    values: list[Any] = [] if value == {} else value if isinstance(value, list) else [None]  # Lua's empty list is {}
    if len(values) != many:
        raise ValueError(f"{name} does not hold {many} values")
    return values


def _text(reply: dict[str, Any], name: str) -> str:
    value = reply.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value
