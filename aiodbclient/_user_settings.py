"""The settings of users, by engine, as plain attrs classes. Pure.

Facts of the fields come from the provider's API description ("Databases", 2026-08-07). Values that the API may extend
(permissions, roles, plug-ins) are enum members if they are known, otherwise strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import define

from .errors import InvalidArgumentError


class MySQLAuthPlugin(StrEnum):
    """How a MySQL user proves its password.

    Attributes:
        MYSQL_NATIVE_PASSWORD: The older plugin, for drivers that support no other.
        CACHING_SHA2_PASSWORD: The default since MySQL 8.0.
    """

    MYSQL_NATIVE_PASSWORD = "mysql_native_password"
    CACHING_SHA2_PASSWORD = "caching_sha2_password"


class KafkaPermission(StrEnum):
    """What a Kafka user may do with a topic.

    Attributes:
        ADMIN: Consume, produce, and alter or delete the topic.
        CONSUME: Read messages.
        PRODUCE: Write messages.
        PRODUCECONSUME: Read and write messages.
    """

    ADMIN = "admin"
    CONSUME = "consume"
    PRODUCE = "produce"
    PRODUCECONSUME = "produceconsume"


class OpenSearchPermission(StrEnum):
    """What an OpenSearch user may do with an index.

    Attributes:
        DENY: Nothing.
        ADMIN: Read, write, and administer the index.
        READ: Read.
        READWRITE: Read and write.
        WRITE: Write.
    """

    DENY = "deny"
    ADMIN = "admin"
    READ = "read"
    READWRITE = "readwrite"
    WRITE = "write"


class MongoRole(StrEnum):
    """The built-in role of MongoDB that a user has on its databases.

    Attributes:
        READ_ONLY: MongoDB's ``read``.
        READ_WRITE: MongoDB's ``readWrite``.
        DB_ADMIN: MongoDB's ``dbAdmin``: it manages indexes and statistics.
    """

    READ_ONLY = "readOnly"
    READ_WRITE = "readWrite"
    DB_ADMIN = "dbAdmin"


@define
class MySQLSettings:
    """Settings of a MySQL user, for ``create`` and ``reset_auth``.

    Attributes:
        auth_plugin: How the user proves its password.
    """

    auth_plugin: MySQLAuthPlugin | str


@define
class KafkaACL:
    """What a Kafka user may do with some topics.

    Attributes:
        topic: A regular expression that matches the topics.
        permission: What the user may do with them.
        id: The server's id of this permission; None in what you send.
    """

    topic: str
    permission: KafkaPermission | str
    id: str | None = None


@define
class OpenSearchACL:
    """What an OpenSearch user may do with some indexes.

    Attributes:
        index: A regular expression that matches the indexes.
        permission: What the user may do with them. The API uses ``deny`` if it is missing.
    """

    index: str | None = None
    permission: OpenSearchPermission | str | None = None


@define
class MongoUserSettings:
    """What a MongoDB user may do in which databases.

    Attributes:
        databases: The names of its databases. ``admin`` means all databases of the cluster.
        role: Its role in each of them.
    """

    databases: Sequence[str] | None = None
    role: MongoRole | str | None = None


@define
class UserSettings:
    """Settings of a user. Each belongs to one engine, and the client refuses it for others. None is not sent.

    Attributes:
        pg_allow_replication: PostgreSQL: whether the user may replicate. The API uses False if it is missing.
        acl: Kafka: what the user may do with which topics.
        opensearch_acl: OpenSearch: what the user may do with which indexes.
        mongo_user_settings: MongoDB: the user's databases, and its role there.
    """

    pg_allow_replication: bool | None = None
    acl: Sequence[KafkaACL] | None = None
    opensearch_acl: Sequence[OpenSearchACL] | None = None
    mongo_user_settings: MongoUserSettings | None = None


def check_settings(
    mysql_settings: object = None, settings: UserSettings | None = None, readonly: object = None
) -> None:
    """Check the types of a user's settings, each of which may be None."""
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
        raise InvalidArgumentError(f"{argument} must be a list of {kind.__name__}, not {values!r}; nothing was sent")


def _check(argument: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidArgumentError(
            f"{argument} must be a {kind.__name__} or None, not {type(value).__name__}; nothing was sent"
        )
