"""Mask secrets in texts from elsewhere. Pure.

Every text of an answer or of another library passes through ``Secrets`` before it reaches an error or a log.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import deque
from collections.abc import Iterable
from functools import cache
from urllib.parse import quote

_MASK = "***"
_SHORTEST = 4  # characters; a shorter secret would match in every text
_WINDOW = 8000  # characters of a text to search
_KEPT = 2000
_MOST = 100_000  # secrets in one generation
_UNREAD = 4 << 20  # bytes of answers whose credentials are not read yet
_PASSWORD = "AVNS_"  # the prefix of all passwords that the provider makes; always masked
_IN_BASE64 = b64encode(_PASSWORD.encode()).decode()[: len(_PASSWORD) * 4 // 3]  # the next character depends on more

# The value after one of these names is a credential.
_NAMES = "password|passwd|access_key|access_cert|uri|token"
_CREDENTIALS = (
    # A JSON member, possibly cut off; in JSON, or in JSON within a JSON string.
    rf"""(?P<json>"(?:{_NAMES})"\s*[^\s"]?\s*)(?:"(?:[^"\\]|\\.)*"?|[\[{{][^\]}}]*|-?\d[\d.eE+-]*)"""
    rf"""|(?P<quoted>\\"(?:{_NAMES})\\"\s*:\s*)\\"(?:[^"\\]|\\(?!"))*"""
    # A form or a libpq DSN, and a line of YAML.
    rf"""|(?P<pair>\b(?:{_NAMES})=)(?:'[^']*'?|[^\s&"'<>]+)"""
    rf"""|(?P<yaml>^[ \t-]*(?:{_NAMES}):[ \t]+)\S+[ \t\r]*$"""
    # The credentials in a URL, a bearer token, a PEM block, and the provider's own passwords.
    r"""|(?P<scheme>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://)[^\s"'<>]{0,1000}@"""
    r"""|(?P<bearer>bearer\s+)[^\s"'<>]+"""
    r"""|(?P<pem>-----BEGIN )[^-]{0,40}-----[^-]*(?:-----END [^-]{0,40}-----)?"""
    rf"""|(?:{_PASSWORD}|{_IN_BASE64})[^\s"'<>]+"""
)
# A JSON member whose value is a credential, unless that is a password of the provider: the prefix identifies it anyway.
_MEMBER = (
    r'"(?:password|passwd|access_key|access_cert|token|secret)"\s*:\s*'
    rf'"(?!{_PASSWORD}[A-Za-z0-9_-]*")((?:[^"\\]|\\.)*)"'
)


@cache
def _credentials() -> re.Pattern[str]:
    """Compile on first use: it takes as long as importing half of this package."""
    return re.compile(_CREDENTIALS, re.IGNORECASE | re.DOTALL | re.MULTILINE)


class Secrets:
    """The tokens and the passwords that a client knows. It masks them in errors and logs."""

    __slots__ = ("_newer", "_older", "_tokens", "_unread", "_unread_bytes")

    def __init__(self) -> None:
        self._tokens = deque[_Known](maxlen=8)
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        # Two generations limit the memory: when the newer one is full, it replaces the older.
        self._newer, self._older = _Known(), _Known()

    def learn_token(self, token: str) -> None:
        """Mask ``token`` from now on."""
        self._tokens.append(_Known(token))

    def learn(self, passwords: Iterable[str | None]) -> None:
        """Mask ``passwords`` from now on."""
        for password in passwords:
            if password and len(password) >= _SHORTEST:
                if self._newer.count >= _MOST:
                    self._older, self._newer = self._newer, _Known()
                self._newer.add(password)

    def keep(self, body: bytes) -> None:
        """Mask the credentials in this JSON from now on: they are read when a text has to be masked, which is rare."""
        self._unread.append(body)
        self._unread_bytes += len(body)
        while self._unread_bytes > _UNREAD and len(self._unread) > 1:
            self._unread_bytes -= len(self._unread.popleft())

    def masked(self, text: str, limit: int = _KEPT) -> str:
        """Return the beginning of ``text``, at most ``limit`` characters, with every secret masked."""
        return _credentials().sub(_without_credential, self._without_known(text))[:limit]

    def line(self, text: str, limit: int) -> str:
        """Return the same on one printable line, so that an answer cannot inject lines into a log."""
        # Masked before the line ends are gone too, because they delimit a credential in YAML.
        masked = _credentials().sub(_without_credential, self._without_known(text))
        masked = "".join(character if character.isprintable() else " " for character in masked)
        return " ".join(_credentials().sub(_without_credential, masked)[:limit].split())

    def _read(self) -> None:
        for body in self._unread:
            found = re.findall(_MEMBER, body.decode("utf-8", "replace"), re.DOTALL)
            self.learn(json.loads(f'"{text}"', strict=False) if "\\" in text else text for text in found)
        self._unread.clear()
        self._unread_bytes = 0

    def _without_known(self, text: str) -> str:
        """Return the beginning of ``text`` without the tokens and the known passwords, in each of their forms."""
        self._read()
        known = [each for each in (*self._tokens, self._newer, self._older) if each.count]
        # A secret that is cut in two is not found, so mask before cutting. The window itself may cut a secret too.
        is_cut, text = len(text) > _WINDOW, text[:_WINDOW]
        parts: list[str] = []
        at = shown = 0
        while at <= len(text) - _SHORTEST:
            length = 0
            for each in known:
                length = max(length, each.length_at(text, at))
            if length:
                parts += text[shown:at], _MASK
                shown = at + length
            at += length or 1
        text = "".join((*parts, text[shown:]))
        return text[: -_WINDOW // 2] if is_cut else text


class _Known:
    """Some secrets, and a fast search for each of their forms."""

    __slots__ = ("_forms", "_lengths", "count")

    def __init__(self, *secrets: str) -> None:
        self.count = 0
        self._forms: set[str] = set()
        self._lengths: dict[str, set[int]] = {}  # of the forms, by their first characters
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        self.count += 1
        in_json = json.dumps(secret)[1:-1]
        for form in {
            secret,
            in_json,
            json.dumps(in_json)[1:-1],  # JSON in a string of JSON
            json.dumps(secret, ensure_ascii=False)[1:-1],
            in_json.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),  # as Go writes it
            quote(secret, errors="replace"),
            quote(secret, safe="", errors="replace"),
            b64encode(secret.encode("utf-8", "replace")).decode().rstrip("="),
        }:
            if len(form) >= _SHORTEST:
                self._forms.add(form)
                self._lengths.setdefault(form[:_SHORTEST], set()).add(len(form))

    def length_at(self, text: str, at: int) -> int:
        """Return the length of the longest form that begins at ``at``, or 0."""
        lengths = self._lengths.get(text[at : at + _SHORTEST])
        if lengths is None:
            return 0
        return max((length for length in lengths if text[at : at + length] in self._forms), default=0)


def _without_credential(match: re.Match[str]) -> str:
    return f"{match[match.lastgroup] if match.lastgroup else ''}{_MASK}"
