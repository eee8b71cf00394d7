"""Checks of arguments that are counts, times, versions or functions. Pure."""

from __future__ import annotations

import math
from inspect import iscoroutinefunction

from attrs import Attribute

from .errors import InvalidArgumentError

_MAX_SHOWN = 100  # characters of a value in an error


def shown(value: object) -> str:
    """Return the beginning of the repr of ``value``, for an error."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def is_async(function: object) -> bool:
    """Whether it is an async function, or an object whose ``__call__`` is one."""
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def check_hook(name: str, hook: object) -> None:
    """Refuse a hook that is not a function, or that is async: nothing would await it."""
    if hook is not None and (not callable(hook) or is_async(hook)):
        raise InvalidArgumentError(f"{name} must be a function that is not async, not {shown(hook)}")


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Refuse a number that is not an int of at least ``least``."""
    if type(value) is not int or value < least:
        raise InvalidArgumentError(f"{name} must be an int of at least {least}, not {value!r}")


def check_version(version: object) -> None:
    """Refuse a version that is not a printable text."""
    if version is not None and not (isinstance(version, str) and version and version.isprintable()):
        raise InvalidArgumentError(f"version must be a printable string, and not empty, not {shown(version)}")


def check_seconds(name: str, value: object) -> None:
    """Refuse a time that is not a positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"{name} must be a positive number of seconds, not {value!r}")


def check_max_wait(value: object) -> None:
    """Refuse a ``max_wait`` that is neither None nor a number of seconds."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidArgumentError(
            f"max_wait must be a number of seconds, at least 0, or None for no limit, not {value!r}"
        )


def whole(of: object, attribute: Attribute[int], value: int) -> None:
    """Validate a count of an attrs class."""
    check_whole(f"{type(of).__name__}: {attribute.name}", value)


def positive(of: object, attribute: Attribute[float], value: float) -> None:
    """Validate a time of an attrs class."""
    check_seconds(f"{type(of).__name__}: {attribute.name}", value)
