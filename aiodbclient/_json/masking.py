"""Masks secrets in texts that came from elsewhere. Pure.

Every text of an answer or of another library goes through ``Secrets`` before it goes into an error or a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import cast
from urllib.parse import quote

_MASK = "***"
_SHORTEST = 4  # characters; a shorter secret would be found in every text
_WINDOW = 8000  # characters of a text that are looked at
_KEPT = 2000
_MOST = 100_000  # passwords that are kept; the newest
_PROVIDERS = "AVNS_"  # the beginning of every password that the provider makes, masked wherever it stands

# Of these, what stands behind the name is a credential.
_NAMES = "password|passwd|access_key|access_cert|uri|token"
_CREDENTIALS = (
    # A JSON member, cut short or not; in JSON, or in JSON within a JSON string.
    rf"""(?P<json>"(?:{_NAMES})"\s*[^\s"]?\s*)(?:"(?:[^"\\]|\\.)*"?|[\[{{][^\]}}]*|-?\d[\d.eE+-]*)"""
    rf"""|(?P<quoted>\\"(?:{_NAMES})\\"\s*:\s*)\\"(?:[^"\\]|\\(?!"))*"""
    # A form or a libpq DSN, and a line of YAML.
    rf"""|(?P<pair>\b(?:{_NAMES})=)(?:'[^']*'?|[^\s&"'<>]+)"""
    rf"""|(?P<yaml>^[ \t-]*(?:{_NAMES}):[ \t]+)\S+[ \t]*$"""
    # The credentials in a URL, a bearer token, a PEM block, and the provider's own passwords.
    r"""|(?P<scheme>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://)[^\s"'<>]{0,1000}@"""
    r"""|(?P<bearer>bearer\s+)[^\s"'<>]+"""
    r"""|(?P<pem>-----BEGIN )[^-]{0,40}-----[^-]*(?:-----END [^-]{0,40}-----)?"""
    rf"""|{_PROVIDERS}[\w-]+"""
)


# The members of JSON whose text is a credential.
_MEMBERS = frozenset({"password", "passwd", "access_key", "access_cert", "token", "secret"})


def credentials_in(json: object) -> list[str]:
    """The credentials that the members of ``json``, however deep, hold."""
    found: list[str] = []
    left = [json]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            members = cast("dict[object, object]", value)
            found += [text for key, text in members.items() if key in _MEMBERS and isinstance(text, str)]
            left += members.values()
        elif isinstance(value, list | tuple):
            left += cast("list[object]", value)
    return found


@cache
def _credentials() -> re.Pattern[str]:
    """Compiled when first needed: that takes as long as importing half of this package."""
    return re.compile(_CREDENTIALS, re.IGNORECASE | re.DOTALL | re.MULTILINE)


class Secrets:
    """The token and the passwords that a client knows, which no error and no log may tell."""

    __slots__ = ("_known", "_lengths", "_tokens")

    def __init__(self) -> None:
        self._tokens: list[str] = []
        self._known: dict[str, None] = {}
        self._lengths: set[int] = set()

    def learn_token(self, token: str) -> None:
        """Mask ``token`` from now on, also a part of it that a text begins or ends with."""
        self._tokens = [token, *self._tokens][:8]

    def learn(self, passwords: Iterable[str | None]) -> None:
        """Mask ``passwords`` from now on. Those that the provider made are known by their beginning, and not kept."""
        told = [each for each in passwords if each and each[:5] != _PROVIDERS and len(each) >= _SHORTEST]
        if told:
            odd = [each for each in told if not each.isalnum()]
            told += [quote(each, safe="") for each in odd]
            told += [json.dumps(each)[1:-1] for each in odd]
            self._known.update(dict.fromkeys(told))
            self._lengths.update(map(len, told))
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]

    def masked(self, text: str, limit: int = _KEPT) -> str:
        """The beginning of ``text``, at most ``limit`` characters, with every secret masked."""
        # Masked before it is cut, since a secret that is cut in two would not be found. The window may cut one too, so
        # its end is dropped.
        window = self._without_known(text[:_WINDOW])
        if len(text) > _WINDOW:
            longest = max((*self._lengths, *map(len, self._tokens)), default=1)
            window = window[: 1 - longest] if longest > 1 else window
        return _credentials().sub(_without_credential, window)[:limit]

    def line(self, text: str, limit: int) -> str:
        """As ``masked``, on one printable line, so that an answer cannot write lines of its own into a log."""
        printable = "".join(character if character.isprintable() else " " for character in text[:_WINDOW])
        return " ".join(self.masked(printable, limit).split())

    def _without_known(self, text: str) -> str:
        for token in self._tokens:
            if len(token) >= _SHORTEST:
                text = _without_ends(re.sub(re.escape(token), _MASK, text, flags=re.IGNORECASE), token)
        lengths = sorted((length for length in self._lengths if length <= len(text)), reverse=True)
        if not lengths:
            return text
        parts: list[str] = []
        start = at = 0
        while at < len(text):
            found = next((n for n in lengths if text[at : at + n] in self._known), 0)
            if found:
                parts += text[start:at], _MASK
                start = at = at + found
            else:
                at += 1
        return "".join((*parts, text[start:]))


def _without_ends(text: str, token: str) -> str:
    """``text`` with the beginning of ``token`` masked at its end, and the end of ``token`` at its beginning."""
    for length in range(min(len(token) - 1, len(text)), _SHORTEST - 1, -1):
        if text.endswith(token[:length]):
            text = text[:-length] + _MASK
            break
    for length in range(min(len(token) - 1, len(text)), _SHORTEST - 1, -1):
        if text.startswith(token[-length:]):
            return _MASK + text[length:]
    return text


def _without_credential(match: re.Match[str]) -> str:
    return f"{match[match.lastgroup] if match.lastgroup else ''}{_MASK}"
