"""Whether a user has the settings that a spec asks for. Pure.

- A bare name, or a ``NewUser`` without settings, asks for no settings: any will do.
- A ``NewUser`` with ``settings`` asks for all of them, as an update does, which sets what is left out back to its
  default. So a setting that is absent is the same as its default: no replication, no ACL, no databases.
- The order of an ACL does not count, nor do the ids that the server gives to its entries.
- Permissions and roles are compared without case and underscores: the tests of the provider's own client spell
  ``produce_consume``, its description ``produceconsume``.
- MongoDB's older ``readonly`` asks for the role alone, unless ``settings`` say what role.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from attrs import fields

from ..models import MongoRole, MongoUserSettings, MySQLAuthPlugin, NewUser, User, UserRole, UserSettings

AUTH_PLUGIN = "mysql_settings.auth_plugin"
# The primary user, and the second one of every MongoDB cluster, which cannot be deleted.
_PROVIDER_USERS = frozenset({"doadmin", "do-readonly"})
_DEFAULT_PLUGIN = MySQLAuthPlugin.CACHING_SHA2_PASSWORD  # API description, mysql_settings.auth_plugin
_ROLES = {role.value.lower(): role.value for role in MongoRole}
_EVERY_DATABASE = ["admin"]  # what stands for all databases of a MongoDB user (API description, mongo_user_settings)


class Difference(NamedTuple):
    """A setting that is not what a spec asks for.

    Attributes:
        setting: Its name, such as ``"settings.acl"``.
        found: What it is, as text for people.
        wanted: What is asked for, likewise.
    """

    setting: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.found} -> {self.wanted}"


def differences(spec: NewUser, user: User) -> list[Difference]:
    """The settings of ``user`` that are not what ``spec`` asks for."""
    settings: list[Difference] = []
    if spec.mysql_settings is not None:
        plugin = _DEFAULT_PLUGIN if user.mysql_settings is None else user.mysql_settings.auth_plugin
        settings.append(Difference(AUTH_PLUGIN, str(plugin), str(spec.mysql_settings.auth_plugin)))
    wanted = wanted_settings(spec, user)
    if wanted is not None:
        asked = _texts(wanted)
        for name, text in _texts(user.settings or UserSettings()).items():
            settings.append(Difference(f"settings.{name}", text, asked[name]))
    return [each for each in settings if each.found != each.wanted]


def wanted_settings(spec: NewUser, user: User) -> UserSettings | None:
    """The settings to update ``user`` with, so that it has what ``spec`` asks for; None if that asks for none."""
    if spec.readonly is None or (spec.settings is not None and spec.settings.mongo_user_settings is not None):
        return spec.settings
    there = (user.settings and user.settings.mongo_user_settings) or MongoUserSettings()
    if spec.readonly == (_role(there.role) == MongoRole.READ_ONLY):
        return user.settings
    role = MongoRole.READ_ONLY if spec.readonly else MongoRole.READ_WRITE
    return UserSettings(mongo_user_settings=MongoUserSettings(there.databases or _EVERY_DATABASE, role))


def _texts(settings: UserSettings) -> dict[str, str]:
    """Each setting as text, by its name. Settings that mean the same have the same text."""
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
            raise NotImplementedError(f"the setting {setting!r} is compared by nothing here")


def _word(value: str | None) -> str:
    """A permission or role without what its spelling may differ in."""
    return (value or "").replace("_", "").lower()


def _role(value: str | None) -> str:
    return _ROLES.get(_word(value), value or "the default")


def _set(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(repr, sorted(set(texts))))}]"


def is_provider_own(user: User) -> bool:
    """Whether ``user`` came with the cluster, so that nobody changes or deletes it.

    A user with a role that this version does not know is taken for one of these.
    """
    return user.name in _PROVIDER_USERS or user.role not in (UserRole.NORMAL, None)
