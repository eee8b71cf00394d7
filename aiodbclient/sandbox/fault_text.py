"""Faults written as text, for the program: ``users.create: status=503 nth=3``. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from attrs import frozen

from .faults import Faults


@frozen
class FaultText:
    """The arguments of ``Faults.add``."""

    operation: str | list[str]
    options: dict[str, Any]


def parse(text: str) -> FaultText:
    """Read ``OPERATION[,OPERATION...]: OPTION...``, with the options of ``Faults.add``.

    An option is ``name=value``, or only its name if it is a boolean. ``headers=NAME:VALUE`` may be repeated. A value
    with spaces is put in quotes.

    Raises:
        ValueError: It is not of this form, or ``Faults.add`` would not take it.
    """
    where, colon, what = text.partition(":")
    names = where.replace(",", " ").split()
    if not colon or not names:
        raise ValueError(f"{text!r} is not OPERATION: OPTION..., such as 'users.create: status=503 nth=3'")
    options: dict[str, Any] = {}
    for word in shlex.split(what):
        name, equals, value = word.partition("=")
        if name not in _READ:
            raise ValueError(f"there is no {name!r}; there are {', '.join(_READ)}")
        try:
            read = _READ[name](value) if equals else _yes(name)
        except ValueError:
            raise ValueError(f"{word!r} says nothing that {name} can be") from None
        options[name] = {**options.get(name, {}), **read} if isinstance(read, dict) else read
    fault = FaultText("*" if names == ["*"] else names, options)
    Faults().add(fault.operation, **fault.options)
    return fault


def _yes(name: str) -> bool:
    if _READ[name] is not _flag:
        raise ValueError
    return True


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError
    return value == "true"


def _headers(value: str) -> dict[str, str]:
    name, colon, value = value.partition(":")
    if not colon or not name.strip():
        raise ValueError
    return {name.strip(): value.strip()}


_OF_TYPE: Mapping[str, Callable[[str], Any]] = {
    "bool": _flag,
    "float": float,
    "int | None": int,
    "float | None": float,
    "str | None": str,
    "Mapping[str, str] | None": _headers,
}
_READ = {
    name: _OF_TYPE[parameter.annotation]
    for name, parameter in signature(Faults.add).parameters.items()
    if parameter.kind is Parameter.KEYWORD_ONLY
}
