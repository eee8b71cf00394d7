"""What a record says: the intent is one text in a store, and shows the state of the tenant and what to run next."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient.tenants import Credential, Record, Role
from aiodbclient.tenants._record import Intent, OnRecord, State, Verb
from aiodbclient.tenants._stores import RoleCredentials
from aiodbclient.tenants.errors import StoreError, SuspendedError, TenantMovingError, TenantNotFoundError

from .store_contract import a_credential

TENANTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(st.sampled_from(Verb), st.sampled_from(Role), TENANTS, st.lists(TENANTS), st.none() | st.uuids().map(str))
def test_an_intent_reads_as_it_was_written(
    verb: Verb, role: Role, name: str, logins: list[str], to: str | None
) -> None:
    intent = Intent(verb=verb, cluster="some-cluster", database=name, role=role, logins=tuple(logins), other_cluster=to)
    assert Intent.read(str(intent)) == intent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "remove alpha 1",
        "[]",
        "{}",
        str(Intent(verb=Verb.MOVE, cluster="c", database="d")).replace("other", "another"),
    ],
)
def test_intent_of_later_version_refused(text: str) -> None:
    with pytest.raises(StoreError, match="does not support"):
        Intent.read(text)
    with pytest.raises(StoreError) as damaged:
        OnRecord.read("alpha", Role.OWNER, Record(name="alpha", intended=text))
    assert damaged.value.damaged == ("alpha",)


NOW = a_credential("alpha", "new")
OLD = a_credential("alpha", "old")
SUSPENDED = evolve(NOW, suspended=datetime(2026, 11, 27, tzinfo=UTC))


def a_record(
    verb: Verb | None,
    current: Credential | None,
    previous: Credential | None = None,
    *,
    role: Role = Role.OWNER,
    reader: Credential | None = None,
) -> OnRecord:
    """What is on record for a tenant, with an intent of ``role``, as the tenant itself sees it."""
    intent = None if verb is None else Intent(verb=verb, cluster="some-cluster", database="alpha", role=role)
    roles = {} if reader is None else {Role.READER: RoleCredentials(current=reader)}
    text = None if intent is None else str(intent)
    record = Record(name="alpha", current=current, previous=previous, roles=roles, intended=text)
    return OnRecord.read("alpha", Role.OWNER, record)


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
        (Verb.RESUME, SUSPENDED, None, State.RESUMING, ["resume"]),
        (Verb.SUSPEND, NOW, OLD, State.SUSPENDING, ["suspend"]),
        (Verb.REMOVE, NOW, OLD, State.REMOVING, ["remove"]),
        (Verb.MOVE, NOW, None, State.MOVING, ["repair"]),
    ],
)
def test_state_and_pending_verbs_of_record(
    verb: Verb | None, current: Credential | None, previous: Credential | None, state: State, verbs: list[str]
) -> None:
    record = a_record(verb, current, previous)
    assert record.state is state
    assert record.pending == verbs
    assert (record.usable is not None) == (state is State.USABLE)
    assert record.cluster == ("some-cluster" if current is None and verb else current and current.cluster)


def test_errors_of_unusable_states() -> None:
    shut = {Verb.SUSPEND: "is being suspended", Verb.RESUME: "is being resumed", Verb.MOVE: "is being moved to another"}
    for verb, text in shut.items():
        error = a_record(verb, NOW).unusable()
        assert type(error) is (TenantMovingError if verb is Verb.MOVE else SuspendedError)
        assert text in str(error)
    suspended = a_record(None, SUSPENDED).unusable()
    assert isinstance(suspended, SuspendedError)
    assert "is suspended since 2026-11-27 00:00 UTC: resume it first" in str(suspended)
    for record in (
        OnRecord.read("alpha", Role.OWNER, None),
        a_record(Verb.REMOVE, NOW),
        a_record(Verb.PROVISION, None),
    ):
        assert isinstance(record.unusable(), TenantNotFoundError)


@pytest.mark.parametrize("verb", Verb)
def test_a_verb_on_readers_leaves_the_tenant_usable(verb: Verb) -> None:
    record = a_record(verb, NOW, role=Role.READER, reader=NOW)
    assert record.usable == NOW
    assert record.pending == []
    assert record.of_role(Role.READER).begun is verb


@pytest.mark.parametrize("verb", Verb)
def test_verb_on_tenant_and_its_readers(verb: Verb) -> None:
    """It shuts the readers out only with the tenant."""
    record = a_record(verb, NOW, reader=NOW)
    shut = verb in (Verb.SUSPEND, Verb.RESUME, Verb.REMOVE, Verb.MOVE)
    assert (record.of_role(Role.READER).usable is None) == shut
    assert record.of_role(Role.WRITER).state is State.ABSENT
    assert record.of_role(Role.WRITER).is_empty
    assert not record.of_role(Role.WRITER).exists
