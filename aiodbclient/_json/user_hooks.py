"""Hooks that read users and their settings. Pure.

They do the same as cattrs, which reads the ACLs. They are written by hand for speed: a list of 5,000 users runs
them 5,000 times, so they look up each member once and call nothing for a member of the usual type.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from ..models import MongoRole, MongoUserSettings, MySQLAuthPlugin, MySQLSettings, User, UserRole, UserSettings
from .hooks import Hook, check_missing, open_enum, optional

_text, _flag = optional(str), optional(bool)


def _known(enum: type[StrEnum]) -> dict[object, Any]:
    return {member.value: member for member in enum}


def users_hook(settings_of: Hook) -> Hook:
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
                None if mysql_settings is None else mysql_settings_of(mysql_settings),
                None if settings is None else settings_of(settings, None),
            )
        return values

    return structure


_PLUGINS, _plugin_of = _known(MySQLAuthPlugin), open_enum(MySQLAuthPlugin, optional=False)


def mysql_settings_of(value: Any) -> MySQLSettings | None:
    """Read the settings of a MySQL user, which may be missing."""
    if not value:
        check_missing(value)
        return None
    plugin = value["auth_plugin"]
    return MySQLSettings(_PLUGINS.get(plugin) or _plugin_of(plugin, None))


def settings_hook(acl_of: Hook, opensearch_acl_of: Hook) -> Hook:
    """Return the hook for UserSettings that may be missing, with the hooks for lists of ACLs."""

    def structure(value: Any, _: Any) -> UserSettings | None:
        if not value:
            check_missing(value)
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
        check_missing(value)
        return None
    databases, role = value.get("databases"), value.get("role")
    if databases is not None and not (type(databases) is list and all(type(each) is str for each in databases)):
        raise TypeError
    return MongoUserSettings(databases, _MONGO_ROLES.get(role) or _mongo_role_of(role, None))
