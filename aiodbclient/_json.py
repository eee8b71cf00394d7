"""Convert JSON to models and back, with cattrs. Pure.

Reading accepts what the API may add (unknown members, enum values and engines) and what it may leave out: a member that
is null, an empty string or an empty object counts as missing. It refuses a value of another type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

from attrs import NOTHING, fields, frozen, has
from cattrs import Converter
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn

from ._checks import shown
from .engines import Engine
from .errors import InvalidArgumentError
from .models import (
    ClusterInfo,
    Database,
    KafkaACL,
    MongoUserSettings,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    UserSettings,
)

T = TypeVar("T")

# What ``decode`` raises for JSON that is not as documented.
UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    BaseValidationError,
    StructureHandlerNotFoundError,
)


@frozen
class ClusterEngine:
    """The engine of a cluster and nothing else, so that the guard works even if another member is unreadable."""

    engine: Engine | str
    id: str | None = None


@frozen
class Authority:
    """The CA certificate of a cluster: PEM, base64-encoded."""

    certificate: str


@frozen
class UserChange:
    """What an update or reset of a user changes."""

    settings: UserSettings | None = None
    mysql_settings: MySQLSettings | None = None


Body = NewUser | UserChange | Database


def encode(body: Body) -> tuple[bytes, list[str]]:
    """Return the JSON of a body, without members that are None, and the names of the settings in it."""
    check_settings(body)
    members: dict[str, Any] = _converter().unstructure(body)
    names = ["settings." + name for name in members.get("settings", ())]
    names += [name for name in members if name not in ("name", "settings")]
    try:
        return json.dumps(members).encode(), names
    except (TypeError, ValueError) as error:
        problem = f"JSON cannot represent the arguments: {error}; nothing was sent"
    raise InvalidArgumentError(problem)


def check_settings(body: Body) -> None:
    """Check the types of the settings in a body. Each setting may be None."""
    for name, kind in _SETTINGS:
        if (value := getattr(body, name, None)) is not None:
            _check(name, value, kind)
    settings: UserSettings | None = getattr(body, "settings", None)
    if settings is None:
        return
    _check("settings.pg_allow_replication", settings.pg_allow_replication, bool)
    _check_all("settings.acl", settings.acl, KafkaACL)
    _check_all("settings.opensearch_acl", settings.opensearch_acl, OpenSearchACL)
    _check("settings.mongo_user_settings", settings.mongo_user_settings, MongoUserSettings)
    if settings.mongo_user_settings is not None:
        _check_all("settings.mongo_user_settings.databases", settings.mongo_user_settings.databases, str)


_SETTINGS = (("mysql_settings", MySQLSettings), ("readonly", bool), ("settings", UserSettings))


def _check_all(argument: str, values: Any, kind: type) -> None:
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if values is not None and not (is_list and all(isinstance(each, kind) for each in values)):
        raise InvalidArgumentError(
            f"{argument} must be a list of {kind.__name__}, not {shown(values)}; nothing was sent"
        )


def _check(argument: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidArgumentError(
            f"{argument} must be a {kind.__name__} or None, not {type(value).__name__}; nothing was sent"
        )


def decode(body: bytes, key: str, model: type[T]) -> T:
    """Read the ``model`` under ``key`` of the JSON object in ``body``, or raise one of UNREADABLE."""
    return _converter().structure(parse(body)[key], model)


def decode_page(body: bytes, key: str, model: type[T], key_alias: str = "") -> tuple[list[T], str | None]:
    """Read a list of ``model``, and the URL of its next page or None. Raises as ``decode``."""
    payload = parse(body)
    page = payload[key_alias if key not in payload and key_alias in payload else key]
    items = _converter().structure(page, list[model])  # type: ignore[valid-type]
    following = ((payload.get("links") or {}).get("pages") or {}).get("next") or None
    if following is not None and not isinstance(following, str):
        raise TypeError
    return items, following


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes) -> Any:
    """Return the value of the JSON in ``body``."""
    value = json.loads(body.decode())
    if b"\\" in body and _HALF.search(body):  # perhaps half a character, which no UTF-8 can hold
        json.dumps(value, ensure_ascii=False).encode()
    return value


Hook = Callable[[Any, Any], Any]


@cache  # on first use: it takes as long as importing half of this package
def _converter() -> Converter:
    """Return the converter, with strict hooks for what cattrs would convert from another type."""
    converter = Converter(detailed_validation=False, omit_if_default=True)
    for kind in _SCALARS:
        converter.register_structure_hook(kind, _scalar(kind, optional=False))
    converter.register_structure_hook(datetime, _datetime)
    converter.register_structure_hook_factory(has, lambda model: _object(model, converter))
    converter.register_structure_hook_factory(_is_list, lambda shape: _list(shape, converter))
    converter.register_structure_hook_factory(_is_union, lambda shape: _union(shape, converter))
    return converter


_SCALARS = (str, int, bool)
_MISSING: tuple[object, ...] = (None, "", {})


def _scalar(kind: type, *, optional: bool) -> Hook:
    def read(value: Any, _: Any) -> Any:
        if type(value) is kind and (value or not optional or kind is not str):
            return value
        if optional and value in _MISSING:
            return None
        raise TypeError

    return read


def _datetime(value: Any, _: Any) -> datetime:
    """Read a time in ISO 8601. Without a time zone it is UTC."""
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _object(model: type, converter: Converter) -> Hook:
    read_members: Hook = make_dict_structure_fn(model, converter, _cattrs_detailed_validation=False)
    if model is not ClusterInfo and any(attribute.default is NOTHING for attribute in fields(model)):
        return read_members  # only an object has the required member

    def read(members: Any, _: Any) -> Any:
        if type(members) is not dict:
            raise TypeError
        return read_members(_with_engine(members) if model is ClusterInfo else members, model)

    return read


_CONNECTIONS = tuple(attribute.name for attribute in fields(ClusterInfo) if attribute.name.endswith("connection"))


def _with_engine(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``cluster`` with its CNAMEs, and with its engine in each connection, for ``uri_for``."""
    engine = {"engine": cluster["engine"]}
    connections = dict[str, object]()
    for key in _CONNECTIONS:
        connection: Any = cluster.get(key)
        if connection not in _MISSING:
            connections[key] = {name: member for name, member in connection.items() if member is not None} | engine
    cnames = (cluster.get("do_settings") or {}).get("service_cnames")
    return {**cluster, "connection": engine, **connections, "service_cnames": cnames}


def _is_list(shape: Any) -> bool:
    return get_origin(shape) in (list, Sequence)


def _list(shape: Any, converter: Converter) -> Hook:
    [of] = get_args(shape)
    read_one: Hook = converter.get_structure_hook(of)

    def read(value: Any, _: Any) -> Any:
        if value is None:
            return []
        if type(value) is not list:
            raise TypeError
        # In place, so that each decoded object is freed at once. For thousands of elements this halves the memory and
        # avoids a garbage collection.
        for index, each in enumerate(value):
            value[index] = read_one(each, of)
        return value

    return read


def _is_union(shape: Any) -> bool:
    return isinstance(shape, UnionType)


def _union(shape: Any, converter: Converter) -> Hook:
    """Return the hook for ``X | None``, or for an enum to which the API may add values: ``SomeEnum | str``."""
    kind, *others = get_args(shape)
    optional = NoneType in others
    if kind in _SCALARS:
        return _scalar(kind, optional=optional)
    if str in others:
        return _open_enum(kind, optional)
    read_one: Hook = converter.get_structure_hook(kind)
    return lambda value, _: read_one(value, kind) if value or value not in _MISSING else None


def _open_enum(enum: type[StrEnum], optional: bool) -> Hook:
    members: dict[str, StrEnum] = {member.value: member for member in enum}

    def read(value: Any, _: Any) -> Any:
        if type(value) is str and value:
            return members.get(value) or (Engine.parse(value) if enum is Engine else value)
        if optional and value in _MISSING:
            return None
        raise TypeError

    return read
