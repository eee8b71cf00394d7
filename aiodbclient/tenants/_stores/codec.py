"""``RecordCodec``: convert a record to the text that a store holds, and back. Pure.

The text is ``v1.fernet.TOKEN``, which is encrypted and authenticated, or ``v1.plain.CHECKSUM.BODY``. Both hold the
record as JSON, with its name in it. CHECKSUM covers the name and the body.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cattrs import Converter
from cattrs.errors import BaseValidationError

from ..._masking import Secret, hidden
from ...engines import Engine
from ...errors import ConfigurationError, InvalidArgumentError
from .._records import TenantRecord
from ..errors import StoreError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

Key = str | bytes | Sequence[str | bytes] | None

_ENCRYPTED, _PLAIN = "v1.fernet.", "v1.plain."
_KEY = re.compile(rb"\s*[A-Za-z0-9_+/-]{43}=\s*")


class RecordCodec:
    """Turns records into text for a store, and back. Does no I/O. For your own stores too.

    Args:
        key: A key of ``cryptography.fernet.Fernet.generate_key()``, or several: the first encrypts, all decrypt.
            None: records are not encrypted, and only have a checksum.

    Raises:
        InvalidArgumentError: ``key`` is not a key of Fernet.
        ConfigurationError: ``cryptography`` is not installed.
    """

    def __init__(self, key: Key = None) -> None:
        key = hidden(key)
        self._fernet = None if key is None else _fernet(key)

    def encode(self, record: TenantRecord) -> str:
        """Return the text to store. With a key it differs each time.

        Raises:
            InvalidArgumentError: A time in the record has no offset.
        """
        body = json.dumps(_converter.unstructure(record))
        if self._fernet is None:
            return f"{_PLAIN}{_checksum(record.name, body)}.{body}"
        return f"{_ENCRYPTED}{self._fernet.encrypt(body.encode()).decode()}"

    def decode(self, name: str, text: str) -> TenantRecord:
        """Return the record of ``name`` that was encoded as ``text``.

        Raises:
            StoreError: ``text`` is damaged, belongs to another name, or was encoded with another key; or only one of
                the text and this object has a key. No message quotes the text. Its ``damaged`` is ``(name,)``.
        """
        text = Secret(text)  # a traceback may show local variables. SQLite may hold a blob
        if text.startswith(_ENCRYPTED):
            if self._fernet is None:
                raise _unreadable(name, "is encrypted", "open the store with its key=")
            body = _decrypted(self._fernet, Secret(text.removeprefix(_ENCRYPTED)))
            if body is None:
                raise _unreadable(
                    name,
                    "was encrypted with another key, or is damaged",
                    "open the store with its key=, or restore it from a backup",
                )
        else:
            checksum, _, body = map(Secret, text.removeprefix(_PLAIN).partition("."))
            if not text.startswith(_PLAIN) or checksum != _checksum(name, body):
                raise _unreadable(
                    name,
                    "is damaged, or belongs to another name: restore it from a backup, or delete this row and "
                    "provision the tenant again",
                )
            if self._fernet is not None:
                raise _unreadable(name, "is not encrypted, and the store was opened with a key", "open it without key=")
        record = _record(body)
        if record is None:
            raise _unreadable(name, "has a form that this version of aiodbclient does not support")
        if record.name != name:
            raise _unreadable(name, "belongs to another name")
        return record

    def check_key(self, rows: Iterable[tuple[str, str]]) -> None:
        """Check before any work whether the key opens the store: whether it opens one of some records.

        Args:
            rows: Some of the store's names, each with its text.

        Raises:
            StoreError: The key opens none of them.
        """
        first: StoreError | None = None
        for name, text in rows:
            try:
                self.decode(name, text)
            except StoreError as error:
                first = first or (error if error.advice else None)  # without advice it is damaged, whatever the key
            else:
                return
        if first is not None:
            raise first


def _unreadable(name: str, why: str, advice: str = "") -> StoreError:
    error = StoreError(f"the record of {name!r} {why}", advice=advice)
    error.damaged = (name,)
    return error


def check_storable(name: str) -> str:
    """Return ``name``, or raise InvalidArgumentError if no store can hold it."""
    with suppress(UnicodeEncodeError):
        if name.encode() and "\0" not in name:
            return name
    raise InvalidArgumentError(f"the name {name!r} is invalid: it must be unicode without NUL, and not empty")


def _checksum(name: str, body: str) -> str:
    return hashlib.sha256(f"{name}\0{body}".encode(errors="surrogatepass")).hexdigest()[:32]


def _fernet(key: str | bytes | Sequence[str | bytes]) -> MultiFernet:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError:
        raise ConfigurationError("key= needs the extra: pip install 'aiodbclient[tenants]'") from None
    with suppress(ValueError, TypeError):
        keys = [key] if isinstance(key, str | bytes) else key
        encoded = hidden([each.encode() if isinstance(each, str) else each for each in keys])
        if all(map(_KEY.fullmatch, encoded)):  # Fernet skips what is no base64
            return MultiFernet(map(Fernet, encoded))
    raise InvalidArgumentError("key= takes one or several keys of cryptography.fernet.Fernet.generate_key()")


def _decrypted(fernet: MultiFernet, token: str) -> str | None:
    from cryptography.fernet import InvalidToken

    try:
        return Secret(fernet.decrypt(token).decode())
    except (InvalidToken, ValueError):  # ValueError: it is not ASCII
        return None


def _record(body: str) -> TenantRecord | None:
    """Read a body, or return None for another form, since the context of an error would have the body."""
    try:
        decoded = json.loads(body)
        return _converter.structure(decoded, TenantRecord) if isinstance(decoded, dict) else None
    except (ValueError, RecursionError, BaseValidationError):
        return None


def _time(text: str, _: Any) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without an offset")
    return time.astimezone(UTC)


def _time_text(time: datetime) -> str:
    if time.tzinfo is None:
        raise InvalidArgumentError("a time in a record needs an offset: use datetime.now(UTC)")
    return time.isoformat()


_converter = Converter(forbid_extra_keys=True)
_converter.register_structure_hook(Engine | str, lambda slug, _: Engine.parse(slug))
_converter.register_structure_hook(datetime, _time)
_converter.register_unstructure_hook(datetime, _time_text)
