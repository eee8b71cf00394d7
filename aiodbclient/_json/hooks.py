"""Hooks that read JSON into models, for the converter. Pure.

A hook takes a value and, as cattrs calls it, the type, and returns what the model holds. It raises TypeError or another
of ``converter.SHAPE_ERRORS`` for a value that does not fit. Hooks call few other functions, since a list of 5,000 users
calls them 15,000 times.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ..engines import Engine
from ..models import User, UserRole, UserSettings

Hook = Callable[[Any, Any], Any]


def exactly(kind: type) -> Hook:
    """The hook for a ``kind``, which takes no other type for it."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def optional(kind: type) -> Hook:
    """The hook for a ``kind`` that may be missing: null, or an empty string."""

    def structure(value: Any, _: Any) -> Any:
        if value is None or value == "":
            return None
        if type(value) is kind:
            return value
        raise TypeError

    return structure


def open_enum(enum: type[StrEnum], *, optional: bool) -> Hook:
    """The hook for a member of ``enum``, or the string itself where it is none that is known."""
    members: dict[str, StrEnum] = {member.value: member for member in enum}

    def structure(value: Any, _: Any) -> Any:
        if type(value) is str and value:
            return members.get(value, value)
        if optional and (value is None or value == ""):
            return None
        raise TypeError

    return structure


def engine(value: Any, _: Any) -> Engine | str:
    """The hook for an engine: a string that is not empty."""
    if type(value) is str and value:
        return Engine.parse(value)
    raise TypeError


def moment(value: Any, _: Any) -> datetime | None:
    """The hook for a moment in ISO 8601 that may be missing; without a time zone it is UTC."""
    if value is None or value == "":
        return None
    parsed = datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ports(value: Any, _: Any) -> dict[str, int]:
    """The hook for an object of numbers."""
    if value is None:
        return {}
    if type(value) is dict and all(type(port) is int for port in value.values()):
        return value
    raise TypeError


def optional_model(hook: Hook) -> Hook:
    """The hook for an object that ``hook`` reads and that may be missing: null, an empty string, or no members."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is dict:
            return hook(value, kind) if value else None
        if value is None or value == "":
            return None
        raise TypeError

    return structure


def list_of(hook: Hook, *, optional: bool) -> Hook:
    """The hook for a list of what ``hook`` reads. A null is None where it is ``optional``, else no elements."""

    def structure(value: Any, kind: Any) -> Any:
        if type(value) is list:
            # In place, so that each decoded object is freed as soon as it is read: half the memory, and no garbage
            # collection on the way, for a list of thousands.
            for index, each in enumerate(value):
                value[index] = hook(each, kind)
            return value
        if value is None:
            return None if optional else []
        raise TypeError

    return structure


def user_hook(settings_of: Hook, mysql_settings_of: Hook) -> Hook:
    """The hook for a User, as cattrs would read it, without a call for each attribute."""
    roles: dict[object, UserRole] = {role.value: role for role in UserRole}
    text, role_of = optional(str), open_enum(UserRole, optional=True)

    def structure(value: Any, _: Any) -> User:
        settings = value.get("settings")
        if len(value) == (3 if settings is None else 4):
            # Most are so: a name, a role, a password, and perhaps settings.
            try:
                name, role, password = value["name"], roles[value["role"]], value["password"]
            except KeyError:
                pass
            else:
                if type(name) is str and type(password) is str and password:
                    if settings is None:
                        return User(name, role, password)
                    return User(name, role, password, None, None, None, settings_of(settings, None))
        get = value.get
        if type(value["name"]) is not str:
            raise TypeError
        return User(
            value["name"],
            role_of(get("role"), None),
            text(get("password"), None),
            text(get("access_cert"), None),
            text(get("access_key"), None),
            mysql_settings_of(get("mysql_settings"), None),
            settings_of(settings, None),
        )

    return structure


def settings_hook(acl_of: Hook, opensearch_acl_of: Hook, mongo_of: Hook) -> Hook:
    """The hook for UserSettings that may be missing, as ``user_hook``."""
    flag_of = optional(bool)

    def structure(value: Any, _: Any) -> UserSettings | None:
        if type(value) is not dict or not value:
            if value is None or value == "" or value == {}:
                return None
            raise TypeError
        flag = value.get("pg_allow_replication")
        if len(value) == 1 and type(flag) is bool:
            return UserSettings(flag)
        return UserSettings(
            flag_of(flag, None),
            acl_of(value.get("acl"), None),
            opensearch_acl_of(value.get("opensearch_acl"), None),
            mongo_of(value.get("mongo_user_settings"), None),
        )

    return structure
