"""What a record says: the intent is one text in a store, and shows the state of the tenant and what to run next."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient.tenants import Credential, Record, Role
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._record import Intent, OnRecord, State, Verb
from aiodbclient.tenants.errors import StoreError, SuspendedError, TenantMovingError, TenantNotFoundError

from .store_contract import a_credential

TENANTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
MORE = st.just("") | st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1).map(
    lambda text: f"{text} {text}"
)


@given(st.sampled_from(Verb), TENANTS, st.uuids().map(str), MORE)
def test_an_intent_reads_as_it_was_written(verb: Verb, login: str, cluster: str, more: str) -> None:
    intent = Intent(verb, login, cluster, more)
    assert Intent.read(str(intent)) == intent


@pytest.mark.parametrize("text", ["", "remove", "remove alpha", "dance alpha 1", "pg_intent end - alpha", "remove  1"])
def test_an_intent_of_a_later_version_is_an_error_and_not_a_guess(text: str) -> None:
    with pytest.raises(StoreError, match="does not support"):
        Intent.read(text)
    with pytest.raises(StoreError) as damaged:
        OnRecord.read("alpha", Role.OWNER, Record(name="alpha", intended=text))
    assert damaged.value.damaged == ("alpha",)


NOW = a_credential("alpha", "new")
OLD = a_credential("alpha", "old")
SUSPENDED = evolve(NOW, suspended=datetime(2026, 11, 27, tzinfo=UTC))


def a_record(verb: Verb | None, current: Credential | None, previous: Credential | None = None) -> OnRecord:
    text = None if verb is None else str(Intent(verb, "alpha", "some-cluster"))
    record = Record(name="alpha", current=current, previous=previous, intended=text)
    found = OnRecord.read("alpha", Role.OWNER, record)
    assert found.record() == record
    return found


@pytest.mark.parametrize(
    ("verb", "current", "previous", "state", "verbs"),
    [
        (None, None, None, State.ABSENT, ["provision"]),
        (None, NOW, None, State.USABLE, []),
        (None, NOW, OLD, State.USABLE, ["revoke-previous"]),
        (None, SUSPENDED, None, State.SUSPENDED, []),
        (Verb.PROVISION, None, None, State.PROVISIONING, ["provision"]),
        (Verb.ADOPT, None, None, State.PROVISIONING, ["provision"]),
        (Verb.ROTATE, NOW, None, State.USABLE, ["rotate"]),
        (Verb.REVOKE, NOW, OLD, State.USABLE, ["revoke-previous"]),
        (Verb.REPAIR, NOW, OLD, State.USABLE, ["repair", "revoke-previous"]),
        (Verb.RESET, NOW, None, State.RESETTING, ["repair"]),
        (Verb.RESUME, SUSPENDED, None, State.RESUMING, ["resume"]),
        (Verb.SUSPEND, NOW, OLD, State.SUSPENDING, ["suspend"]),
        (Verb.REMOVE, NOW, OLD, State.REMOVING, ["remove"]),
        (Verb.MOVE, NOW, None, State.MOVING, ["repair"]),
    ],
)
def test_a_record_shows_the_state_and_the_verbs_that_finish_what_was_begun(
    verb: Verb | None, current: Credential | None, previous: Credential | None, state: State, verbs: list[str]
) -> None:
    record = a_record(verb, current, previous)
    assert record.state is state
    assert record.pending == verbs
    assert (record.usable is not None) == (state is State.USABLE)
    assert record.cluster == ("some-cluster" if current is None and verb else current and current.cluster)


def test_a_tenant_that_is_being_suspended_or_moved_is_told_from_a_missing_one() -> None:
    shut = {Verb.SUSPEND: "is being suspended", Verb.RESUME: "is being resumed", Verb.MOVE: "is being moved to another"}
    for verb, text in shut.items():
        error = a_record(verb, NOW).unusable()
        assert type(error) is (TenantMovingError if verb is Verb.MOVE else SuspendedError)
        assert text in str(error)
    suspended = a_record(None, SUSPENDED).unusable()
    assert isinstance(suspended, SuspendedError)
    assert "is suspended since 2026-11-27 00:00 UTC: resume it first" in str(suspended)
    for record in (
        OnRecord(name="alpha"),
        a_record(Verb.REMOVE, NOW),
        a_record(Verb.RESET, NOW),
        a_record(Verb.PROVISION, None),
    ):
        assert isinstance(record.unusable(), TenantNotFoundError)


def test_no_login_of_a_tenant_has_a_space_so_an_intent_has_its_parts() -> None:
    assert not any(" " in login for login in names_of("alpha", "pg").everything)
