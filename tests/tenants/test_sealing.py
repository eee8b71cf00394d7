"""A sealed record is read unchanged, or is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import evolve
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Engine
from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import Credential, Record, Role, Seal
from aiodbclient.tenants._stores.sealing import check_storable
from aiodbclient.tenants.errors import StoreError

from .leaks import leaks
from .store_contract import a_credential

SEALS = st.sampled_from([Seal(), Seal(Fernet.generate_key())])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
MAYBE = st.none() | TEXT
CREDENTIALS = st.builds(
    Credential,
    name=TEXT,
    username=TEXT,
    password=MAYBE,
    database=TEXT,
    host=TEXT,
    port=st.integers(0, 65535),
    engine=st.sampled_from(Engine) | st.just("oracle"),
    uri=TEXT,
    ca=MAYBE,
    cluster=MAYBE,
    since=st.none() | st.datetimes(timezones=st.just(UTC)),
    role=st.sampled_from(Role),
    suspended=st.none() | st.datetimes(timezones=st.just(UTC)),
    is_set_up=st.booleans(),
    cluster_name=MAYBE,
    moved_from=MAYBE,
)
RECORDS = st.builds(
    Record, name=TEXT, current=st.none() | CREDENTIALS, previous=st.none() | CREDENTIALS, intended=MAYBE
)


@given(SEALS, RECORDS)
def test_record_is_opened_unchanged(seal: Seal, record: Record) -> None:
    assert seal.open(record.name, seal.seal(record)) == record


@given(SEALS, RECORDS, TEXT)
def test_record_of_another_name_is_refused(seal: Seal, record: Record, other: str) -> None:
    if other != record.name:
        with pytest.raises(StoreError):
            seal.open(other, seal.seal(record))


@given(SEALS, RECORDS, st.data())
def test_changed_character_is_refused(seal: Seal, record: Record, data: st.DataObject) -> None:
    """Or it changes nothing, as in the padding of base64."""
    text = seal.seal(record)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = data.draw(st.characters().filter(lambda character: character != text[place]))
    try:
        opened = seal.open(record.name, text[:place] + changed + text[place + 1 :])
    except StoreError:
        return
    assert text.startswith("v1.fernet.")
    assert opened == record


@given(RECORDS)
def test_record_is_not_forged_without_the_key(record: Record) -> None:
    """A checksum alone could be recomputed."""
    seal, forger = Seal(Fernet.generate_key()), Seal(Fernet.generate_key())
    for forged in (forger.seal(record), Seal().seal(record)):
        with pytest.raises(StoreError, match="encrypted"):
            seal.open(record.name, forged)


KEY = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
PLAIN = (
    "v1.plain.eceb159d4207142d0251ab7b30683d83."
    '{"name": "alpha", "current": null, "previous": null, "intended": "alpha"}'
)
ENCRYPTED = (
    "v1.fernet.gAAAAABrBk608s4695CBEplRmYs3EIKJBjpw3AP_Bxs3nuRC66PRTfdJc"
    "1wzu9Ik0uFRHvPeAAx-9oK-tRcrV0OipumK1h1XGrVSe-WAgH53pj1qIA-x28dH4OwyQ9CSOXPZYGtyNYsVHW-3bZRbGb1WhmMcA"
    "H9jz6Nl8usTk2wlff3hV-rlbuQ="
)


@pytest.mark.parametrize(("key", "text"), [(None, PLAIN), (KEY, ENCRYPTED)])
def test_records_of_earlier_versions_open(key: bytes | None, text: str) -> None:
    assert Seal(key).open("alpha", text) == Record(name="alpha", intended="alpha")


def forged(name: str, body: str) -> str:
    """A text with a correct checksum, as an attacker who knows the format could write it into a store."""
    covered = f"{name}\0{body}".encode(errors="surrogatepass")
    return f"v1.plain.{hashlib.sha256(covered).hexdigest()[:32]}.{body}"


NO_RECORDS = ["", "{}", "[]", "1", '"alpha"', "null", '{"name": "alpha", "more": 1}', "[" * 100_000, "\ud800"]


@pytest.mark.parametrize("body", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_forged_text_is_refused(body: str) -> None:
    with pytest.raises(StoreError, match="'alpha' has a form that this version of aiodbclient does not support"):
        Seal().open("alpha", forged("alpha", body))
    encrypted = Fernet(KEY).encrypt(body.encode(errors="surrogatepass")).decode()
    with pytest.raises(StoreError):
        Seal(KEY).open("alpha", f"v1.fernet.{encrypted}")
    with pytest.raises(StoreError, match="'alpha' was encrypted with another key"):
        Seal(KEY).open("alpha", f"v1.fernet.{body}")


NO_TIMES: list[object] = [5, True, "", "yesterday", [], "2026-01-02T03:04:05", "0001-01-01T00:00+14:00"]
NO_ROLES: list[object] = [None, "", "OWNER", "admin", 5]


@pytest.mark.parametrize(
    ("member", "value"), [*(("since", time) for time in NO_TIMES), *(("role", role) for role in NO_ROLES)]
)
def test_invalid_time_or_role_is_refused(member: str, value: object) -> None:
    record = json.loads(Seal().seal(Record(name="alpha", current=a_credential("alpha"))).split(".", 3)[3])
    record["current"][member] = value
    with pytest.raises(StoreError, match="'alpha' has a form that this version of aiodbclient does not support"):
        Seal().open("alpha", forged("alpha", json.dumps(record)))


def test_time_is_opened_in_utc() -> None:
    there = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    record = Record(name="alpha", current=evolve(a_credential("alpha"), since=there))
    opened = Seal().open("alpha", Seal().seal(record)).current
    assert opened is not None
    assert opened.since == there
    assert opened.since.tzinfo is UTC


def test_time_without_offset_is_refused() -> None:
    credential = evolve(a_credential("alpha"), since=datetime(2026, 1, 2))
    with pytest.raises(InvalidArgumentError, match="needs an offset"):
        Seal().seal(Record(name="alpha", current=credential))


@pytest.mark.parametrize(
    "text", [b"v1.plain.", "", "\ud800", PLAIN.replace("v1", "v2"), PLAIN.replace("plain", "other"), PLAIN[:-1]]
)
def test_error_of_damaged_text_names_record(text: Any) -> None:
    with pytest.raises(StoreError, match="the record of 'alpha' is damaged"):
        Seal().open("alpha", text)


def test_forged_record_of_another_name_is_refused() -> None:
    body = PLAIN.partition(".{")[2]
    with pytest.raises(StoreError, match="'beta' belongs to another name"):
        Seal().open("beta", forged("beta", "{" + body))


def test_key_must_match_the_record() -> None:
    with pytest.raises(StoreError, match="'alpha' is encrypted: open the store with its key="):
        Seal().open("alpha", ENCRYPTED)
    with pytest.raises(StoreError, match="'alpha' is not encrypted, and the store was opened with a key"):
        Seal(KEY).open("alpha", PLAIN)


def test_first_key_encrypts_and_each_decrypts() -> None:
    older, newer = Fernet.generate_key(), Fernet.generate_key()
    record = Record(name="alpha")
    changing = Seal([newer, older.decode()])

    assert changing.open("alpha", Seal(older).seal(record)) == record
    assert Seal(newer).open("alpha", changing.seal(record)) == record
    with pytest.raises(StoreError, match="another key"):
        Seal(older).open("alpha", changing.seal(record))


KEY_TEXT = KEY.decode()
# Fernet takes these.
RUBBISH = [f"{KEY_TEXT}rubbish", KEY_TEXT * 2, f"{KEY_TEXT[:20]}*{KEY_TEXT[20:]}", f"{KEY_TEXT[:-1]}=="]


@pytest.mark.parametrize("key", ["", "short", b"short", [Fernet.generate_key(), "short"], 7, [None], *RUBBISH])
def test_invalid_key_is_refused_and_not_quoted(key: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="key= takes one or several keys") as refused:
        Seal(key)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    assert leaks(refused.value, KEY_TEXT[:20], "short") == []


def test_key_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)

    with pytest.raises(ConfigurationError, match=r"key= needs the extra: pip install 'aiodbclient\[tenants\]'"):
        Seal(KEY)
    assert Seal().open("alpha", PLAIN).name == "alpha"


def test_key_may_end_with_newline() -> None:
    assert Seal(f"{KEY_TEXT}\n").open("alpha", ENCRYPTED) == Seal(KEY).open("alpha", ENCRYPTED)


def test_wrong_key_is_found_before_any_work() -> None:
    rows = [("alpha", "damaged"), ("alpha", ENCRYPTED), ("beta", "never looked at")]

    Seal(KEY).check_key(rows)
    with pytest.raises(StoreError, match="'alpha' was encrypted with another key"):
        Seal(Fernet.generate_key()).check_key(rows)
    Seal(Fernet.generate_key()).check_key(rows[:1])  # no record to try the key on


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_name_that_no_store_can_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must be unicode without NUL"):
        check_storable(name)
    assert check_storable("Ä x") == "Ä x"
