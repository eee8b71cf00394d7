"""The data of the API, as plain attrs classes. Pure.

The facts about the fields come from the provider's API description ("Databases", 2026-08-07). The API may add roles,
permissions, plug-ins, statuses and engines: a known value is an enum member, another one stays a string.
Every ``repr`` masks credentials.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import field, fields, frozen

from ._dsn import dsn
from ._masking import masked
from .engines import Engine
from .errors import InvalidArgumentError


def _secret() -> Any:
    return field(default=None, repr=masked)


class MySQLAuthPlugin(StrEnum):
    """How a MySQL user proves its password."""

    MYSQL_NATIVE_PASSWORD = "mysql_native_password"
    """The older plugin, for drivers without support for the newer one."""
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


@frozen
class MySQLSettings:
    """Settings of a MySQL user, for ``create`` and ``reset_auth``."""

    auth_plugin: MySQLAuthPlugin | str
    """How the user proves its password."""


@frozen
class KafkaACL:
    """What a Kafka user may do with some topics."""

    topic: str
    """A regular expression that matches the topics."""
    permission: KafkaPermission | str
    """What the user may do with them."""
    id: str | None = None
    """The server's id of this permission; None in what you send."""


@frozen
class OpenSearchACL:
    """What an OpenSearch user may do with some indexes."""

    index: str | None = None
    """A regular expression that matches the indexes."""
    permission: OpenSearchPermission | str | None = None
    """What the user may do with them. The API uses ``deny`` if it is missing."""


@frozen
class MongoUserSettings:
    """What a MongoDB user may do in which databases."""

    databases: Sequence[str] | None = field(default=None, hash=False)
    """The names of its databases. ``admin`` means all databases of the cluster."""
    role: MongoRole | str | None = None
    """Its role in each of them."""


@frozen
class UserSettings:
    """Settings of a user. Each belongs to one engine, and the client refuses it for others. None is not sent."""

    pg_allow_replication: bool | None = None
    """PostgreSQL: whether the user may replicate. The API uses False if it is missing."""
    acl: Sequence[KafkaACL] | None = field(default=None, hash=False)
    """Kafka: what the user may do with which topics."""
    opensearch_acl: Sequence[OpenSearchACL] | None = field(default=None, hash=False)
    """OpenSearch: what the user may do with which indexes."""
    mongo_user_settings: MongoUserSettings | None = None
    """MongoDB: the user's databases, and its role there."""


class UserRole(StrEnum):
    """The role of a user."""

    PRIMARY = "primary"
    """The administrator that came with the cluster."""
    NORMAL = "normal"
    """Every user that was created."""


@frozen
class User:
    """A login of a cluster."""

    name: str
    """The username with which it logs in."""
    role: UserRole | str | None = None
    """Whether it is the cluster's administrator; None if the API does not return it."""
    password: str | None = _secret()
    """Its password. None if the API does not return it: the token lacks the scope ``database:view_credentials``, or the
    engine is MongoDB, which returns it only from ``create`` and ``reset_auth``."""
    access_cert: str | None = _secret()
    """Kafka: the certificate with which the user logs in, as PEM. Elsewhere None."""
    access_key: str | None = _secret()
    """Kafka: the private key of that certificate, as PEM. Elsewhere None."""
    mysql_settings: MySQLSettings | None = None
    """MySQL: its authentication plugin. Elsewhere None."""
    settings: UserSettings | None = None
    """The settings of its engine; None if the API returns none."""


USER_SECRETS = tuple(attribute.name for attribute in fields(User) if attribute.repr is masked)
"""The members that only a token with the scope ``database:view_credentials`` reads."""


@frozen
class NewUser:
    """The arguments of ``users.create`` as one value, for ``users.ensure`` and the bulk runs."""

    name: str
    """The username with which it will log in."""
    mysql_settings: MySQLSettings | None = None
    """MySQL: its authentication plugin. None: the server's default."""
    settings: UserSettings | None = None
    """The settings of its engine. None: the API's defaults."""
    readonly: bool | None = None
    """MongoDB: True for a user that may only read. The provider will replace this by the role in
    ``settings.mongo_user_settings``."""


@frozen
class Database:
    """A database of a cluster."""

    name: str
    """Its name."""


class ClusterStatus(StrEnum):
    """What a cluster is doing."""

    CREATING = "creating"
    """It is being created. You cannot write users and databases yet."""
    ONLINE = "online"
    """It is in service."""
    RESIZING = "resizing"
    """It gets another size or another number of nodes."""
    MIGRATING = "migrating"
    """It moves to another region."""
    FORKING = "forking"
    """It is being copied into a new cluster."""


@frozen
class Connection:
    """Where a cluster listens, and its default login.

    ``user``, ``password`` and the credentials in ``uri`` need the ``database:view_credentials`` scope.
    """

    uri: str | None = _secret()
    """The provider's own URI, which contains the default login."""
    database: str | None = None
    """The default database."""
    host: str | None = None
    """The host's name or address."""
    port: int | None = None
    """The port on which the engine listens."""
    user: str | None = None
    """The default login."""
    password: str | None = _secret()
    """The password of the default login."""
    ssl: bool | None = None
    """Whether the connection is encrypted."""
    engine: Engine | str | None = None
    """The cluster's engine, which decides what ``uri_for`` writes."""
    protocol: str | None = None
    """The scheme of ``uri``, such as ``mongodb+srv``, if the API returns it."""
    application_ports: dict[str, int] = field(factory=dict[str, int], hash=False)
    """Ports by service name, such as a schema registry, if the API returns them (source: godo)."""

    def uri_for(self, user: User, database: str | None = None, *, ca_file: str | os.PathLike[str] | None = None) -> str:
        """Return the URI for ``user`` and ``database`` in the format of the engine's drivers. Sends nothing.

        PostgreSQL, MySQL and MongoDB get a URI. OpenSearch and a schema registry get the URL of their HTTP endpoint,
        and Kafka gets ``host:port``. Without ``ca_file`` the connection is encrypted, but the driver does not verify
        the server. The result holds the password: do not log it.

        Args:
            user: As ``create``, ``get`` or ``reset_auth`` returned it, with its password.
            database: None for the connection's default database.
            ca_file: The file in which you wrote ``await cluster.ca()``. With it, the driver verifies the server's
                certificate and host name. The URIs of Kafka and OpenSearch do not support this: pass the file to
                their driver. A server without TLS, as a sandbox may have, has nothing to verify.

        Raises:
            InvalidArgumentError: The user's password, the host or the engine is unknown, or ``user`` is not a ``User``.
            UnsupportedOperationError: The engine has no users.
        """
        if not isinstance(user, User):
            raise InvalidArgumentError(
                f"user must be a User, as create, get or reset_auth returns it, not {type(user).__name__}"
            )
        if database is not None and not (isinstance(database, str) and database):
            raise InvalidArgumentError(f"database must be its name, not {database!r}")
        return dsn(
            engine=self.engine,
            host=self.host,
            port=self.port,
            ssl=self.ssl,
            uri=self.uri,
            username=user.name,
            password=user.password,
            database=database or self.database,
            protocol=self.protocol,
            ca_file=None if ca_file is None else _checked_path(ca_file),
        )


def _checked_path(path: object) -> str:
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidArgumentError(f"ca_file must be the path of a file, not {path!r}")
    return text


@frozen
class ClusterInfo:
    """A managed database cluster, with the fields that matter for its users and databases.

    A field is None if the API does not return it.
    """

    id: str
    """Its UUID."""
    name: str
    """The name that its owner gave it."""
    engine: Engine | str
    """Its engine."""
    version: str | None = None
    """The version of the engine in short, such as ``"17"``."""
    semantic_version: str | None = None
    """The whole version, such as ``"17.5"``."""
    status: ClusterStatus | str | None = None
    """What it is doing."""
    region: str | None = None
    """The slug of its region, such as ``"nyc3"``."""
    size: str | None = None
    """The slug of the size of its nodes."""
    created_at: datetime | None = None
    """When it was created, with its time zone."""
    tags: list[str] = field(factory=list[str], hash=False)
    """Its tags."""
    db_names: list[str] = field(factory=list[str], hash=False)
    """The names of its databases."""
    users: list[User] = field(factory=list[User], hash=False)
    """Its users. Their passwords are returned under the same conditions as by ``users.list``."""
    connection: Connection = field(factory=Connection)
    """How to reach it from anywhere. The API may return no fields (None) while the cluster is being created."""
    private_connection: Connection | None = None
    """How to reach it from the same private network."""
    standby_connection: Connection | None = None
    """How to reach its standby node from anywhere."""
    standby_private_connection: Connection | None = None
    """How to reach its standby node from the same private network."""
    private_network_uuid: str | None = None
    """The UUID of its private network (VPC)."""
    project_id: str | None = None
    """The UUID of the project that it belongs to."""
    storage_size_mib: int | None = None
    """Storage in addition to that of its size, in MiB."""
    ui_connection: Connection | None = None
    """OpenSearch: where its dashboard listens."""
    schema_registry_connection: Connection | None = None
    """Kafka: where its schema registry listens."""
    service_cnames: list[str] = field(factory=list[str], hash=False)
    """Your own host names for the cluster."""
