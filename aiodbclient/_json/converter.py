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

from attrs import define, fields
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

T = TypeVar("T")


@define
class ClusterEngine:
    """The engine of a cluster, for the guard: a cluster with an unreadable member elsewhere is still guarded."""

    engine: Engine | str
    id: str | None = None


@define
class Authority:
    """The certificate authority of a cluster: PEM, base64-encoded."""

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
    """Read the ``model`` under ``key`` of the JSON object in ``body``.

    Raises one of SHAPE_ERRORS where there is none.

    What it raises quotes the body, and with that credentials.
    """
    value: T = _hook(model)(json.loads(body.decode())[key], model)  # type: ignore[arg-type]  # a class is hashable
    return value


def decoded_page(body: bytes, key: str, model: type[T]) -> tuple[list[T], str | None]:
    """Read a list of ``model`` as ``decoded`` does, and the address of its next page, or None."""
    payload = json.loads(body.decode())
    return _hook(list[model])(payload[key], list[model]), _next_page(payload)  # type: ignore[valid-type]


def write(value: NewUser | UserSettings | MySQLSettings) -> dict[str, Any]:
    """Make the JSON object of ``value``, without the members that are None."""
    return cast("dict[str, Any]", _converter().unstructure(value))


def setting_names(
    mysql_settings: MySQLSettings | None, settings: UserSettings | None, readonly: bool | None = None
) -> list[str]:
    """Name the settings that are not None as ``Capabilities.user_settings`` does."""
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


def _engine(value: Any, _: Any) -> Engine | str:
    if type(value) is str and value:
        return Engine.parse(value)
    raise TypeError


def _datetime(value: Any, _: Any) -> datetime | None:
    if value is None or value == "":
        return None
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _ports(value: Any, _: Any) -> dict[str, int]:
    if value is None:
        return {}
    if type(value) is dict and all(type(port) is int for port in value.values()):
        return value
    raise TypeError


def _optional_model(converter: Converter, cls: type) -> Hook:
    hook: Hook | None = None

    def structure(value: Any, _: Any) -> Any:
        nonlocal hook
        if type(value) is dict:
            if not value:  # says as little as null
                return None
            hook = hook or converter.get_structure_hook(cls)
            return hook(value, cls)
        if value is None or value == "":
            return None
        raise TypeError

    return structure


@cache
def _hook(shape: Any) -> Hook:
    return _converter().get_structure_hook(shape)


@cache
def _converter() -> Converter:
    """Make the converter when it is first needed, since that takes as long as importing half of this package."""
    converter = Converter(detailed_validation=False, omit_if_default=True)

    def register(shape: Any, hook: Hook) -> None:
        converter.register_structure_hook_func(lambda t: t == shape, hook)

    def list_of(cls: type, empty: list[Any] | None) -> Hook:
        def structure(value: Any, _: Any) -> Any:
            if type(value) is list:
                hook = converter.get_structure_hook(cls)
                # In place, so that each decoded object is freed as soon as it is read: half the memory, and no garbage
                # collection on the way, for a list of thousands.
                for index, each in enumerate(value):
                    value[index] = hook(each, cls)
                return value
            if value is None:
                return empty if empty is None else []
            raise TypeError

        return structure

    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
        register(kind | None, _optional(kind))
    register(Engine | str, _engine)
    register(Engine | str | None, lambda value, _: None if value is None or value == "" else _engine(value, _))
    for enum in (ClusterStatus, UserRole, MySQLAuthPlugin, KafkaPermission, OpenSearchPermission, MongoRole):
        register(enum | str, _open_enum(enum, optional=False))
        register(enum | str | None, _open_enum(enum, optional=True))
    register(datetime | None, _datetime)
    register(MySQLSettings | None, _optional_model(converter, MySQLSettings))
    register(UserSettings | None, _optional_model(converter, UserSettings))
    register(MongoUserSettings | None, _optional_model(converter, MongoUserSettings))
    register(Connection | None, _optional_model(converter, Connection))
    register(Sequence[str] | None, list_of(str, empty=None))
    register(Sequence[KafkaACL] | None, list_of(KafkaACL, empty=None))
    register(Sequence[OpenSearchACL] | None, list_of(OpenSearchACL, empty=None))
    register(list[str], list_of(str, empty=[]))
    register(dict[str, int], _ports)
    register(list[User], list_of(User, empty=[]))
    register(list[Database], list_of(Database, empty=[]))
    register(list[Cluster], list_of(Cluster, empty=[]))
    converter.register_structure_hook(UserSettings, _settings_hook(converter))
    converter.register_structure_hook(User, _user_hook(converter))
    cluster = make_dict_structure_fn(Cluster, converter)
    converter.register_structure_hook(Cluster, lambda value, _: cluster(_with_engine(value), Cluster))
    return converter


def _user_hook(converter: Converter) -> Hook:
    """Read a User as cattrs would, without a call for each attribute, since lists of users are long."""
    roles: dict[object, UserRole] = {role.value: role for role in UserRole}
    text, role_of = _optional(str), _open_enum(UserRole, optional=True)
    settings_of = _optional_model(converter, UserSettings)
    mysql_settings_of = _optional_model(converter, MySQLSettings)

    def structure(value: Any, _: Any) -> User:
        get = value.get
        name, role, password, settings = value["name"], get("role"), get("password"), get("settings")
        if type(name) is not str:
            raise TypeError
        known = roles.get(role)
        if known and password and type(password) is str and len(value) == (3 if settings is None else 4):
            # Most are so: nothing but these.
            return User(name, known, password, None, None, None, settings and settings_of(settings, None))
        return User(
            name,
            known or role_of(role, None),
            password if type(password) is str and password else text(password, None),
            None if (cert := get("access_cert")) is None else text(cert, None),
            None if (key := get("access_key")) is None else text(key, None),
            None if (mysql_settings := get("mysql_settings")) is None else mysql_settings_of(mysql_settings, None),
            None if settings is None else settings_of(settings, None),
        )

    return structure


def _settings_hook(converter: Converter) -> Hook:
    """Read UserSettings, likewise."""
    flag = _optional(bool)
    acl_of: Hook = converter.get_structure_hook(Sequence[KafkaACL] | None)
    opensearch_acl_of: Hook = converter.get_structure_hook(Sequence[OpenSearchACL] | None)
    mongo_of: Hook = converter.get_structure_hook(MongoUserSettings | None)

    def structure(value: Any, _: Any) -> UserSettings:
        get = value.get
        return UserSettings(
            flag(get("pg_allow_replication"), None),
            None if (acl := get("acl")) is None else acl_of(acl, None),
            None if (acl := get("opensearch_acl")) is None else opensearch_acl_of(acl, None),
            None if (mongo := get("mongo_user_settings")) is None else mongo_of(mongo, None),
        )

    return structure


_CONNECTIONS = tuple(attribute.name for attribute in fields(Cluster) if attribute.name.endswith("connection"))


def _with_engine(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the engine of ``cluster`` into each of its connections, which need it to write a DSN."""
    engine = {"engine": cluster["engine"]}
    connections = {key: {**value, **engine} for key in _CONNECTIONS if (value := cluster.get(key))}
    return {**cluster, "connection": engine, **connections}
