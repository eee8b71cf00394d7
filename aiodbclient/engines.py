"""The engines, their capabilities, and the guard that refuses unsupported operations before a request. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from .errors import UnsupportedOperationError


class Engine(StrEnum):
    """The engine of a cluster, by the API's slug. An engine that is not in this list stays a string.

    Attributes:
        PG: PostgreSQL.
        MYSQL: MySQL.
        REDIS: Redis, on older clusters. The API manages no users and no databases there.
        VALKEY: Valkey. The API manages no users and no databases there.
        MONGODB: MongoDB.
        KAFKA: Kafka.
        OPENSEARCH: OpenSearch.
        ADVANCED_PG: The provider's "advanced" PostgreSQL, handled like ``PG``.
        ADVANCED_MYSQL: The provider's "advanced" MySQL, handled like ``MYSQL``.
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
        """Return the member with this slug, ignoring case and surrounding white space; otherwise the slug itself."""
        try:
            return cls(slug.strip().lower())
        except ValueError:
            return slug


# The engines that use the protocol and SQL of PostgreSQL, and those that use the ones of MySQL.
POSTGRESQL = frozenset({Engine.PG, Engine.ADVANCED_PG})
MYSQL = frozenset({Engine.MYSQL, Engine.ADVANCED_MYSQL})
SQL_ENGINES = POSTGRESQL | MYSQL


class Capabilities(NamedTuple):
    """What an engine can do.

    Attributes:
        users: Whether the API manages its users.
        dbs: Whether the API manages its databases.
        user_settings: The settings of its users, by name, such as ``"settings.acl"``.
        concurrent_user_writes: How many user writes a bulk run keeps in flight on one cluster. If it is 1, the client
            never sends two at a time, and single calls wait for each other too.
        returns_passwords: Whether the API returns a user's password on reads, and not only on create and reset.
    """

    users: bool = True
    dbs: bool = True
    user_settings: frozenset[str] = frozenset()
    concurrent_user_writes: int = 16
    returns_passwords: bool = True

    @staticmethod
    def of(engine: Engine | str) -> Capabilities | None:
        """Return the capabilities of ``engine``, or None if it is unknown."""
        return CAPABILITIES.get(engine) if isinstance(engine, str) else None


_ON_POSTGRESQL = Capabilities(user_settings=frozenset({"settings.pg_allow_replication"}))
_ON_MYSQL = Capabilities(user_settings=frozenset({"mysql_settings"}))
_CACHE = Capabilities(users=False, dbs=False)
_UNKNOWN = Capabilities()

# Redis and Valkey: "User management is not supported for Caching or Valkey clusters" (API description, Databases).
# MongoDB: the API answers overlapping user writes on one cluster with 500 (terraform-provider-digitalocean #1027).
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
        ),
        Engine.KAFKA: Capabilities(user_settings=frozenset({"settings.acl"})),
        Engine.OPENSEARCH: Capabilities(user_settings=frozenset({"settings.opensearch_acl"})),
    }
)


def capabilities_of(engine: Engine | str | None) -> Capabilities:
    """Return the capabilities of ``engine``; the defaults if it is unknown."""
    return CAPABILITIES.get(engine or "", _UNKNOWN)


def is_case_sensitive(engine: Engine | str | None, on: str) -> bool:
    """Whether the engine distinguishes the names of users or dbs (``on``) that differ only in case."""
    # MySQL ignores the case of databases if ``lower_case_table_names`` is set.
    return engine in CAPABILITIES and not (on == "dbs" and engine in MYSQL)


def guard(engine: Engine | str | None, operation: str, settings: Iterable[str] = ()) -> Capabilities:
    """Return the capabilities of ``engine``, or refuse an operation that it does not support. An unknown one passes."""
    # The API would ignore a setting of another engine. An ignored ACL leaves a login with more rights than intended.
    if engine is None or engine not in CAPABILITIES:
        return _UNKNOWN
    capabilities = CAPABILITIES[engine]
    on_users = operation.startswith("users.")
    if not (capabilities.users if on_users else capabilities.dbs):
        noun = "user" if on_users else "database"
        raise UnsupportedOperationError(
            f"{operation}: {engine} clusters have no {noun} management; it was not sent",
            engine=engine,
            operation=operation,
        )
    for setting in settings:
        if setting not in capabilities.user_settings:
            owners = " and ".join(slug for slug, other in CAPABILITIES.items() if setting in other.user_settings)
            raise UnsupportedOperationError(
                f"{operation}: {setting} is a setting of {owners or 'no engine'}, not of {engine}, "
                "where it would be ignored; it was not sent",
                engine=engine,
                operation=operation,
            )
    return capabilities
