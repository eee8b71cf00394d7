"""Mask secrets in texts from elsewhere. Pure.

Every text of an answer or of another library passes through ``Secrets`` before it reaches an error or a log.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache

_MASK = "***"
_SHORTEST = 4  # characters; a shorter secret would match in every text
_WINDOW = 8000  # characters of a text to search
_KEPT = 2000
_MOST = 100_000  # passwords in one generation
_UNREAD = 4 << 20  # bytes of answers whose credentials are not read yet
_LONGEST_KEY = 128  # characters of a longer secret to compare
_PROVIDERS = "AVNS_"  # the prefix of all passwords that the provider makes; always masked

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
    rf"""|{_PROVIDERS}[^\s"'<>]+"""
)
# A JSON member whose value is a credential, unless that is a password of the provider: the prefix identifies it anyway.
_MEMBER = (
    r'"(?:password|passwd|access_key|access_cert|token|secret)"\s*:\s*'
    rf'"(?!{_PROVIDERS}[A-Za-z0-9_-]*")((?:[^"\\]|\\.)*)"'
)


@cache
def _credentials() -> re.Pattern[str]:
    """Compile on first use: it takes as long as importing half of this package."""
    return re.compile(_CREDENTIALS, re.IGNORECASE | re.DOTALL | re.MULTILINE)


class Secrets:
    """The token and the passwords that a client knows. It masks them in errors and logs."""

    __slots__ = ("_newer", "_older", "_tokens", "_unread", "_unread_bytes")

    def __init__(self) -> None:
        self._tokens: list[str] = []
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        # Two generations limit the memory: when the newer one is full, it replaces the older.
        self._newer, self._older = _Known(), _Known()

    def learn_token(self, token: str) -> None:
        """Mask ``token`` from now on, including a part of it at the start or end of a text."""
        self._tokens = [token, *self._tokens][:8]

    def learn(self, passwords: Iterable[str | None]) -> None:
        """Mask ``passwords`` from now on."""
        for password in passwords:
            if password:
                if len(self._newer.secrets) >= _MOST:
                    self._older, self._newer = self._newer, _Known()
                self._newer.add(password)

    def keep(self, body: bytes) -> None:
        """Mask the credentials in this JSON from now on: they are read when a text has to be masked, which is rare."""
        self._unread.append(body)
        self._unread_bytes += len(body)
        while self._unread_bytes > _UNREAD and len(self._unread) > 1:
            self._unread_bytes -= len(self._unread.popleft())

    def _read(self) -> None:
        for body in self._unread:
            found = re.findall(_MEMBER, body.decode("utf-8", "replace"), re.DOTALL)
            self.learn(json.loads(f'"{text}"', strict=False) if "\\" in text else text for text in found)
        self._unread.clear()
        self._unread_bytes = 0

    def masked(self, text: str, limit: int = _KEPT) -> str:
        """Return the beginning of ``text``, at most ``limit`` characters, with every secret masked."""
        return _credentials().sub(_without_credential, self._without_known(text))[:limit]

    def line(self, text: str, limit: int) -> str:
        """Return the same on one printable line, so that an answer cannot inject lines into a log."""
        masked = self._without_known(text)
        if not masked.isprintable():
            # Masked before the line ends are gone too, because they delimit a credential in YAML.
            masked = _credentials().sub(_without_credential, masked)
            masked = "".join(character if character.isprintable() else " " for character in masked)
        return " ".join(_credentials().sub(_without_credential, masked)[:limit].split())

    def _without_known(self, text: str) -> str:
        """Return the beginning of ``text`` without the token and the known passwords, escaped or not."""
        # A secret that is cut in two is not found, so mask before cutting. The window itself may cut a secret too.
        is_cut = len(text) > _WINDOW
        text = text[:_WINDOW]
        for token in self._tokens:
            if len(token) >= _SHORTEST:
                text = _mask_cut_token(re.sub(re.escape(token), _MASK, text, flags=re.IGNORECASE), token)
        self._read()
        if self._newer.secrets or self._older.secrets:
            text = self._without_passwords(text)
        return text[: -_WINDOW // 2] if is_cut else text

    def _without_passwords(self, text: str) -> str:
        spans = self._found(text)
        for escape in _ESCAPES:
            plain, at = text, list(range(len(text) + 1))
            for _ in range(2):  # JSON may be in a string of JSON
                if not re.search(escape, plain):
                    break
                plain, at = _unescaped(escape, plain, at)
                spans += [(at[start], at[end]) for start, end in self._found(plain)]
        parts: list[str] = []
        end_before = 0
        for start, end in sorted(spans):
            if start >= end_before:
                parts += text[end_before:start], _MASK
            end_before = max(end, end_before)
        return "".join((*parts, text[end_before:]))

    def _found(self, text: str) -> list[tuple[int, int]]:
        return [*self._newer.found(text), *self._older.found(text)]


class _Known:
    """Passwords, and a fast search for them in a text."""

    __slots__ = ("_lengths", "secrets")

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}  # by their first ``_LONGEST_KEY`` characters
        self._lengths: dict[str, set[int]] = {}  # lengths of the secrets, by their first characters

    def add(self, secret: str) -> None:
        # Also finds a password in which a server replaced white space by spaces.
        for form in (secret,) if secret.isprintable() else (secret, _in_one_line(secret)):
            if len(form) >= _SHORTEST:
                key = form[:_LONGEST_KEY]
                self.secrets[key] = form
                self._lengths.setdefault(key[:_SHORTEST], set()).add(len(key))

    def found(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each secret in ``text``."""
        at, last = 0, len(text) - _SHORTEST
        lengths = self._lengths
        while at <= last:
            for length in sorted(lengths.get(text[at : at + _SHORTEST], ()), reverse=True):
                key = text[at : at + length]
                secret = self.secrets.get(key)
                if secret is not None:
                    end = at + len(key)
                    while end - at < len(secret) and text[end : end + 1] == secret[end - at]:
                        end += 1
                    yield at, end
                    at = end - 1
                    break
            at += 1


def _in_one_line(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


# The escapes of JSON, URLs and HTML.
_ESCAPES = (
    r"""(?P<json>(?:\\u[0-9a-fA-F]{4})+)|\\(?P<short>["\\/bfnrt])""",
    r"(?P<url>(?:%[0-9a-fA-F]{2})+)",
    r"(?P<html>&[a-z]{2,5};|&#x?[0-9a-fA-F]{1,5};)",
)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unescaped(escape: str, text: str, at: list[int]) -> tuple[str, list[int]]:
    """Return ``text`` without this escape, and the position of each character in the original (``at``: before)."""
    plain: list[str] = []
    places: list[int] = []
    done = 0
    for match in re.finditer(escape, text):
        plain.append(text[done : match.start()])
        places += at[done : match.start()]
        done = match.end()
        place = match.start()
        for character, width in _characters(match):
            plain.append(character)
            places.append(at[place])
            place += width
    plain.append(text[done:])
    places += at[done:]
    return "".join(plain), places


def _characters(match: re.Match[str]) -> Iterator[tuple[str, int]]:
    """Yield the characters of an escape, each with its length in the escaped text."""
    escape = match[0]
    if match.lastgroup == "url":
        for character in bytes.fromhex(escape.replace("%", "")).decode("utf-8", "surrogateescape"):
            yield character, 3 * len(character.encode("utf-8", "surrogateescape"))
    elif match.lastgroup == "json":
        for character in bytes.fromhex(escape.replace("\\u", "")).decode("utf-16-be", "surrogatepass"):
            yield character, 12 if character > "\uffff" else 6
    elif match.lastgroup == "short":
        yield _SHORT.get(match["short"], match["short"]), len(escape)
    else:
        from html import unescape  # its table of 2,231 names takes a millisecond to import

        character = unescape(escape)
        yield (character if len(character) == 1 else " "), len(escape)


def _mask_cut_token(text: str, token: str) -> str:
    """Mask a cut-off ``token`` at the start or end of ``text``."""
    if token[:_SHORTEST] in text[1 - len(token) :]:
        for length in range(min(len(token) - 1, len(text)), _SHORTEST - 1, -1):
            if text.endswith(token[:length]):
                text = text[:-length] + _MASK
                break
    if token[-_SHORTEST:] in text[: len(token) - 1]:
        for length in range(min(len(token) - 1, len(text)), _SHORTEST - 1, -1):
            if text.startswith(token[-length:]):
                return _MASK + text[length:]
    return text


def _without_credential(match: re.Match[str]) -> str:
    return f"{match[match.lastgroup] if match.lastgroup else ''}{_MASK}"
