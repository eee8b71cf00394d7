"""An encoded record is read unchanged, or is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
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
)
from aiodbclient.tenants.errors import StoreError

from ..leaks import leaks
from ..store_contract import a_record

CODECS = st.sampled_from([RecordCodec(), RecordCodec(Fernet.generate_key())])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
MAYBE = st.none() | TEXT
TIMES = st.datetimes(timezones=st.just(UTC))
ROLES = st.sampled_from(Role)
LOGINS = st.builds(Login, username=TEXT, role=ROLES, password=MAYBE, created=TIMES, replaced=st.none() | TIMES)
OPERATIONS = st.builds(
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
    operation=st.none() | OPERATIONS,
)


@given(CODECS, RECORDS)
def test_record_is_opened_unchanged(codec: RecordCodec, record: TenantRecord) -> None:
    assert codec.decode(record.name, codec.encode(record)) == record


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


def test_time_is_opened_in_utc() -> None:
    there = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    opened = RecordCodec().decode("alpha", RecordCodec().encode(evolve(ALPHA, suspended=there)))
    assert opened.suspended == there
    assert opened.suspended.tzinfo is UTC


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
