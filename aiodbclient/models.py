"""The data of the API, as plain attrs classes. Pure.

The facts about the fields come from the provider's API description ("Databases", 2026-08-07). The API may add roles,
permissions, plug-ins, statuses and engines: a known value is an enum member, another one stays a string.
Every ``repr`` masks credentials.
"""

from __future__ import annotations

import os
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import define, field, fields

from ._dsn import dsn
from ._user_settings import (
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    MySQLAuthPlugin,
    MySQLSettings,
    OpenSearchACL,
    OpenSearchPermission,
    UserSettings,
)
from .engines import Engine
from .errors import InvalidArgumentError

__all__ = [
    "Cluster",
    "ClusterStatus",
    "Connection",
    "Database",
    "KafkaACL",
    "KafkaPermission",
    "MongoRole",
    "MongoUserSettings",
    "MySQLAuthPlugin",
    "MySQLSettings",
    "NewUser",
    "OpenSearchACL",
    "OpenSearchPermission",
    "User",
    "UserRole",
    "UserSettings",
]


def masked(value: object) -> str:
    """Return the text that the ``repr`` of a model shows for a secret."""
    return "None" if value is None else "'********'"


def _secret() -> Any:
    return field(default=None, repr=masked)


class UserRole(StrEnum):
    """The role of a user.

    Attributes:
        PRIMARY: The administrator that came with the cluster.
        NORMAL: Every user that was created.
    """

    PRIMARY = "primary"
    NORMAL = "normal"


@define
class User:
    """A login of a cluster.

    Attributes:
        name: The username with which it logs in.
        role: Whether it is the cluster's administrator; None if the API does not return it.
        password: Its password. None if the API does not return it: the token lacks the scope
            ``database:view_credentials``, or the engine is MongoDB, which returns it only from ``create`` and
            ``reset_auth``.
        access_cert: Kafka: the certificate with which the user logs in, as PEM. Elsewhere None.
        access_key: Kafka: the private key of that certificate, as PEM. Elsewhere None.
        mysql_settings: MySQL: its authentication plugin. Elsewhere None.
        settings: The settings of its engine; None if the API returns none.
    """

    name: str
    role: UserRole | str | None = None
    password: str | None = _secret()
    access_cert: str | None = _secret()
    access_key: str | None = _secret()
    mysql_settings: MySQLSettings | None = None
    settings: UserSettings | None = None


USER_SECRETS = tuple(attribute.name for attribute in fields(User) if attribute.repr is masked)
"""The members that only a token with the scope ``database:view_credentials`` reads."""


@define
class NewUser:
    """A user to create: the arguments of ``users.create`` as one value, for ``users.provision``.

    Attributes:
        name: The username with which it will log in.
        mysql_settings: MySQL: its authentication plugin. None: the server's default.
        settings: The settings of its engine. None: the API's defaults.
        readonly: MongoDB: True for a user that may only read. The provider will replace this by the role in
            ``settings.mongo_user_settings``.
    """

    name: str
    mysql_settings: MySQLSettings | None = None
    settings: UserSettings | None = None
    readonly: bool | None = None


@define
class Database:
    """A database of a cluster.

    Attributes:
        name: Its name.
    """

    name: str


class ClusterStatus(StrEnum):
    """What a cluster is doing.

    Attributes:
        CREATING: It is being created. You cannot write users and databases yet.
        ONLINE: It is in service.
        RESIZING: It gets another size or another number of nodes.
        MIGRATING: It moves to another region.
        FORKING: It is being copied into a new cluster.
    """

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
        uri: The provider's own URI, which contains the default login.
        database: The default database.
        host: The host's name or address.
        port: The port on which the engine listens.
        user: The default login.
        password: The password of the default login.
        ssl: Whether the connection is encrypted.
        engine: The cluster's engine, which decides what ``uri_for`` writes.
        protocol: The scheme of ``uri``, such as ``mongodb+srv``, if the API returns it.
        application_ports: Ports by service name, such as a schema registry, if the API returns them (source: godo).
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
        """Return the URI for ``user`` and ``database`` in the format of the engine's drivers. Sends nothing.

        PostgreSQL, MySQL and MongoDB get a URI. OpenSearch and a schema registry get the URL of their HTTP endpoint,
        and Kafka gets ``host:port``. Without ``ca_file`` the connection is encrypted, but the driver does not verify
        the server. The result holds the password: do not log it.

        Args:
            user: As ``create``, ``get`` or ``reset_auth`` returned it, with its password.
            database: None for the connection's default database.
            ca_file: The file in which you wrote ``await cluster.ca()``. With it, the driver verifies the server's
                certificate and host name. The URIs of Kafka and OpenSearch do not support this: pass the file to
                their driver.

        Raises:
            InvalidArgumentError: The user's password, the host or the engine is unknown; ``user`` is not a ``User``; or
                you pass a ``ca_file``, but the connection has no TLS.
            UnsupportedOperationError: The engine has no users.
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
    """A managed database cluster, with the fields that matter for its users and databases.

    A field is None if the API does not return it.

    Attributes:
        id: Its UUID.
        name: The name that its owner gave it.
        engine: Its engine.
        version: The version of the engine in short, such as ``"17"``.
        semantic_version: The whole version, such as ``"17.5"``.
        status: What it is doing.
        region: The slug of its region, such as ``"nyc3"``.
        size: The slug of the size of its nodes.
        num_nodes: The number of its nodes.
        created_at: When it was created, with its time zone.
        tags: Its tags.
        db_names: The names of its databases.
        users: Its users. Their passwords are returned under the same conditions as by ``users.list``.
        connection: How to reach it from anywhere. The API may return no fields (None) while the cluster is being
            created.
        private_connection: How to reach it from the same private network.
        standby_connection: How to reach its standby node from anywhere.
        standby_private_connection: How to reach its standby node from the same private network.
        private_network_uuid: The UUID of its private network (VPC).
        project_id: The UUID of the project that it belongs to.
        storage_size_mib: Storage in addition to that of its size, in MiB.
        ui_connection: OpenSearch: where its dashboard listens.
        schema_registry_connection: Kafka: where its schema registry listens.
        service_cnames: Your own host names for the cluster.
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
    ui_connection: Connection | None = None
    schema_registry_connection: Connection | None = None
    service_cnames: list[str] = field(factory=list[str])
