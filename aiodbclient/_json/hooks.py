"""Hooks that read JSON into models, for the converter. Pure.

A hook takes a value and, as cattrs calls it, the type, and returns what the model holds. It raises TypeError or another
of ``converter.SHAPE_ERRORS`` for a value that does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ..engines import Engine

Hook = Callable[[Any, Any], Any]


def exactly(kind: type) -> Hook:
    """The hook for a ``kind``, which takes no other type for it."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def optional(kind: type) -> Hook:
    """The hook for a ``kind`` that may be missing: null, or an empty string."""

    def structure(value: Any, _: Any) -> Any:
        if value is None or value == "":
            return None
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def open_enum(enum: type[StrEnum], *, optional: bool) -> Hook:
    """The hook for a member of ``enum``, or the string itself where it is none that is known."""
    members: dict[str, StrEnum] = {member.value: member for member in enum}

    def structure(value: Any, _: Any) -> Any:
        if type(value) is str and value:
            return members.get(value, value)
        if optional and (value is None or value == ""):
            return None
        raise TypeError

    return structure


def engine(value: Any, _: Any) -> Engine | str:
    """The hook for an engine: a string that is not empty."""
    if type(value) is str and value:
        return Engine.parse(value)
    raise TypeError


def moment(value: Any, _: Any) -> datetime | None:
    """The hook for a moment in ISO 8601 that may be missing; without a time zone it is UTC."""
    if value is None or value == "":
        return None
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ports(value: Any, _: Any) -> dict[str, int]:
    """The hook for an object of numbers."""
    if value is None:
        return {}
    if type(value) is dict and all(type(port) is int for port in value.values()):
        return value
    raise TypeError


def optional_model(hook: Hook) -> Hook:
    """The hook for an object that ``hook`` reads and that may be missing: null, an empty string, or no members."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is dict:
            return hook(value, kind) if value else None
        if value is None or value == "":
            return None
        raise TypeError

    return structure


def list_of(hook: Hook, *, optional: bool) -> Hook:
    """The hook for a list of what ``hook`` reads. A null is None where it is ``optional``, else no elements."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is list:
            # In place, so that each decoded object is freed as soon as it is read: half the memory, and no garbage
            # collection on the way, for a list of thousands.
            for index, each in enumerate(value):
                value[index] = hook(each, kind)
            return value
        if value is None:
            return None if optional else []
        raise TypeError

    return structure
