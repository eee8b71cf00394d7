"""Convert JSON to models and back, with cattrs. Pure.

Reading accepts what the API may add (unknown members, enum values and engines) and what it may leave out: a member that
is null, an empty string or an empty object counts as missing. It refuses a value of another type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

from attrs import define, fields, has
from cattrs import Converter
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn

from .engines import Engine
from .errors import InvalidArgumentError
from .models import Cluster, Database, MySQLSettings, NewUser, UserSettings

T = TypeVar("T")

# What ``decode`` raises for JSON that is not as documented.
UNREADABLE = (
    MemoryError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    BaseValidationError,
    StructureHandlerNotFoundError,
)


@define
class ClusterEngine:
    """The engine of a cluster and nothing else, so that the guard works even if another member is unreadable."""

    engine: Engine | str
    id: str | None = None


@define
class Authority:
    """The CA certificate of a cluster: PEM, base64-encoded."""

    certificate: str


@define
class UserChange:
    """What an update or reset of a user changes."""

    settings: UserSettings | None = None
    mysql_settings: MySQLSettings | None = None


Body = NewUser | UserChange | Database


def encode(body: Body) -> tuple[bytes, list[str]]:
    """Return the JSON of a body, without members that are None, and the names of the settings in it."""
    members: dict[str, Any] = _converter().unstructure(body)
    names = ["settings." + name for name in members.get("settings", ())]
    names += [name for name in members if name not in ("name", "settings")]
    try:
        return json.dumps(members).encode(), names
    except (TypeError, ValueError) as error:
        problem = f"JSON cannot represent the arguments: {error}; nothing was sent"
    raise InvalidArgumentError(problem)


def decode(body: bytes, key: str, model: type[T]) -> T:
    """Read the ``model`` under ``key`` of the JSON object in ``body``, or raise one of UNREADABLE."""
    return _converter().structure(parse(body)[key], model)


def decode_page(body: bytes, key: str, model: type[T], other_key: str = "") -> tuple[list[T], str | None]:
    """Read a list of ``model``, and the URL of its next page or None. Raises as ``decode``."""
    payload = parse(body)
    page = payload[other_key if key not in payload and other_key in payload else key]
    items = [] if page is None else _converter().structure(page, list[model])  # type: ignore[valid-type]
    following = ((payload.get("links") or {}).get("pages") or {}).get("next") or None
    if following is not None and not isinstance(following, str):
        raise TypeError
    return items, following


def parse(body: bytes) -> Any:
    """Return the value of the JSON in ``body``."""
    value = json.loads(body.decode())
    if b"\\ud" in body.lower():  # half a character, which no UTF-8 can hold
        json.dumps(value, ensure_ascii=False).encode()
    return value


@cache  # on first use: it takes as long as importing half of this package
def _converter() -> Converter:
    """Return the converter, with strict hooks for what cattrs would convert from another type."""
    converter = Converter(detailed_validation=False, omit_if_default=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exact(kind))
    converter.register_structure_hook(datetime, _datetime)
    converter.register_structure_hook_factory(has, lambda model: _object(model, converter))
    converter.register_structure_hook_factory(_is_list, lambda shape: _list(shape, converter))
    converter.register_structure_hook_factory(_is_open_enum, _open_enum)
    return converter


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    def read(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return read


def _datetime(value: Any, _: Any) -> datetime:
    """Read a time in ISO 8601. Without a time zone it is UTC."""
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_MISSING: tuple[object, ...] = (None, "", {})


def _object(model: type, converter: Converter) -> Callable[[Any, Any], Any]:
    read_members: Callable[[Any, Any], Any] = make_dict_structure_fn(model, converter)

    def read(value: Any, _: Any) -> Any:
        if type(value) is not dict:
            raise TypeError
        members = {key: member for key, member in value.items() if member not in _MISSING}
        return read_members(_with_engine(members) if model is Cluster else members, model)

    return read


_CONNECTIONS = tuple(attribute.name for attribute in fields(Cluster) if attribute.name.endswith("connection"))


def _with_engine(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``cluster`` with its CNAMEs, and with its engine in each connection, for ``uri_for``."""
    engine = {"engine": cluster["engine"]}
    connections = {key: {**cluster[key], **engine} for key in _CONNECTIONS if key in cluster}
    cnames = cluster.get("do_settings", {}).get("service_cnames") or []
    return {**cluster, "connection": engine, **connections, "service_cnames": cnames}


def _is_list(shape: Any) -> bool:
    return get_origin(shape) in (list, Sequence)


def _list(shape: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    [of] = get_args(shape)
    read_one = converter.get_structure_hook(of)

    def read(value: Any, _: Any) -> Any:
        if type(value) is not list:
            raise TypeError
        return [read_one(each, of) for each in value]

    return read


def _is_open_enum(shape: Any) -> bool:
    """Whether ``shape`` is an enum of strings to which the API may add values: ``SomeEnum | str``, or None."""
    kinds = set(get_args(shape)) - {NoneType} if isinstance(shape, UnionType) else set()
    return str in kinds and any(issubclass(kind, StrEnum) for kind in kinds)


def _open_enum(shape: Any) -> Callable[[Any, Any], Any]:
    enum = next(kind for kind in get_args(shape) if issubclass(kind, StrEnum))
    members = {member.value: member for member in enum}

    def read(value: Any, _: Any) -> Any:
        if type(value) is not str or not value:
            raise TypeError
        return members.get(value) or (Engine.parse(value) if enum is Engine else value)

    return read
