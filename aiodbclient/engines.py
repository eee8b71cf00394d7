"""The engines, what each can do, and the guard that refuses the rest before anything is sent. Pure."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, NamedTuple

from .errors import UnsupportedOperationError


class Engine(StrEnum):
    """The engine of a cluster, by the API's slug. An engine that is not here stays the string that the API gave.

    Attributes:
        PG: PostgreSQL.
        MYSQL: MySQL.
        REDIS: Redis, on older clusters. The API manages no users and no databases there.
        VALKEY: Valkey. The API manages no users and no databases there.
        MONGODB: MongoDB.
        KAFKA: Kafka.
        OPENSEARCH: OpenSearch.
        ADVANCED_PG: The provider's "advanced" PostgreSQL; it is treated like ``PG``.
        ADVANCED_MYSQL: The provider's "advanced" MySQL; it is treated like ``MYSQL``.
    """

    PG = "pg"
    MYSQL = "mysql"
    REDIS = "redis"
    VALKEY = "valkey"
    MONGODB = "mongodb"
    KAFKA = "kafka"
    OPENSEARCH = "opensearch"
    ADVANCED_PG = "advanced_pg"
    ADVANCED_MYSQL = "advanced_mysql"

    @classmethod
    def parse(cls, slug: str) -> Engine | str:
        """The member with this slug, in whatever case and with white space around it, or else the slug itself."""
        try:
            return cls(slug.strip().lower())
        except ValueError:
            return slug


# The engines that speak the protocol and the SQL of PostgreSQL, and those of MySQL.
POSTGRESQL = frozenset({Engine.PG, Engine.ADVANCED_PG})
MYSQL = frozenset({Engine.MYSQL, Engine.ADVANCED_MYSQL})


class Capabilities(NamedTuple):
    """What an engine can do.

    Attributes:
        users: Whether the API manages its users.
        dbs: Whether the API manages its databases.
        user_settings: The settings of its users, by name, such as ``"settings.acl"``.
        concurrent_user_writes: How many user writes a bulk run keeps in flight on one cluster. If it is 1, single calls
            wait for each other too: the client never sends two at a time.
        returns_passwords: Whether the API returns a user's password when it is read, and not only when it is made.
        tenants: What a tenant (``aiodbclient.tenants``) has there for itself: a database, or everything whose name has
            the tenant's name as its prefix (Kafka's topics, OpenSearch's indexes). None: it can have no tenants.
    """

    users: bool = True
    dbs: bool = True
    user_settings: frozenset[str] = frozenset()
    concurrent_user_writes: int = 16
    returns_passwords: bool = True
    tenants: Literal["database", "prefix"] | None = None

    @property
    def tells_passwords(self) -> bool:
        """The old name of ``returns_passwords``, until 2.0."""
        warnings.warn(
            "Capabilities.tells_passwords is now returns_passwords; the old name goes in 2.0",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.returns_passwords

    @staticmethod
    def of(engine: Engine | str) -> Capabilities | None:
        """The capabilities of ``engine``, or None where the engine is not known."""
        return CAPABILITIES.get(engine) if isinstance(engine, str) else None


_ON_POSTGRESQL = Capabilities(user_settings=frozenset({"settings.pg_allow_replication"}), tenants="database")
_ON_MYSQL = Capabilities(user_settings=frozenset({"mysql_settings"}), tenants="database")
_CACHE = Capabilities(users=False, dbs=False)

# Redis and Valkey: "User management is not supported for Caching or Valkey clusters" (API description, Databases).
# MongoDB: user writes that overlap on one cluster answer 500 (terraform-provider-digitalocean #1027).
CAPABILITIES: Mapping[str, Capabilities] = MappingProxyType(
    {
        Engine.PG: _ON_POSTGRESQL,
        Engine.ADVANCED_PG: _ON_POSTGRESQL,
        Engine.MYSQL: _ON_MYSQL,
        Engine.ADVANCED_MYSQL: _ON_MYSQL,
        Engine.REDIS: _CACHE,
        Engine.VALKEY: _CACHE,
        Engine.MONGODB: Capabilities(
            user_settings=frozenset({"settings.mongo_user_settings", "readonly"}),
            concurrent_user_writes=1,
            returns_passwords=False,
            tenants="database",
        ),
        Engine.KAFKA: Capabilities(user_settings=frozenset({"settings.acl"}), tenants="prefix"),
        Engine.OPENSEARCH: Capabilities(user_settings=frozenset({"settings.opensearch_acl"}), tenants="prefix"),
    }
)


def is_case_sensitive(engine: Engine | str, on: str) -> bool:
    """Whether two names that differ in case alone are two names there.

    Args:
        engine: The cluster's. One that is not known counts as case-insensitive.
        on: ``"users"`` or ``"dbs"``. MySQL ignores the case of databases where ``lower_case_table_names`` is set.
    """
    return engine in CAPABILITIES and not (on == "dbs" and engine in MYSQL)


def guard(engine: Engine | str, operation: str, settings: Iterable[str] = ()) -> Capabilities | None:
    """Refuse an operation that ``engine`` cannot do. Does no I/O; an unknown engine is let through.

    A setting of another engine is refused because the API would ignore it, and an ignored ACL is a login with more
    rights than its owner thinks.

    Args:
        engine: The cluster's.
        operation: Like ``"users.create"``, on users or dbs.
        settings: The settings in its arguments, by their names in ``Capabilities.user_settings``.

    Returns:
        What the engine can do, or None where it is not known.

    Raises:
        UnsupportedOperationError: The engine has no users or dbs, or does not know one of the settings.
    """
    capabilities = Capabilities.of(engine)
    if capabilities is None:
        return None
    on_users = operation.startswith("users.")
    if not (capabilities.users if on_users else capabilities.dbs):
        noun = "user" if on_users else "database"
        raise UnsupportedOperationError(
            f"{operation}: {engine} clusters have no {noun} management; nothing was sent",
            engine=engine,
            operation=operation,
        )
    for setting in settings:
        if setting not in capabilities.user_settings:
            owners = " and ".join(slug for slug, other in CAPABILITIES.items() if setting in other.user_settings)
            raise UnsupportedOperationError(
                f"{operation}: {setting} is a setting of {owners or 'no engine'}, not of {engine}, "
                "where it would be ignored; nothing was sent",
                engine=engine,
                operation=operation,
            )
    return capabilities


def guard_tenants(engine: Engine | str) -> Capabilities:
    """Refuse an engine that can have no tenants, and one that is not known: nobody knows how rights are given there.

    Does no I/O.

    Args:
        engine: The cluster's.

    Returns:
        What the engine can do.

    Raises:
        UnsupportedOperationError: The engine can have no tenants, or is not known.
    """
    capabilities = CAPABILITIES.get(engine)
    if capabilities is not None and capabilities.tenants is not None:
        return capabilities
    if capabilities is None:
        reason = f"the engine {engine!r} is not known to this version of aiodbclient, nor how rights are given there"
    elif not capabilities.users:
        reason = f"{engine} clusters have no user management"
    else:
        reason = f"{engine} clusters can have none"
    raise UnsupportedOperationError(f"tenants: {reason}; nothing was made", engine=engine, operation="tenants")
