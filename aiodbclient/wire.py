"""Models to JSON and back, by one cattrs converter. Pure.

Reading is lenient where the API may grow (unknown keys, enum values and engines) or leaves out (missing keys, null
lists, empty strings), and strict where a wrong type would travel on as something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, cast

from attrs import fields
from cattrs import Converter
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn

from .answers import excerpt
from .engines import Engine
from .errors import InvalidResponseError
from .models import (
    Cluster,
    Connection,
    Database,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    MySQLAuthPlugin,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserRole,
    UserSettings,
)
from .operations import Operation

T = TypeVar("T")


class Answer:
    """A successful answer, not read yet."""

    __slots__ = ("body", "operation", "path", "status")

    def __init__(self, operation: Operation, path: str, status: int, body: bytes) -> None:
        self.operation = operation
        self.path = path
        self.status = status
        self.body = body


def read(answer: Answer, key: str, model: type[T]) -> T:
    """The ``model`` under ``key`` of ``answer``. Raises InvalidResponseError where the answer is not of that shape."""
    # The error is raised outside of the handler: what a decoder or cattrs raises quotes the answer, and its
    # credentials.
    try:
        return _converter().structure(json.loads(answer.body)[key], model)
    except _SHAPE_ERRORS:
        pass
    raise _invalid(answer, key)


def read_page(answer: Answer, key: str, model: type[T]) -> tuple[T, str | None]:
    """As ``read``, with the address of the next page of a list, if it has one."""
    try:
        payload = json.loads(answer.body)
        return _converter().structure(payload[key], model), _next_page(payload)
    except _SHAPE_ERRORS:
        pass
    raise _invalid(answer, key)


_SHAPE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    BaseValidationError,
    StructureHandlerNotFoundError,
)


def _invalid(answer: Answer, key: str) -> InvalidResponseError:
    return InvalidResponseError(
        f"{answer.operation.at(answer.path)}: the answer ({answer.status}) is not the documented JSON object "
        f"with {key!r}",
        status=answer.status,
        body=excerpt(answer.body),
        may_have_applied=answer.operation.writes,
    )


def write(value: NewUser | UserSettings | MySQLSettings) -> dict[str, Any]:
    """The JSON object of ``value``, without what was not given."""
    return cast("dict[str, Any]", _converter().unstructure(value))


def setting_names(
    mysql_settings: MySQLSettings | None, settings: UserSettings | None, readonly: bool | None = None
) -> list[str]:
    """The settings that are given, by the names that the capability table uses."""
    names: list[str] = []
    if settings is not None:
        names += [f"settings.{field}" for field in _USER_SETTINGS if getattr(settings, field) is not None]
    if mysql_settings is not None:
        names.append("mysql_settings")
    if readonly is not None:
        names.append("readonly")
    return names


_USER_SETTINGS = tuple(attribute.name for attribute in fields(UserSettings))


def _next_page(payload: Mapping[str, Any]) -> str | None:
    pages = (payload.get("links") or {}).get("pages") or {}
    following = pages.get("next") or None
    if following is not None and not isinstance(following, str):
        raise TypeError
    return following


# Hooks take the value and, as cattrs wants it, the type. They are plain functions without layers because a list of
# 5,000 users calls them 15,000 times.
Hook = Callable[[Any, Any], Any]


def _exactly(kind: type) -> Hook:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def _optional(kind: type) -> Hook:
    def structure(value: Any, _: Any) -> Any:
        if value is None or value == "":
            return None
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def _open_enum(enum: type[StrEnum], *, optional: bool) -> Hook:
    members: dict[str, StrEnum] = {member.value: member for member in enum}

    def structure(value: Any, _: Any) -> Any:
        if type(value) is str and value:
            return members.get(value, value)
        if optional and (value is None or value == ""):
            return None
        raise TypeError

    return structure


def _datetime(value: Any, _: Any) -> datetime | None:
    if value is None or value == "":
        return None
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@cache
def _converter() -> Converter:
    """The one converter, made when first needed: making it takes as long as importing half of this package."""
    converter = Converter(detailed_validation=False, omit_if_default=True)

    def register(shape: Any, hook: Hook) -> None:
        converter.register_structure_hook_func(lambda t: t == shape, hook)

    def optional_model(cls: type) -> Hook:
        def structure(value: Any, _: Any) -> Any:
            if value is None or value == {}:  # an empty object says as little as null
                return None
            if type(value) is dict:
                return converter.structure(value, cls)
            raise TypeError

        return structure

    def list_of(cls: type, empty: list[Any] | None) -> Hook:
        def structure(value: Any, _: Any) -> Any:
            if type(value) is list:
                hook = converter.get_structure_hook(cls)
                return [hook(each, cls) for each in value]
            if value is None:
                return empty if empty is None else []
            raise TypeError

        return structure

    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
        register(kind | None, _optional(kind))
    for enum in (Engine, UserRole, MySQLAuthPlugin, KafkaPermission, OpenSearchPermission, MongoRole):
        register(enum | str, _open_enum(enum, optional=False))
        register(enum | str | None, _open_enum(enum, optional=True))
    register(datetime | None, _datetime)
    register(MySQLSettings | None, optional_model(MySQLSettings))
    register(UserSettings | None, optional_model(UserSettings))
    register(MongoUserSettings | None, optional_model(MongoUserSettings))
    register(Connection | None, optional_model(Connection))
    register(Sequence[str] | None, list_of(str, empty=None))
    register(Sequence[KafkaACL] | None, list_of(KafkaACL, empty=None))
    register(Sequence[OpenSearchACL] | None, list_of(OpenSearchACL, empty=None))
    register(list[str], list_of(str, empty=[]))
    register(list[User], list_of(User, empty=[]))
    register(list[Database], list_of(Database, empty=[]))
    register(list[Cluster], list_of(Cluster, empty=[]))
    cluster = make_dict_structure_fn(Cluster, converter)
    converter.register_structure_hook(Cluster, lambda value, _: cluster(_with_engine(value), Cluster))
    return converter


def _with_engine(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """``cluster`` with its engine told to each of its connections, which need it to write a DSN."""
    return {
        key: {**value, "engine": cluster["engine"]} if key.endswith("connection") and value else value
        for key, value in cluster.items()
    }
