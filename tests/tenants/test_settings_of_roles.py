"""The settings with which the API grants roles their rights, on engines without SQL."""

from __future__ import annotations

import re

import pytest

from aiodbclient import Engine, KafkaPermission, MongoRole, OpenSearchPermission
from aiodbclient.tenants._grants.settings import settings_for
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._roles import Role


@pytest.mark.parametrize(
    ("role", "mongodb", "kafka", "opensearch"),
    [
        (Role.OWNER, MongoRole.READ_WRITE, KafkaPermission.ADMIN, OpenSearchPermission.ADMIN),
        (Role.WRITER, MongoRole.READ_WRITE, KafkaPermission.PRODUCECONSUME, OpenSearchPermission.READWRITE),
        (Role.READER, MongoRole.READ_ONLY, KafkaPermission.CONSUME, OpenSearchPermission.READ),
    ],
)
def test_each_role_has_the_rights_of_the_table(
    role: Role, mongodb: MongoRole, kafka: KafkaPermission, opensearch: OpenSearchPermission
) -> None:
    on_mongodb = settings_for("mongodb", names_of("alpha", "mongodb", "p_", role))
    assert on_mongodb is not None
    assert on_mongodb.mongo_user_settings is not None
    assert (on_mongodb.mongo_user_settings.databases, on_mongodb.mongo_user_settings.role) == (["p_alpha"], mongodb)

    on_kafka = settings_for("kafka", names_of("alpha", "kafka", "p_", role))
    assert on_kafka is not None
    assert on_kafka.acl is not None
    assert [(acl.permission, acl.topic) for acl in on_kafka.acl] == [(kafka, r"p_alpha\..*")]

    on_opensearch = settings_for("opensearch", names_of("alpha", "opensearch", "p_", role))
    assert on_opensearch is not None
    assert on_opensearch.opensearch_acl is not None
    assert [(acl.permission, acl.index) for acl in on_opensearch.opensearch_acl] == [(opensearch, r"p_alpha\..*")]

    for engine in ("pg", "mysql"):
        assert settings_for(engine, names_of("alpha", engine, "p_", role)) is None


@pytest.mark.parametrize("engine", [Engine.KAFKA, Engine.OPENSEARCH])
@pytest.mark.parametrize("role", Role)
def test_the_pattern_matches_what_begins_with_the_name_and_a_dot_alone(engine: Engine, role: Role) -> None:
    settings = settings_for(engine, names_of("a-b", engine, role=role))
    assert settings is not None
    patterns = [acl.topic for acl in settings.acl or ()] + [acl.index for acl in settings.opensearch_acl or ()]
    (pattern,) = filter(None, patterns)
    assert re.fullmatch(pattern, "a-b.events")
    for other in ("a-b", "a-bx", "a-bxevents", "xa-b.events", "a.b.events"):
        assert not re.fullmatch(pattern, other)
