"""The settings with which the API grants roles their rights, on engines without SQL."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiodbclient import Engine, KafkaPermission, MongoRole, OpenSearchPermission
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Role
from aiodbclient.tenants._grants.rights import settings_for
from aiodbclient.tenants._naming import _digest, names_of
from aiodbclient.tenants._prefixes import objects_of


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
    assert [(acl.permission, acl.topic) for acl in on_kafka.acl] == [(kafka, "p_alpha-a455759c.*")]

    on_opensearch = settings_for("opensearch", names_of("alpha", "opensearch", "p_", role))
    assert on_opensearch is not None
    assert on_opensearch.opensearch_acl is not None
    assert [(acl.permission, acl.index) for acl in on_opensearch.opensearch_acl] == [(opensearch, "p_alpha-a455759c.*")]

    for engine in ("pg", "mysql"):
        assert settings_for(engine, names_of("alpha", engine, "p_", role)) is None


def pattern_of(tenant: str, engine: Engine, role: Role = Role.OWNER) -> str:
    """The pattern of the ACL of a tenant's logins."""
    settings = settings_for(engine, names_of(tenant, engine, role=role))
    assert settings is not None
    patterns = [acl.topic for acl in settings.acl or ()] + [acl.index for acl in settings.opensearch_acl or ()]
    (pattern,) = filter(None, patterns)
    return pattern


def matches(pattern: str, name: str) -> tuple[bool, bool]:
    """Whether a pattern matches a name, read in either way."""
    return fnmatchcase(name, pattern), re.fullmatch(pattern, name) is not None


NAMES = st.text("ab0-_", min_size=1, max_size=12)
RESTS = st.text("ab0-_.", max_size=12)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two tenants. The second may look like the first, its prefix, or a part or a continuation of that."""
    one = draw(NAMES)
    looks = f"{one}-{_digest(one)[:8]}"
    another = draw(NAMES | st.integers(0, len(looks)).map(lambda end: looks[:end]) | NAMES.map(lambda end: looks + end))
    return one, another


@given(pairs(), RESTS, st.sampled_from([Engine.KAFKA, Engine.OPENSEARCH]), st.sampled_from(Role))
def test_a_pattern_read_in_either_way_matches_the_tenants_own_names_and_nobody_elses(
    pair: tuple[str, str], rest: str, engine: Engine, role: Role
) -> None:
    one, another = pair
    assume(one != another)
    try:
        names = [names_of(each, engine) for each in pair]
    except InvalidArgumentError:
        assume(False)
        return
    for mine, other in (names, reversed(names)):
        pattern = pattern_of(mine.tenant, engine, role)
        assert matches(pattern, f"{mine.objects}{rest}") == (True, True)
        assert matches(pattern, f"{other.objects}{rest}") == (False, False)
        assert objects_of(mine, [f"{mine.objects}{rest}", f"{other.objects}{rest}"]) == [f"{mine.objects}{rest}"]


@pytest.mark.parametrize("engine", [Engine.KAFKA, Engine.OPENSEARCH])
def test_a_name_that_begins_as_the_topics_of_another_is_refused(engine: Engine) -> None:
    alpha = names_of("alpha", engine).objects
    assert alpha == "alpha-5306d220."
    for name in ("alpha-5306d220", "alpha-5306d220-x", "alpha-5306d2200", f"b-{_digest('b')[:8]}"):
        with pytest.raises(InvalidArgumentError, match="begins as the topics of another tenant do; nothing was sent"):
            names_of(name, engine)
    names_of("alpha-5306d22", engine)
    names_of("alpha-5306d221", engine)


def test_an_index_of_opensearch_has_no_upper_case_and_begins_with_a_letter_or_a_digit() -> None:
    for name in ("Alpha", "_alpha", "-alpha"):
        with pytest.raises(InvalidArgumentError, match="lower-case letters"):
            names_of(name, Engine.OPENSEARCH)
        names_of(name, Engine.KAFKA)
