"""The API settings that give a tenant's logins their rights on MongoDB, Kafka and OpenSearch. Pure."""

from __future__ import annotations

import re
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
from .._naming import Names
from .._roles import Role

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

    On Kafka and OpenSearch a tenant owns the topics or indexes whose names start with its name and a dot. The patterns
    are regular expressions, as the API description says. They have not been tested on a real server.
    """
    return SETTINGS[engine](names) if engine in SETTINGS else None


def _mongodb(names: Names) -> UserSettings:
    assert names.database is not None
    return UserSettings(mongo_user_settings=MongoUserSettings(databases=[names.database], role=_MONGODB[names.role]))


def _kafka(names: Names) -> UserSettings:
    return UserSettings(acl=[KafkaACL(topic=_prefix(names), permission=_KAFKA[names.role])])


def _opensearch(names: Names) -> UserSettings:
    return UserSettings(opensearch_acl=[OpenSearchACL(index=_prefix(names), permission=_OPENSEARCH[names.role])])


def _prefix(names: Names) -> str:
    return re.escape(names.whole) + r"\..*"


# The engines on which the API gives the rights. ``sql_grants`` refuses all others without SQL.
SETTINGS: Mapping[str, Callable[[Names], UserSettings]] = {
    Engine.MONGODB: _mongodb,
    Engine.KAFKA: _kafka,
    Engine.OPENSEARCH: _opensearch,
}
