"""Keyword arguments written as text, for the program: ``status=503 nth=3``. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any


def read(function: Callable[..., Any], text: str) -> dict[str, Any]:
    """Read ``OPTION...`` as keyword arguments of ``function``.

    An option is ``name=value``, or only its name if it is a boolean. ``name=KEY:VALUE`` may be repeated for a mapping,
    ``name=VALUE`` for a list. A value with spaces is put in quotes.

    Raises:
        ValueError: It is not of this form, or the function has no such argument.
    """
    known = {
        name: _OF_TYPE.get(str(parameter.annotation), str)
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }
    options: dict[str, Any] = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if name not in known:
            raise ValueError(f"there is no {name!r}; there are {', '.join(known)}")
        read = known[name]
        try:
            if not equals and read is not _flag:
                raise ValueError
            options[name] = _joined(options.get(name), read(value if equals else "true"))
        except ValueError:
            raise ValueError(f"{word!r} is invalid: {name} does not take that") from None
    return options


def _joined(before: Any, value: Any) -> Any:
    """The value of an option that may be repeated."""
    if isinstance(value, dict):
        return {**(before or {}), **value}
    return [*(before or []), *value] if isinstance(value, list) else value


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError
    return value == "true"


def _pair(value: str) -> dict[str, str]:
    name, colon, value = value.partition(":")
    if not colon or not name.strip():
        raise ValueError
    return {name.strip(): value.strip()}


_OF_TYPE: Mapping[str, Callable[[str], Any]] = {
    "bool": _flag,
    "float": float,
    "float | None": float,
    "int": int,
    "int | None": int,
    "Mapping[str, str] | None": _pair,
    "Iterable[str]": lambda value: [value],
}
