"""Mask secrets: in the texts of the API and of other libraries, and in a ``repr``. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from .errors import ConfigurationError

MASK = "***"
_MIN_MASKED = 8  # characters of a token. The provider's have 71

# A password of the provider, and the value of ``password``: in JSON (also in a JSON string), a form, a DSN or a line of
# text. Every repetition is possessive, so the search never backtracks: its time grows with the text alone.
_FORMS = re.compile(
    r"""(?P<name>password\\*+["']?+\s*+[:=]\s*+)"""
    r"""(?:\\*+"(?:[^"\\]|\\.)*+"?+|'[^']*+'?+|[^\s"'&,;<>}]++)"""
    r"""|AVNS_[^\s"'\\&,;<>}]*+""",
    re.IGNORECASE | re.DOTALL,
)


def masked(value: object) -> str:
    """Return the text that a ``repr`` shows for a secret."""
    return "None" if value is None else "'********'"


class Secret(str):
    """A string whose ``repr`` is masked, so that a traceback with local variables does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return masked(self)


class SecretBytes(bytes):
    """The same for bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return masked(self)


def hidden(given: Any) -> Any:
    """Return ``given`` with a masked ``repr`` for each text in it: a public function does this with its secrets."""
    match given:
        case str():
            return Secret(given)
        case bytes():
            return SecretBytes(given)
        case tuple():
            return tuple(map(hidden, given))
        case list():
            return list(map(hidden, given))
        case Mapping():
            return {name: hidden(each) for name, each in given.items()}
        case _:
            return given


class Token:
    """A token that its repr hides, so that a traceback with local variables hides it too."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value: str = value if isinstance(value, str) else ""

    def __repr__(self) -> str:
        return "Token('********')"

    def check(self) -> None:
        """Refuse a token that is not valid in a header."""
        if not (self.value.isascii() and self.value.isprintable() and self.value and " " not in self.value):
            raise ConfigurationError(
                "the token must be a non-empty string of printable ASCII characters without spaces"
            )


class Secrets:
    """The tokens of a client. It masks them in texts, and passwords by how they look."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = deque[str](maxlen=8)  # a provider of tokens may return many

    def add_token(self, token: str) -> None:
        """Mask ``token`` from now on, unless it is so short that it would also be a part of words."""
        if len(token) >= _MIN_MASKED:
            self._tokens.append(token)

    def line(self, text: str, limit: int) -> str:
        """Return the beginning of ``text`` with every secret masked, on one printable line that is safe in a log."""
        for token in self._tokens:
            text = text.replace(token, MASK)
        text = _FORMS.sub(_masked, text)  # before the text is cut: a part of a secret would not be found
        return " ".join("".join(each if each.isprintable() else " " for each in text[: 2 * limit]).split())[:limit]


def _masked(match: re.Match[str]) -> str:
    return f"{match['name'] or ''}{MASK}"
