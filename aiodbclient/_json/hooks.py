"""Hooks of the converter that read JSON into models. Pure.

A hook takes a value and its type, as cattrs passes them, and returns the value for the model. For an invalid value it
raises TypeError or another of ``converter.SHAPE_ERRORS``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ..engines import Engine
from ..models import MongoRole, MongoUserSettings, MySQLAuthPlugin, MySQLSettings, User, UserRole, UserSettings

Hook = Callable[[Any, Any], Any]


def exactly(kind: type) -> Hook:
    """Return the hook for a ``kind``. It refuses every other type."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def optional(kind: type) -> Hook:
    """Return the hook for a ``kind`` that may be missing: null, or an empty string."""

    def structure(value: Any, _: Any) -> Any:
        if value is None or value == "":
            return None
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def open_enum(enum: type[StrEnum], *, optional: bool) -> Hook:
    """Return the hook for a member of ``enum``. An unknown value stays a string."""
    members: dict[str, StrEnum] = {member.value: member for member in enum}

    def structure(value: Any, _: Any) -> Any:
        if type(value) is str and value:
            return members.get(value, value)
        if optional and (value is None or value == ""):
            return None
        raise TypeError

    return structure


def engine(value: Any, _: Any) -> Engine | str:
    """Read an engine: a non-empty string."""
    if type(value) is str and value:
        return Engine.parse(value)
    raise TypeError


def moment(value: Any, _: Any) -> datetime | None:
    """Read an ISO 8601 time that may be missing. Without a time zone it is UTC."""
    if value is None or value == "":
        return None
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ports(value: Any, _: Any) -> dict[str, int]:
    """Read an object of numbers."""
    if value is None:
        return {}
    if type(value) is dict and all(type(port) is int for port in value.values()):
        return value
    raise TypeError


def an_object(hook: Hook) -> Hook:
    """Return ``hook`` for objects alone: those that cattrs makes accept a string without the members."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is dict:
            return hook(value, kind)
        raise TypeError

    return structure


def optional_model(hook: Hook) -> Hook:
    """Return the hook for an object that may be missing: null, an empty string, or no members."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is dict and value:
            return hook(value, kind)
        _check_missing(value)
        return None

    return structure


def _check_missing(value: Any) -> None:
    """Refuse what does not stand for a missing object: anything but null, an empty string, or no members."""
    if value not in (None, "", {}):
        raise TypeError


def list_of(hook: Hook) -> Hook:
    """Return the hook for a list. A null is an empty list."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is list:
            # In place, so that each decoded object is freed at once. For thousands of elements this halves the memory
            # and avoids a garbage collection.
            for index, each in enumerate(value):
                value[index] = hook(each, kind)
            return value
        if value is None:
            return []
        raise TypeError

    return structure


# The hooks of users do the same as cattrs, which reads the ACLs. They are written by hand for speed: a list of 5,000
# users runs them 5,000 times, so they look up each member once and call nothing for a member of the usual type.
_text, _flag = optional(str), optional(bool)


def _known(enum: type[StrEnum]) -> dict[object, Any]:
    return {member.value: member for member in enum}


def users(settings_of: Hook) -> Hook:
    """Return the hook for a list of Users. A null is an empty list. ``settings_of`` reads the settings of a user."""
    roles, role_of = _known(UserRole), open_enum(UserRole, optional=True)

    def structure(values: Any, _: Any) -> list[User]:
        if type(values) is not list:
            if values is None:
                return []
            raise TypeError
        # In place, as in ``list_of``.
        for index, value in enumerate(values):
            get = value.get
            name, role, password = value["name"], get("role"), get("password")
            cert, key = get("access_cert"), get("access_key")
            mysql_settings, settings = get("mysql_settings"), get("settings")
            if type(name) is not str:
                raise TypeError
            values[index] = User(
                name,
                roles.get(role) or role_of(role, None),
                (password or None) if type(password) is str else _text(password, None),
                None if cert is None else _text(cert, None),
                None if key is None else _text(key, None),
                None if mysql_settings is None else _mysql_settings_of(mysql_settings),
                None if settings is None else settings_of(settings, None),
            )
        return values

    return structure


_PLUGINS, _plugin_of = _known(MySQLAuthPlugin), open_enum(MySQLAuthPlugin, optional=False)


def _mysql_settings_of(value: Any) -> MySQLSettings | None:
    """Read the settings of a MySQL user, which may be missing."""
    if not value:
        _check_missing(value)
        return None
    plugin = value["auth_plugin"]
    return MySQLSettings(_PLUGINS.get(plugin) or _plugin_of(plugin, None))


def user_settings(acl_of: Hook, opensearch_acl_of: Hook) -> Hook:
    """Return the hook for UserSettings that may be missing, with the hooks for lists of ACLs."""

    def structure(value: Any, _: Any) -> UserSettings | None:
        if not value:
            _check_missing(value)
            return None
        get = value.get
        flag = get("pg_allow_replication")
        if type(flag) is bool and len(value) == 1:
            return UserSettings(flag)
        acl, opensearch_acl, mongo = get("acl"), get("opensearch_acl"), get("mongo_user_settings")
        return UserSettings(
            None if flag is None else _flag(flag, None),
            None if acl is None else acl_of(acl, None),
            None if opensearch_acl is None else opensearch_acl_of(opensearch_acl, None),
            None if mongo is None else _mongo_of(mongo),
        )

    return structure


_MONGO_ROLES, _mongo_role_of = _known(MongoRole), open_enum(MongoRole, optional=True)


def _mongo_of(value: Any) -> MongoUserSettings | None:
    if not value:
        _check_missing(value)
        return None
    databases, role = value.get("databases"), value.get("role")
    if databases is not None and not (type(databases) is list and all(type(each) is str for each in databases)):
        raise TypeError
    return MongoUserSettings(databases, _MONGO_ROLES.get(role) or _mongo_role_of(role, None))
