"""The API settings that give a tenant's logins their rights on MongoDB, Kafka and OpenSearch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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

# What each role may do.
_MONGODB = {Role.OWNER: MongoRole.READ_WRITE, Role.WRITER: MongoRole.READ_WRITE, Role.READER: MongoRole.READ_ONLY}
_KAFKA = {
    Role.OWNER: KafkaPermission.ADMIN,
    Role.WRITER: KafkaPermission.PRODUCECONSUME,
    Role.READER: KafkaPermission.CONSUME,
}
_OPENSEARCH = {
    Role.OWNER: OpenSearchPermission.ADMIN,
    Role.WRITER: OpenSearchPermission.READWRITE,
    Role.READER: OpenSearchPermission.READ,
}


def settings_for(engine: Engine | str, names: Names) -> UserSettings | None:
    """Return the settings for the logins of a tenant's role; None if SQL gives the rights.

    On Kafka and OpenSearch a tenant owns the topics or indexes whose names begin with ``names.objects``. The API
    description calls the pattern a regular expression. The provider's other clients send globs. Both readings of this
    pattern match the tenant's own names and nobody else's.
    """
    return SETTINGS[engine](names) if engine in SETTINGS else None


def _mongodb(names: Names) -> UserSettings:
    assert names.database is not None
    return UserSettings(mongo_user_settings=MongoUserSettings(databases=[names.database], role=_MONGODB[names.role]))


def _kafka(names: Names) -> UserSettings:
    return UserSettings(acl=[KafkaACL(topic=f"{names.objects}*", permission=_KAFKA[names.role])])


def _opensearch(names: Names) -> UserSettings:
    return UserSettings(opensearch_acl=[OpenSearchACL(index=f"{names.objects}*", permission=_OPENSEARCH[names.role])])


# The engines on which the API gives the rights. ``sql_grants`` refuses all others without SQL.
SETTINGS: Mapping[str, Callable[[Names], UserSettings]] = {
    Engine.MONGODB: _mongodb,
    Engine.KAFKA: _kafka,
    Engine.OPENSEARCH: _opensearch,
}
