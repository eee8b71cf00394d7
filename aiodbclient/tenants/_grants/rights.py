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
    """What a role may do, on each engine."""

    postgresql: Mapping[LiteralString, tuple[LiteralString, ...]]  # on objects of the owner, by kind
    mysql: frozenset[str]  # on the tenant's schema
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
    """Return the settings for the logins of a tenant's role; None if SQL gives the rights."""
    return SETTINGS[engine](names, RIGHTS[names.role]) if engine in SETTINGS else None


def _mongodb(names: Names, rights: Rights) -> UserSettings:
    assert names.database is not None
    return UserSettings(mongo_user_settings=MongoUserSettings(databases=[names.database], role=rights.mongodb))


# The API's description calls the pattern of Kafka and OpenSearch a regular expression, and the provider's other clients
# send globs. By both readings ``names.objects*`` matches the tenant's own topics or indexes, and nobody else's.
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
