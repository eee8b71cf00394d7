"""Compare the settings of a user with the requested ones. Pure.

- A bare name, or a ``NewUser`` without settings, accepts any settings.
- A ``NewUser`` with ``settings`` requests all of them, like an update, which resets omitted settings to their default.
  So an omitted setting equals its default: no replication, no ACL, no databases.
- The order of an ACL and the ids of its entries do not matter.
- Case and underscores of permissions and roles do not matter: the tests of the provider's client spell
  ``produce_consume``, the API description ``produceconsume``.
- MongoDB's older ``readonly`` requests only the role, unless ``settings`` has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from attrs import fields

from ..models import MongoRole, MongoUserSettings, MySQLAuthPlugin, NewUser, User, UserRole, UserSettings

AUTH_PLUGIN = "mysql_settings.auth_plugin"
# The primary user, and the second user of every MongoDB cluster. Neither can be deleted.
_PROVIDER_USERS = frozenset({"doadmin", "do-readonly"})
_DEFAULT_PLUGIN = MySQLAuthPlugin.CACHING_SHA2_PASSWORD  # API description, mysql_settings.auth_plugin
_ROLES = {role.value.lower(): role.value for role in MongoRole}
_EVERY_DATABASE = ["admin"]  # means all databases of a MongoDB user (API description, mongo_user_settings)


class Difference(NamedTuple):
    """A setting that differs from the requested one.

    Attributes:
        setting: Its name, such as ``"settings.acl"``.
        found: The value on the server, as readable text.
        wanted: The requested value, as readable text.
    """

    setting: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.found} -> {self.wanted}"


class Returned(NamedTuple):
    """Which members of a user the API returns: a user without one of these has none; others are unknown."""

    settings: bool = True
    mysql_settings: bool = True

    @classmethod
    def by(cls, users: Iterable[User]) -> Returned:
        """Return the members that at least one of ``users`` has: these are what the API returns."""
        seen = [(user.settings is not None, user.mysql_settings is not None) for user in users]
        return cls(any(settings for settings, _ in seen), any(mysql for _, mysql in seen))


ALL_SHOWN = Returned()
NOTHING_SHOWN = Returned(settings=False, mysql_settings=False)


def unknown_settings(spec: NewUser, user: User, returned: Returned) -> list[str]:
    """Return the members of ``spec`` that are unknown for ``user``, because the API does not return them."""
    unknown: list[str] = []
    if spec.mysql_settings is not None and user.mysql_settings is None and not returned.mysql_settings:
        unknown.append("mysql_settings")
    if (spec.settings is not None or spec.readonly is not None) and _is_unknown(user, returned):
        unknown.append("settings")
    return unknown


def _is_unknown(user: User, returned: Returned) -> bool:
    return user.settings is None and not returned.settings


def differences(spec: NewUser, user: User, returned: Returned = ALL_SHOWN) -> list[Difference]:
    """Return the settings of ``user`` that differ from ``spec``, without unknown ones."""
    settings: list[Difference] = []
    if spec.mysql_settings is not None and (user.mysql_settings is not None or returned.mysql_settings):
        plugin = _DEFAULT_PLUGIN if user.mysql_settings is None else user.mysql_settings.auth_plugin
        settings.append(Difference(AUTH_PLUGIN, str(plugin), str(spec.mysql_settings.auth_plugin)))
    wanted = None if _is_unknown(user, returned) else wanted_settings(spec, user)
    if wanted is not None:
        asked = _texts(wanted)
        for name, text in _texts(user.settings or UserSettings()).items():
            settings.append(Difference(f"settings.{name}", text, asked[name]))
    return [each for each in settings if each.found != each.wanted]


def wanted_settings(spec: NewUser, user: User) -> UserSettings | None:
    """Return the settings for an update of ``user`` to ``spec``; None if ``spec`` has none."""
    if spec.readonly is None or (spec.settings is not None and spec.settings.mongo_user_settings is not None):
        return spec.settings
    current = (user.settings and user.settings.mongo_user_settings) or MongoUserSettings()
    if spec.readonly == (_role(current.role) == MongoRole.READ_ONLY):
        return user.settings
    role = MongoRole.READ_ONLY if spec.readonly else MongoRole.READ_WRITE
    return UserSettings(mongo_user_settings=MongoUserSettings(current.databases or _EVERY_DATABASE, role))


def _texts(settings: UserSettings) -> dict[str, str]:
    """Return each setting as text, by name. Equivalent settings have the same text."""
    texts: dict[str, str] = {}
    for setting in fields(type(settings)):
        texts |= _text_of(setting.name, getattr(settings, setting.name))
    return texts


def _text_of(setting: str, value: Any) -> dict[str, str]:
    match setting:
        case "pg_allow_replication":
            return {setting: "true" if value else "false"}
        case "acl":
            return {setting: _set(f"{rule.topic}={_word(rule.permission)}" for rule in value or ())}
        case "opensearch_acl":
            return {setting: _set(f"{rule.index or ''}={_word(rule.permission)}" for rule in value or ())}
        case "mongo_user_settings":
            mongo = value or MongoUserSettings()
            return {f"{setting}.databases": _set(mongo.databases or ()), f"{setting}.role": _role(mongo.role)}
        case _:
            raise NotImplementedError(f"no code compares the setting {setting!r}")


def _word(value: str | None) -> str:
    """Return a permission or role without case and underscores."""
    return (value or "").replace("_", "").lower()


def _role(value: str | None) -> str:
    return _ROLES.get(_word(value), value or "the default")


def _set(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(repr, sorted(set(texts))))}]"


def is_provider_own(user: User) -> bool:
    """Whether ``user`` came with the cluster, or has an unknown role: the client must not change or delete it."""
    return user.name in _PROVIDER_USERS or user.role not in (UserRole.NORMAL, None)
