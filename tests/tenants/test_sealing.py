"""What a store holds of a record: it comes back as it was, or is refused."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Engine
from aiodbclient.errors import StoreError
from aiodbclient.tenants import Credential, Record, Seal

SEALS = st.sampled_from([Seal(), Seal(Fernet.generate_key())])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
MAYBE = st.none() | TEXT
CREDENTIALS = st.builds(
    Credential,
    name=TEXT,
    username=TEXT,
    password=MAYBE,
    database=MAYBE,
    host=TEXT,
    port=st.integers(0, 65535),
    engine=st.sampled_from(Engine) | st.just("oracle"),
    uri=TEXT,
    ca=MAYBE,
    access_cert=MAYBE,
    access_key=MAYBE,
    cluster=MAYBE,
)
RECORDS = st.builds(
    Record, name=TEXT, current=st.none() | CREDENTIALS, previous=st.none() | CREDENTIALS, intended=MAYBE
)


@given(SEALS, RECORDS)
def test_a_record_comes_back_as_it_was(seal: Seal, record: Record) -> None:
    assert seal.open(record.name, seal.seal(record)) == record


@given(SEALS, RECORDS, TEXT)
def test_a_record_is_nobody_elses(seal: Seal, record: Record, other: str) -> None:
    if other != record.name:
        with pytest.raises(StoreError):
            seal.open(other, seal.seal(record))


@given(SEALS, RECORDS, st.data())
def test_one_changed_character_is_refused(seal: Seal, record: Record, data: st.DataObject) -> None:
    text = seal.seal(record)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = data.draw(st.characters().filter(lambda character: character != text[place]))
    with pytest.raises(StoreError):
        seal.open(record.name, text[:place] + changed + text[place + 1 :])


@given(RECORDS)
def test_who_may_write_the_store_but_has_no_key_can_forge_nothing(record: Record) -> None:
    """A checksum alone could be made anew."""
    seal, forger = Seal(Fernet.generate_key()), Seal(Fernet.generate_key())
    for forged in (forger.seal(record), Seal().seal(record)):
        with pytest.raises(StoreError, match="encrypted"):
            seal.open(record.name, forged)
