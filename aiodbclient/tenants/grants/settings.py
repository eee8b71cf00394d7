"""The rights that the API itself gives: on MongoDB, Kafka and OpenSearch a user's settings. Pure."""

from __future__ import annotations

import re

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
from ..naming import Names


def settings_for(engine: Engine | str, names: Names) -> UserSettings | None:
    """The settings of a tenant's logins; None where SQL gives the rights.

    A tenant of Kafka or OpenSearch owns the topics or indexes whose names begin with its own one and a dot. The
    patterns are regular expressions, as the API description says; nothing here could try them on a server.
    """
    match engine:
        case Engine.MONGODB:
            assert names.database is not None
            return UserSettings(
                mongo_user_settings=MongoUserSettings(databases=[names.database], role=MongoRole.READ_WRITE)
            )
        case Engine.KAFKA:
            return UserSettings(acl=[KafkaACL(topic=_prefix(names), permission=KafkaPermission.ADMIN)])
        case Engine.OPENSEARCH:
            return UserSettings(
                opensearch_acl=[OpenSearchACL(index=_prefix(names), permission=OpenSearchPermission.ADMIN)]
            )
        case _:
            return None


def _prefix(names: Names) -> str:
    return re.escape(names.logins[0]) + r"\..*"
