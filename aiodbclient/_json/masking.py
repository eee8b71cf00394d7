"""Masks secrets in texts that came from elsewhere. Pure.

Every text of an answer or of another library goes through ``Secrets`` before it goes into an error or a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from html import unescape
from typing import cast

_MASK = "***"
_SHORTEST = 4  # characters; a shorter secret would be found in every text
_WINDOW = 8000  # characters of a text that are looked at
_KEPT = 2000
_MOST = 100_000  # passwords of a generation
_LONGEST_KEY = 128  # characters by which a longer secret is found
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
    rf"""|{_PROVIDERS}[^\s"'<>]+"""
)
_QUOTES = "\"'<>\\"
_PLAIN = rf"{_PROVIDERS}[^\s{re.escape(_QUOTES)}]*"  # the whole of such a password is found in any text, escaped or not

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
    """The token and the passwords that a client knows and that no error and no log may show."""

    __slots__ = ("_newer", "_older", "_tokens")

    def __init__(self) -> None:
        self._tokens: list[str] = []
        # Two generations, so that neither grows without bound: the newer one takes the place of the older.
        self._newer, self._older = _Known(), _Known()

    def learn_token(self, token: str) -> None:
        """Mask ``token`` from now on, and also a part of it that a text begins or ends with."""
        self._tokens = [token, *self._tokens][:8]

    def learn(self, passwords: Iterable[str | None]) -> None:
        """Mask ``passwords`` from now on. The provider's own are known by how they begin, and are not stored."""
        for password in passwords:
            if password and (
                password[:5] != _PROVIDERS or not (password[5:].isalnum() or re.fullmatch(_PLAIN, password))
            ):
                if len(self._newer.secrets) >= _MOST:
                    self._older, self._newer = self._newer, _Known()
                self._newer.add(password)

    def learn_list(self, passwords: list[str | None]) -> None:
        """Do as ``learn`` does, quicker where the provider made all of them."""
        try:
            text = "\n".join(cast("list[str]", passwords))  # raises TypeError if one is None
        except TypeError:
            return self.learn(passwords)
        if (
            text[:5] != _PROVIDERS
            or text.count(f"\n{_PROVIDERS}") != len(passwords) - 1
            or len(text.split()) != len(passwords)
            or any(quote in text for quote in _QUOTES)
        ):
            self.learn(passwords)
        return None

    def masked(self, text: str, limit: int = _KEPT) -> str:
        """Return the beginning of ``text``, at most ``limit`` characters, with every secret masked."""
        return _credentials().sub(_without_credential, self._without_known(text))[:limit]

    def line(self, text: str, limit: int) -> str:
        """Return the same on one printable line, so that an answer cannot write lines of its own into a log."""
        known_masked = self._without_known(text)
        if not known_masked.isprintable():
            known_masked = "".join(character if character.isprintable() else " " for character in known_masked)
        return " ".join(_credentials().sub(_without_credential, known_masked)[:limit].split())

    def _without_known(self, text: str) -> str:
        """Return the beginning of ``text`` without the token and the known passwords, escaped or not."""
        # A secret that is cut in two is not found, so it is masked before the text is cut. The window may cut one too.
        is_cut = len(text) > _WINDOW
        text = text[:_WINDOW]
        for token in self._tokens:
            if len(token) >= _SHORTEST:
                text = _without_ends(re.sub(re.escape(token), _MASK, text, flags=re.IGNORECASE), token)
        if self._newer.secrets:
            text = self._without_passwords(text)
        return text[: -_WINDOW // 2] if is_cut else text

    def _without_passwords(self, text: str) -> str:
        spans = [*self._newer.found(text), *self._older.found(text)]
        for escape in _ESCAPES:
            plain, at = text, list(range(len(text) + 1))
            for _ in range(2):  # JSON may be in a string of JSON
                if not re.search(escape, plain):
                    break
                plain, at = _unescaped(escape, plain, at)
                spans += [(at[start], at[end]) for start, end in self._newer.found(plain)]
                spans += [(at[start], at[end]) for start, end in self._older.found(plain)]
        parts: list[str] = []
        end_before = 0
        for start, end in sorted(spans):
            if start >= end_before:
                parts += text[end_before:start], _MASK
            end_before = max(end, end_before)
        return "".join((*parts, text[end_before:]))


class _Known:
    """Passwords, and where they stand in a text.

    Attributes:
        secrets: The passwords, by their first ``_LONGEST_KEY`` characters.
    """

    __slots__ = ("_lengths", "secrets")

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self._lengths: dict[str, set[int]] = {}  # of these keys, by how they begin

    def add(self, secret: str) -> None:
        # A server that replaces white space by spaces does not hide a password either.
        for form in (secret,) if secret.isprintable() else (secret, _in_one_line(secret)):
            if len(form) >= _SHORTEST:
                key = form[:_LONGEST_KEY]
                self.secrets[key] = form
                self._lengths.setdefault(key[:_SHORTEST], set()).add(len(key))

    def found(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where each secret begins and ends in ``text``."""
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


# How JSON, URLs and HTML write characters that they cannot write as they are.
_ESCAPES = (
    r"""(?P<json>(?:\\u[0-9a-fA-F]{4})+)|\\(?P<short>["\\/bfnrt])""",
    r"(?P<url>(?:%[0-9a-fA-F]{2})+)",
    r"(?P<html>&[a-z]{2,5};|&#x?[0-9a-fA-F]{1,5};)",
)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unescaped(escape: str, text: str, at: list[int]) -> tuple[str, list[int]]:
    """Return ``text`` unescaped, and for each of its characters where that began in the original.

    Args:
        escape: One of ``_ESCAPES``.
        text: The text.
        at: The same of ``text``.
    """
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
    """Yield the characters of an escape, each with the number of characters that it takes in the text."""
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
        character = unescape(escape)
        yield (character if len(character) == 1 else " "), len(escape)


def _without_ends(text: str, token: str) -> str:
    """Return ``text`` without the beginning of ``token`` at its end, and without the end of ``token`` at its start."""
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
