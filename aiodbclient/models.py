"""What the API tells and takes, as plain attrs classes.

Facts of the fields come from the provider's API description ("Databases", 2026-08-07). Values that the API may extend
(roles, permissions, plug-ins, statuses, engines) are enum members where they are known and the string itself where not.
Credentials are masked in every ``repr``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import define, field

from ._dsn import dsn
from .engines import Engine


def _masked(value: object) -> str:
    return "None" if value is None else "'********'"


def _secret() -> Any:
    return field(default=None, repr=_masked)


class UserRole(StrEnum):
    """``primary`` is the administrator that came with the cluster; every created user is ``normal``."""

    PRIMARY = "primary"
    NORMAL = "normal"


class MySQLAuthPlugin(StrEnum):
    """How a MySQL user proves its password."""

    MYSQL_NATIVE_PASSWORD = "mysql_native_password"
    CACHING_SHA2_PASSWORD = "caching_sha2_password"


class KafkaPermission(StrEnum):
    """What a Kafka user may do with a topic."""

    ADMIN = "admin"
    CONSUME = "consume"
    PRODUCE = "produce"
    PRODUCECONSUME = "produceconsume"


class OpenSearchPermission(StrEnum):
    """What an OpenSearch user may do with an index."""

    DENY = "deny"
    ADMIN = "admin"
    READ = "read"
    READWRITE = "readwrite"
    WRITE = "write"


class MongoRole(StrEnum):
    """The MongoDB built-in role that a user has on its databases."""

    READ_ONLY = "readOnly"
    READ_WRITE = "readWrite"
    DB_ADMIN = "dbAdmin"


@define
class MySQLSettings:
    """Settings of a MySQL user, for ``create`` and ``reset_auth``."""

    auth_plugin: MySQLAuthPlugin | str


@define
class KafkaACL:
    """A permission on the topics that match a pattern. ``id`` is the server's, absent in what you send."""

    topic: str
    permission: KafkaPermission | str
    id: str | None = None


@define
class OpenSearchACL:
    """A permission on the indexes that match a pattern."""

    index: str | None = None
    permission: OpenSearchPermission | str | None = None


@define
class MongoUserSettings:
    """The databases of a MongoDB user and its role there. The database ``admin`` stands for all of them."""

    databases: Sequence[str] | None = None
    role: MongoRole | str | None = None


@define
class UserSettings:
    """Settings of a user. Each belongs to one engine and is refused for the others; what is None is not sent."""

    pg_allow_replication: bool | None = None
    acl: Sequence[KafkaACL] | None = None
    opensearch_acl: Sequence[OpenSearchACL] | None = None
    mongo_user_settings: MongoUserSettings | None = None


@define
class User:
    """A login of a cluster.

    ``password`` is None where the API does not tell it: on ``list`` and ``get`` with a token that lacks the
    ``database:view_credentials`` scope, and for MongoDB everywhere but in the answers to ``create`` and ``reset_auth``.
    ``access_cert`` and ``access_key`` are Kafka's.
    """

    name: str
    role: UserRole | str | None = None
    password: str | None = _secret()
    access_cert: str | None = _secret()
    access_key: str | None = _secret()
    mysql_settings: MySQLSettings | None = None
    settings: UserSettings | None = None


@define
class NewUser:
    """What ``users.create`` takes, as one value, for ``users.provision``."""

    name: str
    mysql_settings: MySQLSettings | None = None
    settings: UserSettings | None = None
    readonly: bool | None = None


@define
class Database:
    """A database of a cluster."""

    name: str


@define
class Connection:
    """Where a cluster listens, and its default login.

    ``user``, ``password`` and the credentials in ``uri`` need the ``database:view_credentials`` scope.
    ``engine`` is the cluster's, so that ``uri_for`` knows what to write.
    """

    uri: str | None = _secret()
    database: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = _secret()
    ssl: bool | None = None
    engine: Engine | str | None = None

    def uri_for(self, user: User, database: str | None = None) -> str:
        """The DSN with which ``user`` reaches ``database`` (default: the connection's own default database).

        PostgreSQL, MySQL and MongoDB get a URI that their drivers take, OpenSearch the URL of its HTTP endpoint, Kafka
        ``host:port`` (its credentials do not go into an address). The result holds the password: do not log it.

        Raises InvalidArgumentError where the user's password, the host or the engine is not known, and
        UnsupportedOperationError for an engine that has no users. Sends nothing.
        """
        return dsn(
            engine=self.engine,
            host=self.host,
            port=self.port,
            ssl=self.ssl,
            uri=self.uri,
            username=user.name,
            password=user.password,
            database=database if database is not None else self.database,
        )


@define
class Cluster:
    """A managed database cluster, as far as the users of its users and dbs need it.

    ``created_at`` is aware. ``connection`` is one that knows nothing where the API told none, as it may while the
    cluster is being created.
    """

    id: str
    name: str
    engine: Engine | str
    version: str | None = None
    semantic_version: str | None = None
    status: str | None = None
    region: str | None = None
    size: str | None = None
    num_nodes: int | None = None
    created_at: datetime | None = None
    tags: list[str] = field(factory=list[str])
    db_names: list[str] = field(factory=list[str])
    users: list[User] = field(factory=list[User])
    connection: Connection = field(factory=Connection)
    private_connection: Connection | None = None
    standby_connection: Connection | None = None
    standby_private_connection: Connection | None = None
    private_network_uuid: str | None = None
    project_id: str | None = None
    storage_size_mib: int | None = None
