"""Hooks that read users and their settings. Pure.

They do the same as cattrs. They are written by hand for speed, because a list of 5,000 users runs them 5,000 times:
they look up each member once, and call no function for a member of the usual type.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from ..models import (
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    MySQLAuthPlugin,
    MySQLSettings,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserRole,
    UserSettings,
)
from .hooks import Hook, check_missing, list_of, open_enum, optional

_text, _flag = optional(str), optional(bool)


def _known(enum: type[StrEnum]) -> dict[object, Any]:
    return {member.value: member for member in enum}


def users_hook() -> Hook:
    """Return the hook for a list of Users. A null is an empty list."""
    roles, any_user = _known(UserRole), _user_hook()
    mysql_settings_of, settings_of = _mysql_settings_hook(), _settings_hook()

    def structure(values: Any, _: Any) -> list[User]:
        if type(values) is not list:
            if values is None:
                return []
            raise TypeError
        # In place, so that each decoded object is freed at once. For thousands of users this halves the memory and
        # avoids a garbage collection.
        for index, value in enumerate(values):
            # The fast path: most users have a role, a password, and at most one more member.
            try:
                name, role, password = value["name"], roles[value["role"]], value["password"]
                if type(name) is str and type(password) is str:
                    members = len(value)
                    if members == 3:
                        values[index] = User(name, role, password or None)
                        continue
                    if members == 4 and "settings" in value:
                        settings = value["settings"]
                        if len(settings) == 1 and "pg_allow_replication" in settings:
                            flag = settings["pg_allow_replication"]
                            settings = UserSettings(flag if type(flag) is bool else _flag(flag, None))
                        else:
                            settings = settings_of(settings)
                        values[index] = User(name, role, password or None, None, None, None, settings)
                        continue
                    if members == 4 and "mysql_settings" in value:
                        settings = mysql_settings_of(value["mysql_settings"])
                        values[index] = User(name, role, password or None, None, None, settings)
                        continue
            except (LookupError, TypeError, AttributeError):
                pass
            values[index] = any_user(value)
        return values

    return structure


def _user_hook() -> Callable[[Any], User]:
    """Return the hook for a User with any members."""
    roles, role_of = _known(UserRole), open_enum(UserRole, optional=True)
    mysql_settings_of, settings_of = _mysql_settings_hook(), _settings_hook()

    def structure(value: Any) -> User:
        get = value.get
        name, role, password = value["name"], get("role"), get("password")
        cert, key = get("access_cert"), get("access_key")
        mysql_settings, settings = get("mysql_settings"), get("settings")
        if type(name) is not str:
            raise TypeError
        return User(
            name,
            roles.get(role) or role_of(role, None),
            (password or None) if type(password) is str else _text(password, None),
            None if cert is None else _text(cert, None),
            None if key is None else _text(key, None),
            None if mysql_settings is None else mysql_settings_of(mysql_settings),
            None if settings is None else settings_of(settings),
        )

    return structure


def _mysql_settings_hook() -> Callable[[Any], MySQLSettings | None]:
    plugins, plugin_of = _known(MySQLAuthPlugin), open_enum(MySQLAuthPlugin, optional=False)

    def structure(value: Any) -> MySQLSettings | None:
        if not value:
            check_missing(value)
            return None
        plugin = value["auth_plugin"]
        return MySQLSettings(plugins.get(plugin) or plugin_of(plugin, None))

    return structure


def _settings_hook() -> Callable[[Any], UserSettings | None]:
    acl_of = list_of(_acl_hook())
    opensearch_acl_of = list_of(_opensearch_acl_hook())
    mongo_of = _mongo_hook()

    def structure(value: Any) -> UserSettings | None:
        if not value:
            check_missing(value)
            return None
        get = value.get
        flag, acl = get("pg_allow_replication"), get("acl")
        opensearch_acl, mongo = get("opensearch_acl"), get("mongo_user_settings")
        return UserSettings(
            None if flag is None else _flag(flag, None),
            None if acl is None else acl_of(acl, None),
            None if opensearch_acl is None else opensearch_acl_of(opensearch_acl, None),
            None if mongo is None else mongo_of(mongo),
        )

    return structure


def _acl_hook() -> Hook:
    permissions, permission_of = _known(KafkaPermission), open_enum(KafkaPermission, optional=False)

    def structure(value: Any, _: Any) -> KafkaACL:
        topic, permission = value["topic"], value["permission"]
        if type(topic) is not str:
            raise TypeError
        return KafkaACL(
            topic, permissions.get(permission) or permission_of(permission, None), _text(value.get("id"), None)
        )

    return structure


def _opensearch_acl_hook() -> Hook:
    permissions, permission_of = _known(OpenSearchPermission), open_enum(OpenSearchPermission, optional=True)

    def structure(value: Any, _: Any) -> OpenSearchACL:
        index, permission = _text(value.get("index"), None), value.get("permission")
        return OpenSearchACL(index, permissions.get(permission) or permission_of(permission, None))

    return structure


def _mongo_hook() -> Callable[[Any], MongoUserSettings | None]:
    roles, role_of = _known(MongoRole), open_enum(MongoRole, optional=True)

    def structure(value: Any) -> MongoUserSettings | None:
        if not value:
            check_missing(value)
            return None
        databases, role = value.get("databases"), value.get("role")
        if databases is not None:
            if type(databases) is not list:
                raise TypeError
            for database in databases:
                if type(database) is not str:
                    raise TypeError
        return MongoUserSettings(databases, roles.get(role) or role_of(role, None))

    return structure
