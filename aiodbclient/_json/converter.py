"""Convert models to JSON and back, with one cattrs converter. Pure.

Reading accepts what the API may add (unknown keys, enum values and engines) and what it may leave out (missing keys,
null lists, empty strings). It refuses a wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast

from attrs import fields
from cattrs import Converter
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn

from ..engines import Engine
from ..models import (
    Cluster,
    ClusterStatus,
    Connection,
    Database,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MySQLAuthPlugin,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserRole,
    UserSettings,
)
from . import hooks
from .parsing import parsed

T = TypeVar("T")


class ClusterEngine:
    """The engine of a cluster and nothing else, so that the guard works even if another member is unreadable."""

    __slots__ = ("engine", "id")

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.engine: Engine | str = hooks.engine(members["engine"], None)
        self.id: str | None = hooks.optional(str)(members.get("id"), None)


class Authority:
    """The CA certificate of a cluster: PEM, base64-encoded."""

    __slots__ = ("certificate",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.certificate: str = hooks.exactly(str)(members["certificate"], None)


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
def _hook(shape: Any) -> hooks.Hook:
    return _converter().get_structure_hook(shape)


@cache
def _converter() -> Converter:
    """Make the converter on first use: it takes as long as importing half of this package."""
    converter = Converter(detailed_validation=False, omit_if_default=True)

    hook_for = converter.get_structure_hook

    def register(shape: Any, hook: hooks.Hook) -> None:
        converter.register_structure_hook_func(lambda t: t == shape, hook)

    for kind in (str, int, bool):
        converter.register_structure_hook(kind, hooks.exactly(kind))
        register(kind | None, hooks.optional(kind))
    register(Engine | str, hooks.engine)
    register(Engine | str | None, hooks.engine)  # of a connection, copied from its cluster
    for enum in (ClusterStatus, UserRole, MySQLAuthPlugin, KafkaPermission, OpenSearchPermission, MongoRole):
        register(enum | str, hooks.open_enum(enum, optional=False))
        register(enum | str | None, hooks.open_enum(enum, optional=True))
    register(datetime | None, hooks.moment)
    register(dict[str, int], hooks.ports)
    register(list[str], hooks.list_of(hook_for(str)))
    acls = (hooks.list_of(hooks.an_object(hook_for(acl))) for acl in (KafkaACL, OpenSearchACL))
    users = hooks.users(hooks.user_settings(*acls))
    converter.register_structure_hook(User, lambda value, _: users([value], None)[0])
    register(list[User], users)
    register(list[Database], hooks.list_of(hook_for(Database)))
    register(Connection | None, hooks.optional_model(hook_for(Connection)))
    for part in (ClusterEngine, Authority):
        converter.register_structure_hook(part, lambda value, part: part(value))
    cluster = make_dict_structure_fn(Cluster, converter)
    converter.register_structure_hook(Cluster, lambda value, _: cluster(_with_engine(value), Cluster))
    register(list[Cluster], hooks.list_of(hook_for(Cluster)))
    return converter


_CONNECTIONS = tuple(attribute.name for attribute in fields(Cluster) if attribute.name.endswith("connection"))


def _with_engine(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``cluster`` with its CNAMEs, and with its engine in each connection, for ``uri_for``."""
    engine = {"engine": cluster["engine"]}
    connections = {key: {**value, **engine} for key in _CONNECTIONS if (value := cluster.get(key))}
    cnames = (cluster.get("do_settings") or {}).get("service_cnames")
    return {**cluster, "connection": engine, **connections, "service_cnames": cnames}
