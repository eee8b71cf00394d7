"""Convert models to JSON and back, with one cattrs converter. Pure.

Reading accepts what the API may add (unknown keys, enum values and engines) and what it may leave out (missing keys,
null lists, empty strings). It refuses a wrong type.

A hook of the converter takes a value of JSON and its type, and returns the value for the model. For an invalid value it
raises TypeError or another of SHAPE_ERRORS. An ``optional`` one reads null and an empty string as None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin

from attrs import NOTHING, define, fields, has
from cattrs import Converter
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn

from ..engines import Engine
from ..models import Cluster, MySQLSettings, NewUser, UserSettings
from .parsing import parsed

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


@define
class ClusterEngine:
    """The engine of a cluster and nothing else, so that the guard works even if another member is unreadable."""

    engine: Engine | str
    id: str | None = None


@define
class Authority:
    """The CA certificate of a cluster: PEM, base64-encoded."""

    certificate: str


SHAPE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    BaseValidationError,
    StructureHandlerNotFoundError,
)


def decoded(body: bytes, key: str, model: type[T]) -> T:
    """Read the ``model`` under ``key`` of the JSON object in ``body``, or raise one of SHAPE_ERRORS with it."""
    value: T = _hook(model)(parsed(body)[key], model)  # type: ignore[arg-type]  # a class is hashable
    return value


def decoded_page(body: bytes, key: str, model: type[T], other_key: str = "") -> tuple[list[T], str | None]:
    """Read a list of ``model``, and the URL of its next page or None. Raises as ``decoded``."""
    payload = parsed(body)
    page = payload[other_key if key not in payload and other_key in payload else key]
    return _hook(list[model])(page, list[model]), _next_page(payload)  # type: ignore[valid-type]


def write(value: NewUser | UserSettings | MySQLSettings) -> dict[str, Any]:
    """Return the JSON object of ``value``, without members that are None."""
    return cast("dict[str, Any]", _converter().unstructure(value))


def setting_names(
    mysql_settings: MySQLSettings | None, settings: UserSettings | None, readonly: bool | None = None
) -> list[str]:
    """Return the names of the settings that are not None, as in ``Capabilities.user_settings``."""
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


@cache
def _hook(shape: Any) -> Hook:
    return _converter().get_structure_hook(shape)


def _new_converter() -> Converter:
    """Return a converter for the models."""
    converter = Converter(detailed_validation=False, omit_if_default=True)

    def hook_of(shape: Any) -> Hook:
        kinds = get_args(shape) if isinstance(shape, UnionType) else (shape,)
        kind, optional = kinds[0], NoneType in kinds
        if kind is datetime:
            return _moment
        if kind == dict[str, int]:
            return _ports
        if get_origin(kind) in {list, Sequence}:
            return _list_of(converter.get_structure_hook(get_args(kind)[0]), optional)
        if has(kind):
            hook = make_dict_structure_fn(kind, converter)
            # One with a required member refuses all but objects by itself.
            is_strict = not optional and any(each.default is NOTHING for each in fields(kind))
            return hook if is_strict else _object(hook, optional)
        if issubclass(kind, StrEnum):
            return _one_of(kind, optional)
        return _exactly(kind, optional)

    converter.register_structure_hook_factory(lambda _: True, hook_of)
    for kind in (str, int, bool):  # cattrs asks no factory for these
        converter.register_structure_hook(kind, hook_of(kind))
    read_cluster = make_dict_structure_fn(Cluster, converter)
    converter.register_structure_hook(Cluster, lambda value, kind: read_cluster(_with_engine(value), kind))
    return converter


_converter = cache(_new_converter)  # on first use: it takes as long as importing half of this package


def _exactly(kind: type, optional: bool) -> Hook:
    """Return the hook for a ``kind``. It refuses every other type."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind and (value or kind is not str or not optional):
            return value
        if optional and (value is None or value == ""):
            return None
        raise TypeError

    return structure


def _one_of(enum: type[StrEnum], optional: bool) -> Hook:
    """Return the hook for a member of ``enum``. An unknown value stays a string."""
    members: dict[str, StrEnum] = {member.value: member for member in enum}

    def structure(value: Any, _: Any) -> Any:
        if (member := members.get(value)) is not None:
            return member
        if type(value) is str and value:
            return Engine.parse(value) if enum is Engine else value
        if optional and (value is None or value == ""):
            return None
        raise TypeError

    return structure


def _object(hook: Hook, optional: bool) -> Hook:
    """Return ``hook`` for objects alone (cattrs accepts a string). One without members may be missing."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is dict and (value or not optional):
            return hook(value, kind)
        if optional and (value is None or value == "" or value == {}):
            return None
        raise TypeError

    return structure


def _list_of(hook: Hook, optional: bool) -> Hook:
    """Return the hook for a list. A null is an empty list, or None."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is list:
            # In place, so that each decoded object is freed at once. For thousands of elements this halves the memory
            # and avoids a garbage collection.
            for index, each in enumerate(value):
                value[index] = hook(each, kind)
            return value
        if value is None:
            return None if optional else []
        raise TypeError

    return structure


def _moment(value: Any, _: Any) -> datetime | None:
    """Read an ISO 8601 time that may be missing. Without a time zone it is UTC."""
    if value is None or value == "":
        return None
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _ports(value: Any, _: Any) -> dict[str, int]:
    """Read an object of numbers. A null is an empty one."""
    if value is None:
        return {}
    if type(value) is dict and all(type(port) is int for port in value.values()):
        return value
    raise TypeError


_CONNECTIONS = tuple(attribute.name for attribute in fields(Cluster) if attribute.name.endswith("connection"))


def _with_engine(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``cluster`` with its CNAMEs, and with its engine in each connection, for ``uri_for``."""
    engine = {"engine": cluster["engine"]}
    connections = {key: {**value, **engine} for key in _CONNECTIONS if (value := cluster.get(key))}
    cnames = (cluster.get("do_settings") or {}).get("service_cnames")
    return {**cluster, "connection": engine, **connections, "service_cnames": cnames}
