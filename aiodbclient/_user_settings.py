"""The settings of users, by engine, as plain attrs classes. Pure.

Facts of the fields come from the provider's API description ("Databases", 2026-08-07). Values that the API may extend
(permissions, roles, plug-ins) are enum members if they are known, otherwise strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import define

from ._checks import shown
from .errors import InvalidArgumentError


class MySQLAuthPlugin(StrEnum):
    """How a MySQL user proves its password."""

    MYSQL_NATIVE_PASSWORD = "mysql_native_password"
    """The older plugin, for drivers that support no other."""
    CACHING_SHA2_PASSWORD = "caching_sha2_password"
    """The default since MySQL 8.0."""


class KafkaPermission(StrEnum):
    """What a Kafka user may do with a topic."""

    ADMIN = "admin"
    """Consume, produce, and alter or delete the topic."""
    CONSUME = "consume"
    """Read messages."""
    PRODUCE = "produce"
    """Write messages."""
    PRODUCECONSUME = "produceconsume"
    """Read and write messages."""


class OpenSearchPermission(StrEnum):
    """What an OpenSearch user may do with an index."""

    DENY = "deny"
    """Nothing."""
    ADMIN = "admin"
    """Read, write, and administer the index."""
    READ = "read"
    """Read."""
    READWRITE = "readwrite"
    """Read and write."""
    WRITE = "write"
    """Write."""


class MongoRole(StrEnum):
    """The built-in role of MongoDB that a user has on its databases."""

    READ_ONLY = "readOnly"
    """MongoDB's ``read``."""
    READ_WRITE = "readWrite"
    """MongoDB's ``readWrite``."""
    DB_ADMIN = "dbAdmin"
    """MongoDB's ``dbAdmin``: it manages indexes and statistics."""


@define
class MySQLSettings:
    """Settings of a MySQL user, for ``create`` and ``reset_auth``."""

    auth_plugin: MySQLAuthPlugin | str
    """How the user proves its password."""


@define
class KafkaACL:
    """What a Kafka user may do with some topics."""

    topic: str
    """A regular expression that matches the topics."""
    permission: KafkaPermission | str
    """What the user may do with them."""
    id: str | None = None
    """The server's id of this permission; None in what you send."""


@define
class OpenSearchACL:
    """What an OpenSearch user may do with some indexes."""

    index: str | None = None
    """A regular expression that matches the indexes."""
    permission: OpenSearchPermission | str | None = None
    """What the user may do with them. The API uses ``deny`` if it is missing."""


@define
class MongoUserSettings:
    """What a MongoDB user may do in which databases."""

    databases: Sequence[str] | None = None
    """The names of its databases. ``admin`` means all databases of the cluster."""
    role: MongoRole | str | None = None
    """Its role in each of them."""


@define
class UserSettings:
    """Settings of a user. Each belongs to one engine, and the client refuses it for others. None is not sent."""

    pg_allow_replication: bool | None = None
    """PostgreSQL: whether the user may replicate. The API uses False if it is missing."""
    acl: Sequence[KafkaACL] | None = None
    """Kafka: what the user may do with which topics."""
    opensearch_acl: Sequence[OpenSearchACL] | None = None
    """OpenSearch: what the user may do with which indexes."""
    mongo_user_settings: MongoUserSettings | None = None
    """MongoDB: the user's databases, and its role there."""


def check_settings(
    mysql_settings: object = None, settings: UserSettings | None = None, readonly: object = None
) -> None:
    """Check the types of a user's settings, each of which may be None."""
    if mysql_settings is None and settings is None and readonly is None:
        return
    _check("mysql_settings", mysql_settings, MySQLSettings)
    _check("readonly", readonly, bool)
    _check("settings", settings, UserSettings)
    if settings is None:
        return
    _check("settings.pg_allow_replication", settings.pg_allow_replication, bool)
    _check_all("settings.acl", settings.acl, KafkaACL)
    _check_all("settings.opensearch_acl", settings.opensearch_acl, OpenSearchACL)
    _check("settings.mongo_user_settings", settings.mongo_user_settings, MongoUserSettings)
    if settings.mongo_user_settings is not None:
        _check_all("settings.mongo_user_settings.databases", settings.mongo_user_settings.databases, str)


def _check_all(argument: str, values: object, kind: type) -> None:
    if values is None:
        return
    if (
        isinstance(values, str)
        or not isinstance(values, Sequence)
        or not all(isinstance(each, kind) for each in values)
    ):
        raise InvalidArgumentError(
            f"{argument} must be a list of {kind.__name__}, not {shown(values)}; nothing was sent"
        )


def _check(argument: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidArgumentError(
            f"{argument} must be a {kind.__name__} or None, not {type(value).__name__}; nothing was sent"
        )
