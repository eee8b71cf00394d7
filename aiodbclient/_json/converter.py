"""Convert models to JSON and back, with one cattrs converter. Pure.

Reading accepts what the API may add (unknown keys, enum values and engines) and what it may leave out (missing keys,
null lists, empty strings). It refuses a wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

from attrs import define, fields
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError

from ..engines import Engine
from ..models import MySQLSettings, NewUser, UserSettings
from .hooks import Hook, new_converter
from .parsing import parsed

T = TypeVar("T")


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


_converter = cache(new_converter)  # on first use: it takes as long as importing half of this package
