"""What the API tells and takes, as plain attrs classes.

Facts of the fields come from the provider's API description ("Databases", 2026-08-07). Values that the API may extend
(roles, permissions, plug-ins, statuses, engines) are enum members where they are known and the string itself where not.
Credentials are masked in every ``repr``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import define, field

from ._dsn import dsn
from .engines import Engine
from .errors import InvalidArgumentError


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


class ClusterStatus(StrEnum):
    """What a cluster is doing. User writes fail while it is created (API description, Databases)."""

    CREATING = "creating"
    ONLINE = "online"
    RESIZING = "resizing"
    MIGRATING = "migrating"
    FORKING = "forking"


@define
class Connection:
    """Where a cluster listens, and its default login.

    ``user``, ``password`` and the credentials in ``uri`` need the ``database:view_credentials`` scope.

    Attributes:
        uri: The provider's own URI, with the default login in it.
        database: The default database.
        host: The host's name or address.
        port: The port of the engine.
        user: The default login.
        password: Its password.
        ssl: Whether the connection is encrypted.
        engine: The cluster's, so that ``uri_for`` knows what to write.
        protocol: The scheme of ``uri``, such as ``mongodb+srv``, where the API tells it.
        application_ports: Ports by the name of what listens there, such as a schema registry, where the API tells them
            (source: godo).
    """

    uri: str | None = _secret()
    database: str | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = _secret()
    ssl: bool | None = None
    engine: Engine | str | None = None
    protocol: str | None = None
    application_ports: dict[str, int] = field(factory=dict[str, int])

    def uri_for(self, user: User, database: str | None = None, *, ca_file: str | os.PathLike[str] | None = None) -> str:
        """The URI with which ``user`` reaches ``database``, in the language of the engine.

        PostgreSQL, MySQL and MongoDB get a URI, OpenSearch the URL of its HTTP endpoint, Kafka ``host:port``. Without
        ``ca_file`` the connection is encrypted and the server is not verified. Of a private connection it is the
        private host's. The result holds the password: do not log it. Sends nothing.

        Args:
            user: As ``create``, ``get`` or ``reset_auth`` returned it, with its password.
            database: None for the connection's default database.
            ca_file: The file in which you wrote ``await cluster.ca()``. The URI then tells the driver to verify the
                server's certificate and name by it. The addresses of Kafka and OpenSearch cannot say so: give the file
                to their driver.

        Raises:
            InvalidArgumentError: Where the user's password, the host or the engine is not known, for what is no
                ``User``, and for a ``ca_file`` where the connection has no TLS.
            UnsupportedOperationError: For an engine that has no users.
        """
        if not isinstance(user, User):
            raise InvalidArgumentError(
                f"user must be a User, as create, get or reset_auth returns it, not {type(user).__name__}"
            )
        return dsn(
            engine=self.engine,
            host=self.host,
            port=self.port,
            ssl=self.ssl,
            uri=self.uri,
            username=user.name,
            password=user.password,
            database=_checked_database(database) or self.database,
            protocol=self.protocol,
            ca_file=_checked_path(ca_file),
        )


def _checked_database(database: object) -> str | None:
    if database is None or (isinstance(database, str) and database):
        return database
    raise InvalidArgumentError(f"database must be its name, not {database!r}")


def _checked_path(path: object) -> str | None:
    if path is None:
        return None
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidArgumentError(f"ca_file must be the path of a file, not {path!r}")
    return text


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
    status: ClusterStatus | str | None = None
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
