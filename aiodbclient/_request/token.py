"""The API token, kept out of sight. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..errors import ConfigurationError

TokenProvider = Callable[[], Awaitable[str]]


class Token:
    """A token whose repr does not show it, so that a traceback's local variables do not either.

    Raises:
        ConfigurationError: No header can carry it; the text does not quote it.
    """

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
