"""What each role may do, on each engine, and the API settings that give these rights without SQL. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import LiteralString

from attrs import frozen

from ...engines import Engine
from ...models import (
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    OpenSearchACL,
    OpenSearchPermission,
    UserSettings,
)
from .._naming import Names, Role


@frozen
class Rights:
    """What a role may do, on each engine.

    Attributes:
        postgresql: Its privileges on objects of the owner, by kind. An owner needs none.
        mysql: Its privileges on the tenant's schema.
        mongodb: Its role on the tenant's database.
        kafka: Its permission on the tenant's topics.
        opensearch: Its permission on the tenant's indexes.
    """

    postgresql: Mapping[LiteralString, tuple[LiteralString, ...]]
    mysql: frozenset[str]
    mongodb: MongoRole
    kafka: KafkaPermission
    opensearch: OpenSearchPermission


RIGHTS: Mapping[Role, Rights] = {
    Role.OWNER: Rights(
        postgresql={},
        mysql=frozenset({"ALL PRIVILEGES"}),
        mongodb=MongoRole.READ_WRITE,
        kafka=KafkaPermission.ADMIN,
        opensearch=OpenSearchPermission.ADMIN,
    ),
    Role.WRITER: Rights(
        postgresql={
            "SCHEMA": ("USAGE",),
            "TABLE": ("SELECT", "INSERT", "UPDATE", "DELETE"),
            "SEQUENCE": ("USAGE", "SELECT"),
            "ROUTINE": ("EXECUTE",),
        },
        mysql=frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE"}),
        mongodb=MongoRole.READ_WRITE,
        kafka=KafkaPermission.PRODUCECONSUME,
        opensearch=OpenSearchPermission.READWRITE,
    ),
    Role.READER: Rights(
        postgresql={"SCHEMA": ("USAGE",), "TABLE": ("SELECT",), "SEQUENCE": ("SELECT",)},
        mysql=frozenset({"SELECT", "SHOW VIEW"}),
        mongodb=MongoRole.READ_ONLY,
        kafka=KafkaPermission.CONSUME,
        opensearch=OpenSearchPermission.READ,
    ),
}


def settings_for(engine: Engine | str, names: Names) -> UserSettings | None:
    """Return the settings for the logins of a tenant's role; None if SQL gives the rights.

    On Kafka and OpenSearch a tenant owns the topics or indexes whose names begin with ``names.objects``. The API
    description calls the pattern a regular expression. The provider's other clients send globs. Both readings of this
    pattern match the tenant's own names and nobody else's.
    """
    return SETTINGS[engine](names, RIGHTS[names.role]) if engine in SETTINGS else None


def _mongodb(names: Names, rights: Rights) -> UserSettings:
    assert names.database is not None
    return UserSettings(mongo_user_settings=MongoUserSettings(databases=[names.database], role=rights.mongodb))


def _kafka(names: Names, rights: Rights) -> UserSettings:
    return UserSettings(acl=[KafkaACL(topic=f"{names.objects}*", permission=rights.kafka)])


def _opensearch(names: Names, rights: Rights) -> UserSettings:
    return UserSettings(opensearch_acl=[OpenSearchACL(index=f"{names.objects}*", permission=rights.opensearch)])


# The engines on which the API gives the rights. ``sql_grants`` refuses all others without SQL.
SETTINGS: Mapping[str, Callable[[Names, Rights], UserSettings]] = {
    Engine.MONGODB: _mongodb,
    Engine.KAFKA: _kafka,
    Engine.OPENSEARCH: _opensearch,
}
