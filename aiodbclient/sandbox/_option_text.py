"""Parse what the command line gives as text: ``status=503 nth=3``, ``users.create: status=503``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from ._faults import Faults, check_fault


def options(function: Callable[..., Any]) -> dict[str, Callable[[str], Any]]:
    """The options that ``function`` takes, and what reads the value of each."""
    return {
        name: _OF_TYPE.get(str(parameter.annotation), str)
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }


def read(function: Callable[..., Any], text: str) -> dict[str, Any]:
    """Read ``OPTION...`` as keyword arguments of ``function``, or raise ValueError."""
    # An option is ``name=value``, or only the name of a boolean. ``name=KEY:VALUE`` for a mapping, and ``name=VALUE``
    # for a list, may be repeated. A value with spaces has quotes.
    readers = options(function)
    given: dict[str, Any] = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if name not in readers:
            shown = repr(name) if name.isidentifier() else "in the text"  # it could be a part of a DSN
            raise ValueError(f"unknown option {shown}; the options are {', '.join(readers)}")
        read = readers[name]
        try:
            if not equals and read is not _flag:
                raise ValueError
            given[name] = _joined(given.get(name), read(value if equals else "true"))
        except ValueError:
            raise ValueError(f"{word!r} is not a valid value of {name}") from None
    return given


def read_fault(text: str, clusters: Mapping[str, str] | None = None) -> tuple[str | list[str], dict[str, Any]]:
    """Read ``OPERATION[,OPERATION...]: OPTION...`` as the arguments of ``Faults.add``, or raise ValueError."""
    where, colon, what = text.partition(":")
    names = where.replace(",", " ").split()
    if not colon or not names:
        raise ValueError(f"{text!r} is not OPERATION: OPTION..., such as 'users.create: status=503 nth=3'")
    operation, given = "*" if names == ["*"] else names, read(Faults.add, what)
    check_fault(operation, given)
    if clusters is not None and "cluster" in given and given["cluster"] not in clusters:
        found = [cluster_id for cluster_id, name in clusters.items() if name == given["cluster"]]
        if not found:
            raise ValueError(f"the fault names no cluster: {given['cluster']}")
        given["cluster"] = found[0]
    return operation, given


def _joined(before: Any, value: Any) -> Any:
    """Combine the values of a repeated option."""
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
