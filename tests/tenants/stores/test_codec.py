"""What a record says: its state, and the next operation. Encoded, it is read unchanged, or is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import product
from typing import Any

import pytest
from attrs import evolve, fields
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Engine
from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import (
    Login,
    Operation,
    OperationKind,
    PostgresStore,
    RecordCodec,
    Role,
    SQLiteStore,
    TenantRecord,
    TenantState,
)
from aiodbclient.tenants._records import operation_on, required, rotated, unusable
from aiodbclient.tenants.errors import StoreError, SuspendedError, TenantMovingError, TenantNotFoundError

from ..leaks import leaks
from ..store_contract import a_login, a_record

CODECS = st.sampled_from([RecordCodec(), RecordCodec(Fernet.generate_key())])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
MAYBE = st.none() | TEXT
TIMES = st.datetimes(datetime(1, 1, 2), timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]))
ROLES = st.sampled_from(Role)
LOGINS = st.builds(Login, username=TEXT, role=ROLES, password=MAYBE, created=TIMES, replaced=st.none() | TIMES)
OPERATION = st.builds(
    Operation,
    kind=st.sampled_from(OperationKind),
    role=st.none() | ROLES,
    logins=st.lists(TEXT).map(tuple),
    target=MAYBE,
)
RECORDS = st.builds(
    TenantRecord,
    name=TEXT,
    cluster=TEXT,
    cluster_name=TEXT,
    database=TEXT,
    host=TEXT,
    port=st.integers(0, 65535),
    engine=st.sampled_from(Engine) | st.just("oracle"),
    ca=MAYBE,
    suspended=st.none() | TIMES,
    is_set_up=st.booleans(),
    version=MAYBE,
    leftover=MAYBE,
    logins=st.lists(LOGINS).map(tuple),
    operation=st.none() | OPERATION,
)


@given(CODECS, RECORDS)
def test_record_is_opened_unchanged(codec: RecordCodec, record: TenantRecord) -> None:
    """Its times are in UTC then."""
    opened = codec.decode(record.name, codec.encode(record))
    assert opened == record
    assert opened.suspended is None or opened.suspended.tzinfo is UTC


@given(CODECS, RECORDS, TEXT)
def test_record_of_another_name_is_refused(codec: RecordCodec, record: TenantRecord, other: str) -> None:
    if other != record.name:
        with pytest.raises(StoreError):
            codec.decode(other, codec.encode(record))


@given(CODECS, RECORDS, st.data())
def test_changed_character_is_refused(codec: RecordCodec, record: TenantRecord, data: st.DataObject) -> None:
    """Or it changes nothing, as in the padding of base64."""
    text = codec.encode(record)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = data.draw(st.characters().filter(lambda character: character != text[place]))
    try:
        opened = codec.decode(record.name, text[:place] + changed + text[place + 1 :])
    except StoreError:
        return
    assert text.startswith("v1.fernet.")
    assert opened == record


@given(RECORDS)
def test_record_is_not_forged_without_the_key(record: TenantRecord) -> None:
    """A checksum alone could be recomputed."""
    codec, forger, plain = RecordCodec(Fernet.generate_key()), RecordCodec(Fernet.generate_key()), RecordCodec()
    for forged, why in (
        (forger.encode(record), "was encrypted with another key"),
        (plain.encode(record), "is not"),
    ):
        with pytest.raises(StoreError, match=why):
            codec.decode(record.name, forged)
    with pytest.raises(StoreError, match="is encrypted: open the store with its key="):
        plain.decode(record.name, codec.encode(record))


KEY = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
ALPHA = a_record("alpha")
PLAIN = RecordCodec().encode(ALPHA)
ENCRYPTED = RecordCodec(KEY).encode(ALPHA)


@pytest.mark.parametrize(("key", "text"), [(None, PLAIN), (KEY, ENCRYPTED)])
def test_what_a_store_holds(key: bytes | None, text: str) -> None:
    """A change of this form locks earlier stores out."""
    assert RecordCodec(key).decode("alpha", text) == ALPHA
    body = json.loads(PLAIN.split(".", 3)[3])
    assert list(body) == [each.name for each in fields(TenantRecord)]
    assert list(body["logins"][0]) == ["username", "role", "password", "created", "replaced"]


def forged(name: str, body: str) -> str:
    """A text with a correct checksum, as an attacker who knows the format could write it into a store."""
    covered = f"{name}\0{body}".encode(errors="surrogatepass")
    return f"v1.plain.{hashlib.sha256(covered).hexdigest()[:32]}.{body}"


NO_RECORDS = ["", "{}", "[]", "1", '"alpha"', "null", '{"name": "alpha", "more": 1}', "[" * 100_000, "\ud800"]


@pytest.mark.parametrize("body", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_forged_text_is_refused(body: str) -> None:
    with pytest.raises(StoreError, match="'alpha' has a form that this version of aiodbclient does not support"):
        RecordCodec().decode("alpha", forged("alpha", body))
    encrypted = Fernet(KEY).encrypt(body.encode(errors="surrogatepass")).decode()
    with pytest.raises(StoreError):
        RecordCodec(KEY).decode("alpha", f"v1.fernet.{encrypted}")
    with pytest.raises(StoreError, match="'alpha' was encrypted with another key"):
        RecordCodec(KEY).decode("alpha", f"v1.fernet.{body}")


NO_TIMES: list[object] = [5, True, "", "yesterday", [], "2026-01-02T03:04:05", "0001-01-01T00:00+14:00"]
NO_ROLES: list[object] = [None, "", "OWNER", "admin", 5]


@pytest.mark.parametrize(
    ("member", "value"), [*(("created", time) for time in NO_TIMES), *(("role", role) for role in NO_ROLES)]
)
def test_invalid_time_or_role_is_refused(member: str, value: object) -> None:
    body = json.loads(PLAIN.split(".", 3)[3])
    body["logins"][0][member] = value
    with pytest.raises(StoreError, match="'alpha' has a form that this version of aiodbclient does not support"):
        RecordCodec().decode("alpha", forged("alpha", json.dumps(body)))


def test_time_without_offset_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="needs an offset"):
        RecordCodec().encode(evolve(ALPHA, suspended=datetime(2026, 1, 2)))


@pytest.mark.parametrize(
    "text", [b"v1.plain.", "", "\ud800", PLAIN.replace("v1", "v2"), PLAIN.replace("plain", "other"), PLAIN[:-1]]
)
def test_error_of_damaged_text_names_record(text: Any) -> None:
    with pytest.raises(StoreError, match="the record of 'alpha' is damaged"):
        RecordCodec().decode("alpha", text)


def test_first_key_encrypts_and_each_decrypts() -> None:
    older, newer = Fernet.generate_key(), Fernet.generate_key()
    record = a_record("alpha")
    changing = RecordCodec([newer, older.decode()])

    assert changing.decode("alpha", RecordCodec(older).encode(record)) == record
    assert RecordCodec(newer).decode("alpha", changing.encode(record)) == record
    with pytest.raises(StoreError, match="another key"):
        RecordCodec(older).decode("alpha", changing.encode(record))


KEY_TEXT = KEY.decode()
# Fernet takes these.
RUBBISH = [f"{KEY_TEXT}rubbish", KEY_TEXT * 2, f"{KEY_TEXT[:20]}*{KEY_TEXT[20:]}", f"{KEY_TEXT[:-1]}=="]


@pytest.mark.parametrize("key", ["", "short", b"short", [Fernet.generate_key(), "short"], 7, [None], *RUBBISH])
def test_invalid_key_is_refused_and_not_quoted(key: Any) -> None:
    for takes_key in (RecordCodec, partial(SQLiteStore, "a"), partial(PostgresStore, "dbname=a", "b")):
        with pytest.raises(InvalidArgumentError, match="key= takes one or several keys") as refused:
            takes_key(key)
        assert refused.value.__cause__ is None
        assert refused.value.__context__ is None
        assert leaks(refused.value, KEY_TEXT[:20], "short") == []


def test_key_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)

    with pytest.raises(ConfigurationError, match=r"key= needs the extra: pip install 'aiodbclient\[tenants\]'"):
        RecordCodec(KEY)
    assert RecordCodec().decode("alpha", PLAIN).name == "alpha"


def test_key_may_end_with_newline() -> None:
    assert RecordCodec(f"{KEY_TEXT}\n").decode("alpha", ENCRYPTED) == RecordCodec(KEY).decode("alpha", ENCRYPTED)


def test_wrong_key_is_found_before_any_work() -> None:
    rows = [("alpha", "damaged"), ("alpha", ENCRYPTED), ("beta", "never looked at")]

    RecordCodec(KEY).check_key(rows)
    with pytest.raises(StoreError, match="'alpha' was encrypted with another key"):
        RecordCodec(Fernet.generate_key()).check_key(rows)
    RecordCodec(Fernet.generate_key()).check_key(rows[:1])  # no record to try the key on


WHEN = datetime(2026, 11, 27, tzinfo=UTC)
NEW, READER = a_login("new"), a_login("reader", role=Role.READER)
# Those that an operation leaves usable or not, with the state.
LOCKED_OUT = (TenantState.SUSPENDING, TenantState.SUSPENDED, TenantState.RESUMING, TenantState.MOVING)

# For each operation, the state in which it leaves what it is about (None: as it was), and the command that finishes it.
OPERATIONS = {
    OperationKind.PROVISION: (TenantState.PROVISIONING, "provision"),
    OperationKind.ADOPT: (TenantState.PROVISIONING, "provision"),
    OperationKind.ROTATE: (None, "rotate"),
    OperationKind.REVOKE: (None, "revoke-previous"),
    OperationKind.REPAIR: (None, "repair"),
    OperationKind.SUSPEND: (TenantState.SUSPENDING, "suspend"),
    OperationKind.RESUME: (TenantState.RESUMING, "resume"),
    OperationKind.REMOVE: (TenantState.REMOVING, "remove"),
    OperationKind.PREPARE: (None, "repair"),
    OperationKind.MOVE: (TenantState.MOVING, "repair"),
}
# What a role has: a current login, and one from before its rotation.
HAS = [(False, False), (True, False), (True, True)]


def all_records() -> Iterator[tuple[TenantRecord, Role, bool, bool]]:
    """Each record that can be, each role, and whether the role has a current and a previous login."""
    operations = [None, *(Operation(kind=kind, role=role) for kind in OperationKind for role in (None, *Role))]
    for has in product(HAS, repeat=len(Role)):
        logins = [
            login
            for role, (is_there, was_rotated) in zip(Role, has, strict=True)
            for login in (
                *([evolve(a_login(f"old-{role}", role=role), replaced=WHEN)] if was_rotated else []),
                *([a_login(f"new-{role}", role=role)] if is_there else []),
            )
        ]
        for operation, suspended, leftover in product(operations, (None, WHEN), (None, "other")):
            record = a_record(
                "alpha", logins=tuple(logins), operation=operation, suspended=suspended, leftover=leftover
            )
            for role, (is_there, was_rotated) in zip(Role, has, strict=True):
                yield record, role, is_there, was_rotated


def of(kind: OperationKind | None, *logins: Login, **more: Any) -> TenantRecord:
    return a_record("alpha", logins=logins, operation=kind and Operation(kind=kind), **more)


def test_each_record_has_one_state_and_one_next_operation() -> None:
    """All of them, against a table: the state by the operation, the login and the suspension, and what comes next."""
    states = set[TenantState]()
    for record, role, is_there, was_rotated in all_records():
        operation = record.operation
        # An operation on the whole tenant is one on its readers only if it has some.
        is_about = operation is not None and (
            operation.role is role or (operation.role is None and (is_there or role is Role.OWNER))
        )
        in_progress, finish = OPERATIONS[operation.kind] if operation is not None and is_about else (None, None)
        settled = TenantState.SUSPENDED if record.suspended else TenantState.USABLE
        state = in_progress or (settled if is_there else TenantState.ABSENT)
        last = ["revoke-previous"] if was_rotated and state is TenantState.USABLE else []
        pending = [finish] if finish else ["provision"] if state is TenantState.ABSENT else []
        pending += [each for each in last if each not in pending]
        if record.leftover and role is Role.OWNER:
            pending = ["repair"]

        assert record.state(role) is state, record
        assert record.pending(role) == pending, record
        assert operation_on(record, role) == (operation if is_about else None), record
        credential = record.credential(role)
        if state is TenantState.USABLE and is_there:
            assert credential is not None
            assert (credential.username, credential.role) == (f"new-{role}", role)
            assert required(record, "alpha", role) == credential
        else:
            assert credential is None, record
            error = unusable(record, "alpha", role)
            assert isinstance(error, SuspendedError | TenantMovingError) == (state in LOCKED_OUT), record
        states.add(state)
    assert states == {*TenantState}


def test_errors_of_unusable_states() -> None:
    texts = {
        OperationKind.SUSPEND: "is being suspended",
        OperationKind.RESUME: "is being resumed",
        OperationKind.MOVE: "is being moved to another",
    }
    for kind, text in texts.items():
        error = unusable(of(kind, NEW), "alpha", Role.OWNER)
        assert type(error) is (TenantMovingError if kind is OperationKind.MOVE else SuspendedError)
        assert text in str(error)
        assert (error.retry_after is None) is (kind is not OperationKind.MOVE)  # the others do not pass by waiting
    suspended = unusable(of(None, NEW, suspended=WHEN), "alpha", Role.OWNER)
    assert isinstance(suspended, SuspendedError)
    assert "is suspended since 2026-11-27 00:00 UTC: resume it first" in str(suspended)
    for record in (None, of(OperationKind.REMOVE, NEW), of(OperationKind.PROVISION)):
        assert isinstance(unusable(record, "alpha", Role.OWNER), TenantNotFoundError)


def test_rotation_keeps_the_other_roles() -> None:
    newer = evolve(a_login("newer"), created=WHEN)
    record = rotated(of(None, NEW, READER), newer)
    assert record.current() == newer
    assert record.previous() == evolve(NEW, replaced=WHEN)
    assert record.current(Role.READER) == READER
    assert record.previous(Role.READER) is None
