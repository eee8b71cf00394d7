"""Hooks that read users and their settings. Pure.

They do the same as cattrs. They are written by hand for speed, because a list of 5,000 users runs them 5,000 times:
they look up each member once, and call no function for a member of the usual type.
"""

from __future__ import annotations

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
from .hooks import Hook, exactly, list_of, open_enum, optional, optional_model

_text, _flag = optional(str), optional(bool)


def _known(enum: type[StrEnum]) -> dict[object, Any]:
    return {member.value: member for member in enum}


def users_hook() -> Hook:
    """Return the hook for a list of Users. A null is an empty list."""
    roles, plugins = _known(UserRole), _known(MySQLAuthPlugin)
    any_user = _user_hook()

    def structure(values: Any, _: Any) -> list[User]:
        if type(values) is not list:
            if values is None:
                return []
            raise TypeError
        # In place, so that each decoded object is freed at once. For thousands of users this halves the memory and
        # avoids a garbage collection.
        for index, value in enumerate(values):
            # The fast path: most users have a role, a password, and at most one setting, of PostgreSQL or MySQL.
            try:
                name, role, password = value["name"], roles[value["role"]], value["password"]
                if type(name) is str and type(password) is str and password:
                    members = len(value)
                    if members == 3:
                        values[index] = User(name, role, password)
                        continue
                    if members == 4:
                        settings = value.get("settings")
                        if settings is None:
                            settings = value["mysql_settings"]
                            if len(settings) == 1:
                                plugin = MySQLSettings(plugins[settings["auth_plugin"]])
                                values[index] = User(name, role, password, None, None, plugin)
                                continue
                        elif len(settings) == 1:
                            flag = settings.get("pg_allow_replication")
                            if flag is True or flag is False:
                                settings = UserSettings(flag)
                                values[index] = User(name, role, password, None, None, None, settings)
                                continue
            except (LookupError, TypeError, AttributeError):
                pass
            values[index] = any_user(value, None)
        return values

    return structure


def _user_hook() -> Hook:
    """Return the hook for a User with any members."""
    roles, role_of = _known(UserRole), open_enum(UserRole, optional=True)
    mysql_settings_of, settings_of = _mysql_settings_hook(), _settings_hook()

    def structure(value: Any, _: Any) -> User:
        get = value.get
        name, role, password = value["name"], get("role"), get("password")
        if type(name) is not str:
            raise TypeError
        cert, key, mysql_settings, settings = (
            get("access_cert"),
            get("access_key"),
            get("mysql_settings"),
            get("settings"),
        )
        return User(
            name,
            roles.get(role) or role_of(role, None),
            password if type(password) is str and password else _text(password, None),
            None if cert is None else _text(cert, None),
            None if key is None else _text(key, None),
            None if mysql_settings is None else mysql_settings_of(mysql_settings, None),
            None if settings is None else settings_of(settings, None),
        )

    return structure


def _mysql_settings_hook() -> Hook:
    """Return the hook for MySQLSettings that may be missing."""
    plugins, plugin_of = _known(MySQLAuthPlugin), open_enum(MySQLAuthPlugin, optional=False)

    def structure(value: Any, _: Any) -> MySQLSettings:
        plugin = value["auth_plugin"]
        return MySQLSettings(plugins.get(plugin) or plugin_of(plugin, None))

    return optional_model(structure)


def _settings_hook() -> Hook:
    """Return the hook for UserSettings that may be missing."""
    acl_of = list_of(_acl_hook(), optional=True)
    opensearch_acl_of = list_of(_opensearch_acl_hook(), optional=True)
    mongo_of = optional_model(_mongo_hook())

    def structure(value: Any, _: Any) -> UserSettings:
        get = value.get
        if (flag := get("pg_allow_replication")) is not None and type(flag) is not bool:
            flag = _flag(flag, None)
        if (acl := get("acl")) is not None:
            acl = acl_of(acl, None)
        if (opensearch_acl := get("opensearch_acl")) is not None:
            opensearch_acl = opensearch_acl_of(opensearch_acl, None)
        if (mongo := get("mongo_user_settings")) is not None:
            mongo = mongo_of(mongo, None)
        return UserSettings(flag, acl, opensearch_acl, mongo)

    return optional_model(structure)


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
        index, permission = value.get("index"), value.get("permission")
        if type(index) is not str or not index:
            index = _text(index, None)
        return OpenSearchACL(index, permissions.get(permission) or permission_of(permission, None))

    return structure


def _mongo_hook() -> Hook:
    roles, role_of = _known(MongoRole), open_enum(MongoRole, optional=True)
    databases_of = list_of(exactly(str), optional=True)

    def structure(value: Any, _: Any) -> MongoUserSettings:
        role = value.get("role")
        return MongoUserSettings(databases_of(value.get("databases"), None), roles.get(role) or role_of(role, None))

    return structure
