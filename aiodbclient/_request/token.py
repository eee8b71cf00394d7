"""The API token, hidden from reprs and messages. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..errors import ConfigurationError

TokenProvider = Callable[[], Awaitable[str]]


class Token:
    """A token that its repr hides, so that a traceback with local variables hides it too."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        fits = isinstance(value, str) and value.isascii() and value.isprintable() and value and " " not in value
        if not fits:
            del value
            raise ConfigurationError(
                "the token must be a non-empty string of printable ASCII characters without spaces"
            )
        self.value = str(value)

    def __repr__(self) -> str:
        return "Token('********')"
