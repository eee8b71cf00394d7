"""What a process asks of the script in Valkey (``slots.lua``), and what that replies. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from attrs import frozen

MICROSECONDS = 1_000_000


class Place(NamedTuple):
    """A place in this process's queue: 1 for the first. It leaves if it would wait for over ``patience`` s."""

    place: int
    bulk: bool
    patience: float


class Ask(NamedTuple):
    """What is asked for: slots for so many calls of each lane, and how long each of ``places`` would wait.

    ``learning``: nobody waits, this is only to tell and to hear.
    """

    interactive: int = 0
    bulk: int = 0
    places: Sequence[Place] = ()
    learning: bool = False


@frozen
class Granted:
    """How many slots were handed out, after how many seconds to ask for more, and how many each place would wait."""

    interactive: int
    bulk: int
    wait: float
    waits: Sequence[float]


@frozen
class Reply:
    """What the script says. Times are in seconds, ``now`` by the server's clock.

    ``stale``: the caller knew older facts than ``facts``, and got no slot. ``used``: of each window, by all processes;
    ``in_flight``, ``least`` and ``most``: as in ``Ours``. ``settling``: for how long nobody gets a slot, as the
    processes tell again what Valkey forgot.
    """

    epoch: str
    now: float
    interactive: int
    bulk: int
    wait: float
    waits: Sequence[float]
    used: tuple[int, ...]
    in_flight: int
    least: int
    most: int
    settling: float
    version: int
    stale: bool
    facts: str | None


class Forgot(NamedTuple):
    """Valkey has another memory than the caller knew."""

    epoch: str


class Late(NamedTuple):
    """The ask arrived when the caller had given it up, by the server's clock."""


def decoded(text: object, ask: Ask, windows: int) -> Reply | Forgot | Late:
    """What the script replied to ``ask``. Raises ValueError where it cannot have said that."""
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
        in_flight=_count(reply.get("in_flight"), "in_flight"),
        least=_count(reply.get("least"), "least"),
        most=_count(reply.get("most"), "most"),
        settling=_seconds(reply.get("settling"), "settling"),
        version=_count(reply.get("version"), "version"),
        stale=stale,
        facts=_text(reply, "facts") if stale and "facts" in reply else None,
    )


def micro(seconds: float) -> int:
    """The script's unit of time."""
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
