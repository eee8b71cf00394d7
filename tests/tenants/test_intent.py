"""What a process is about to do is one text in a store, and no name of a tenant reads as such a text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import evolve
from hypothesis import assume, example, given
from hypothesis import strategies as st

from aiodbclient.engines import CAPABILITIES, Engine
from aiodbclient.errors import InvalidArgumentError, StoreError
from aiodbclient.tenants import Credential, Record, Role
from aiodbclient.tenants._record import Intent, Verb, pending
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.testing import a_credential

ENGINES = st.sampled_from([engine for engine, capabilities in CAPABILITIES.items() if capabilities.tenants])
CLUSTERS = st.none() | st.uuids().map(str)
VERBS = st.sampled_from(Verb)
PREFIXES = st.sampled_from(["", "pg", "pg_", "P", "pg_intent ", "x "]) | st.text(max_size=12)
# The names of a tenant who knows the format.
HOSTILE = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "pg_", "pg_intent ", "PG_INTENT ", "g_intent "]),
    st.builds(lambda *parts: str(Intent(*parts)), VERBS, st.text(min_size=1), CLUSTERS),
    st.text(max_size=5),
)
LOGINS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(VERBS, LOGINS, CLUSTERS)
@example(Verb.END, " a \n pg_intent end - b ", None)
def test_an_intent_reads_as_it_was_written(verb: Verb, login: str, cluster: str | None) -> None:
    intent = Intent(verb, login, cluster)
    assert Intent.read(str(intent)) == intent


@given(ENGINES, st.text(min_size=1) | HOSTILE | st.sampled_from(["pg", "_", "g_intent remove - x"]), PREFIXES)
@example(Engine.MONGODB, "intent remove - alpha", "pg_")
@example(Engine.PG, "pg", "")
def test_a_login_that_version_1_0_stored_is_never_read_as_another_verb(engine: Engine, name: str, prefix: str) -> None:
    for role in Role:
        try:
            names = names_of(name, engine, prefix, role)
        except InvalidArgumentError:
            assume(False)
            return
        for login in names.logins:
            assert Intent.read(login) == Intent(Verb.MAKE, login)


@given(HOSTILE)
def test_a_name_that_looks_like_an_intent_is_refused_or_reads_as_a_login(name: str) -> None:
    try:
        login = names_of(name, Engine.MONGODB).logins[0]
    except InvalidArgumentError:
        return
    assert Intent.read(login) == Intent(Verb.MAKE, login)


NOW = a_credential("alpha", "new")
OLD = a_credential("alpha", "old")
SUSPENDED = evolve(NOW, suspended=datetime(2026, 11, 27, tzinfo=UTC))


@pytest.mark.parametrize(
    ("verb", "current", "previous", "verbs"),
    [
        (None, NOW, None, []),
        (None, NOW, OLD, ["retire"]),
        (None, SUSPENDED, None, []),
        (Verb.MAKE, None, None, ["provision"]),
        (Verb.MAKE, NOW, None, ["rotate"]),
        (Verb.END, NOW, OLD, ["retire"]),
        (Verb.MAKE, SUSPENDED, None, ["resume"]),
        (Verb.SUSPEND, NOW, OLD, ["suspend"]),
        (Verb.REMOVE, NOW, OLD, ["remove"]),
        (Verb.RELEASE, SUSPENDED, None, ["remove"]),
    ],
)
def test_what_was_begun_names_the_verb_that_finishes_it(
    verb: Verb | None, current: Credential | None, previous: Credential | None, verbs: list[str]
) -> None:
    text = None if verb is None else str(Intent(verb, "alpha_b"))
    assert pending(Record(name="alpha", current=current, previous=previous, intended=text)) == verbs
    if verb is None:
        repair = evolve(Record(name="alpha", current=NOW, previous=previous), intended=NOW.username)  # as 1.0 stored it
        assert pending(repair)[0] == "repair"


@pytest.mark.parametrize("text", ["pg_intent ", "pg_intent dance - alpha", "pg_intent end alpha", "pg_intent end - "])
def test_an_intent_of_a_later_version_is_an_error_and_not_a_guess(text: str) -> None:
    with pytest.raises(StoreError, match="does not support"):
        Intent.read(text)
