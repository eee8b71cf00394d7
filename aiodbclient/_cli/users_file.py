"""The users of a cluster from a file in YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin

import attrs

from .. import NewUser
from ..errors import InvalidArgumentError
from .asking import interruptible
from .names import read_text, shown

T = TypeVar("T")
_MOST_BYTES = 4 * 1024 * 1024
_MOST_READ = _MOST_BYTES  # characters and members: aliases can repeat a small text without end
_SHOWN = 60  # characters of a value that a message shows
_Node = Any  # a node of PyYAML: with its line, which loaded values have not
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_STYLES = {"+": "green", "~": "yellow", "-": "red"}
_TAGS = {"str": "text", "bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}


def read_users(file: Path) -> list[NewUser]:
    """Read the users in ``file``: a list, alone or under ``users:``. A user without settings may be its name."""
    import yaml

    where, text = shown(file), read_text(file, _MOST_BYTES)
    with suppress(ValueError, RecursionError):
        json.loads(text)
        text = text.replace("\t", " ")  # in JSON they are spaces, and YAML refuses them
    try:
        # libyaml is ten times as fast, and bounds the depth. PyYAML's own reader ends with RecursionError.
        with interruptible():
            root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidArgumentError(f"{where}, line {line}: not YAML or JSON: {error.problem}") from None
    except (yaml.YAMLError, RecursionError):
        raise InvalidArgumentError(f"{where} is not YAML or JSON") from None
    return _File(where).users(root)


class _File:
    """From the nodes of a file to users."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = _MOST_READ

    def users(self, root: _Node) -> list[NewUser]:
        if root is not None and root.id == "mapping":
            root = self._members(root, "the file", ["users"]).get("users", root)
        if root is None or root.id != "sequence":
            raise self._wrong(root, "this must be a list of users, alone or under `users:`")
        users, seen = list[NewUser](), dict[str, int]()
        for node in root.value:
            user = NewUser(self._text(node)) if _is(node, "str") else self._object(node, NewUser, "a user")
            if user.name in seen:
                raise self._wrong(node, f"{_short(repr(user.name))} is there twice, first in line {seen[user.name]}")
            seen[user.name] = node.start_mark.line + 1
            users.append(user)
        return users

    def _object(self, node: _Node, kind: type[T], what: str) -> T:
        """Read an attrs object, each member by the type of its field."""
        fields = {each.name: each for each in attrs.fields(attrs.resolve_types(cast(Any, kind))) if each.name != "id"}
        given = self._members(node, what, fields)
        needed = [name for name, each in fields.items() if each.default is attrs.NOTHING]
        if not given.keys() >= set(needed):
            raise self._wrong(node, f"{what} needs {' and '.join(f'`{name}`' for name in needed)}")
        return kind(**{name: self._value(value, fields[name].type, name) for name, value in given.items()})

    def _value(self, node: _Node, kind: Any, what: str) -> Any:
        if isinstance(kind, UnionType):
            kind = get_args(kind)[0]  # the others are None, and the text of an enum
        if get_origin(kind) is Sequence:
            if node.id != "sequence":
                raise self._wrong(node, "this must be a list")
            self._count(node, len(node.value))
            return [self._value(item, get_args(kind)[0], what) for item in node.value]
        if attrs.has(kind):
            return self._object(node, kind, what)
        if kind is bool:
            return self._flag(node)
        text = self._text(node)
        if issubclass(kind, StrEnum) and text not in list(kind):
            raise self._wrong(node, f"{_short(repr(text))} is not one of {', '.join(kind)}")
        return text

    def _members(self, node: _Node, what: str, known: Iterable[str]) -> dict[str, _Node]:
        """The members of a mapping. One that is null counts as left out."""
        names = list(known)
        if node.id != "mapping":
            raise self._wrong(node, f"{what} must have members such as `{names[0]}:`")
        members = dict[str, _Node]()
        for key, value in node.value:
            self._count(key, 1)
            if not isinstance(key.value, str) or key.value not in names:
                called = _short(repr(key.value)) if key.id == "scalar" else _described(key)
                raise self._wrong(key, f"{what} has no member {called}; it may have: {', '.join(names)}")
            if key.value in members:
                raise self._wrong(key, f"`{key.value}` comes twice")
            if not _is(value, "null"):
                members[key.value] = value
        return members

    def _text(self, node: _Node) -> str:
        if not _is(node, "str"):
            quote = ": put it between quotation marks" if node.id == "scalar" else ""
            raise self._wrong(node, f"this must be text, and is {_described(node)}{quote}")
        self._count(node, len(node.value))
        return str(node.value)

    def _flag(self, node: _Node) -> bool:
        flag = _FLAGS.get(node.value.lower()) if _is(node, "bool") else None
        if flag is None:
            raise self._wrong(node, f"this must be true or false, and is {_described(node)}")
        return flag

    def _count(self, node: _Node, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._wrong(node, "the file is too large, with what its aliases repeat")

    def _wrong(self, node: _Node, problem: str) -> InvalidArgumentError:
        line = 1 if node is None else node.start_mark.line + 1
        return InvalidArgumentError(f"{self._where}, line {line}: {problem}. Nothing was sent")


def _is(node: _Node, tag: str) -> bool:
    """Whether ``node`` is a single value of that type. A file can put any tag on a list, too."""
    return bool(node.id == "scalar" and _tag(node) == tag)


def _tag(node: _Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _described(node: _Node) -> str:
    if node.id == "scalar":
        return f"{_TAGS.get(_tag(node), _short(_tag(node)))} ({_short(node.value)})"
    return "a list" if node.id == "sequence" else "a mapping"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
