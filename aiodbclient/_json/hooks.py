"""Hooks of the converter that read JSON into models. Pure.

A hook takes a value and its type, as cattrs passes them, and returns the value for the model. For an invalid value it
raises TypeError or another of ``converter.SHAPE_ERRORS``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ..engines import Engine

Hook = Callable[[Any, Any], Any]


def exactly(kind: type) -> Hook:
    """Return the hook for a ``kind``. It refuses every other type."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def optional(kind: type) -> Hook:
    """Return the hook for a ``kind`` that may be missing: null, or an empty string."""

    def structure(value: Any, _: Any) -> Any:
        if value is None or value == "":
            return None
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def open_enum(enum: type[StrEnum], *, optional: bool) -> Hook:
    """Return the hook for a member of ``enum``. An unknown value stays a string."""
    members: dict[str, StrEnum] = {member.value: member for member in enum}

    def structure(value: Any, _: Any) -> Any:
        if type(value) is str and value:
            return members.get(value, value)
        if optional and (value is None or value == ""):
            return None
        raise TypeError

    return structure


def engine(value: Any, _: Any) -> Engine | str:
    """Read an engine: a non-empty string."""
    if type(value) is str and value:
        return Engine.parse(value)
    raise TypeError


def moment(value: Any, _: Any) -> datetime | None:
    """Read an ISO 8601 time that may be missing. Without a time zone it is UTC."""
    if value is None or value == "":
        return None
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ports(value: Any, _: Any) -> dict[str, int]:
    """Read an object of numbers."""
    if value is None:
        return {}
    if type(value) is dict and all(type(port) is int for port in value.values()):
        return value
    raise TypeError


def an_object(hook: Hook) -> Hook:
    """Return ``hook`` for objects alone: those that cattrs makes accept a string without the members."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is dict:
            return hook(value, kind)
        raise TypeError

    return structure


def optional_model(hook: Hook) -> Hook:
    """Return the hook for an object that may be missing: null, an empty string, or no members."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is dict and value:
            return hook(value, kind)
        check_missing(value)
        return None

    return structure


def check_missing(value: Any) -> None:
    """Refuse what does not stand for a missing object: anything but null, an empty string, or no members."""
    if value not in (None, "", {}):
        raise TypeError


def list_of(hook: Hook) -> Hook:
    """Return the hook for a list. A null is an empty list."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is list:
            # In place, so that each decoded object is freed at once. For thousands of elements this halves the memory
            # and avoids a garbage collection.
            for index, each in enumerate(value):
                value[index] = hook(each, kind)
            return value
        if value is None:
            return []
        raise TypeError

    return structure
