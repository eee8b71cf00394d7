"""Whether a user has the settings that a spec asks for. Pure.

A spec that is a bare name, or a ``NewUser`` without settings, asks for none, and any will do. With ``settings`` it asks
for the whole of them, as an update does, which sets back to its default whatever is left out. So absent and default are
the same: no replication, no ACL, no databases. The order of an ACL does not count, nor the ids that the server gives to
its entries, and permissions and roles are the same however they are spelled (``produce_consume`` is
``produceconsume``, as in the tests of the provider's own client). MongoDB's older ``readonly`` asks for the role alone,
where ``settings`` do not say more.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from ..models import MongoRole, MongoUserSettings, MySQLAuthPlugin, NewUser, User, UserRole, UserSettings

AUTH_PLUGIN = "mysql_settings.auth_plugin"
# The primary user, and the second one of every MongoDB cluster, which cannot be deleted.
_PROVIDER_USERS = frozenset({"doadmin", "do-readonly"})
_DEFAULT_PLUGIN = MySQLAuthPlugin.CACHING_SHA2_PASSWORD  # API description, mysql_settings.auth_plugin
_ROLES = {role.value.lower(): role.value for role in MongoRole}
_EVERY_DATABASE = ["admin"]  # what stands for all databases of a MongoDB user (API description, mongo_user_settings)


@frozen
class Difference:
    """A setting that is not what a spec asks for.

    Attributes:
        setting: Its name, such as ``"settings.acl"``.
        found: What it is, for people.
        wanted: What it is to be, for people.
    """

    setting: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.found} -> {self.wanted}"


def differences(spec: NewUser, user: User) -> list[Difference]:
    """The settings of ``user`` that are not what ``spec`` asks for."""
    found: list[tuple[str, str, str]] = []
    if spec.mysql_settings is not None:
        plugin = _DEFAULT_PLUGIN if user.mysql_settings is None else user.mysql_settings.auth_plugin
        found.append((AUTH_PLUGIN, str(plugin), str(spec.mysql_settings.auth_plugin)))
    wanted = wanted_settings(spec, user)
    if wanted is not None:
        there = user.settings or UserSettings()
        found += [
            (f"settings.{name}", told, asked)
            for (name, told), asked in zip(_told(there).items(), _told(wanted).values(), strict=True)
        ]
    return [Difference(name, told, asked) for name, told, asked in found if told != asked]


def wanted_settings(spec: NewUser, user: User) -> UserSettings | None:
    """The settings that ``user`` needs in an update to be what ``spec`` asks for; None where it asks for none."""
    if spec.readonly is None or (spec.settings is not None and spec.settings.mongo_user_settings is not None):
        return spec.settings
    there = (user.settings and user.settings.mongo_user_settings) or MongoUserSettings()
    if spec.readonly == (_role(there.role) == MongoRole.READ_ONLY):
        return user.settings
    role = MongoRole.READ_ONLY if spec.readonly else MongoRole.READ_WRITE
    return UserSettings(mongo_user_settings=MongoUserSettings(there.databases or _EVERY_DATABASE, role))


def _told(settings: UserSettings) -> dict[str, str]:
    """Each setting in one spelling, which is the same for what means the same."""
    mongo = settings.mongo_user_settings or MongoUserSettings()
    acl = [f"{rule.topic}={_word(rule.permission)}" for rule in settings.acl or ()]
    opensearch_acl = [f"{rule.index or ''}={_word(rule.permission)}" for rule in settings.opensearch_acl or ()]
    return {
        "pg_allow_replication": "true" if settings.pg_allow_replication else "false",
        "acl": _set(acl),
        "opensearch_acl": _set(opensearch_acl),
        "mongo_user_settings.databases": _set(mongo.databases or ()),
        "mongo_user_settings.role": _role(mongo.role),
    }


def _word(value: str | None) -> str:
    return (value or "").replace("_", "").lower()


def _role(value: str | None) -> str:
    return _ROLES.get(_word(value), value or "the default")


def _set(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(repr, sorted(set(texts))))}]"


def is_provider_own(user: User) -> bool:
    """Whether ``user`` came with the cluster, and is not anybody's to change or delete.

    A role that this version does not know is not taken for a user's own.
    """
    return user.name in _PROVIDER_USERS or user.role not in (UserRole.NORMAL, None)
