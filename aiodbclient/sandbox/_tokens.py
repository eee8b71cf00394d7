"""``Tokens``: the valid tokens of a sandbox, with their scopes and rate limits."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from attrs import frozen

from .._pacing.budget import Window
from ._limits import RateLimiter, Remaining

VIEW_CREDENTIALS = "database:view_credentials"
READ_TAGS = "tag:read"
SCOPES = frozenset(
    {"database:read", "database:create", "database:update", "database:delete", VIEW_CREDENTIALS, READ_TAGS}
)


@frozen
class Rights:
    """The scopes of a token, and its rate limiter."""

    scopes: frozenset[str]
    limiter: RateLimiter


class Tokens(Mapping[str, Rights]):
    """The rights of each token.

    Args:
        given: The token with all scopes; None for the stored one, or else a random one.
        windows: The rate limits of each token.
        remaining: The value of ``ratelimit-remaining``.
    """

    def __init__(self, given: str | None, windows: Sequence[Window], remaining: Remaining) -> None:
        self._given = given
        self._windows = windows
        self._remaining: Remaining = remaining
        self.main = given or _new_token()  # the token with all scopes
        self._rights = {self.main: self._with(SCOPES)}
        self._kept: MutableMapping[str, Any] = {}  # scopes by token; None for the token with all scopes

    def __getitem__(self, token: str) -> Rights:
        return self._rights[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rights)

    def __len__(self) -> int:
        return len(self._rights)

    def add(self, scopes: Collection[str]) -> str:
        """Create a token with ``scopes``.

        Raises:
            ValueError: A scope does not exist.
        """
        unknown = frozenset(scopes) - SCOPES
        if unknown:
            raise ValueError(f"unknown scope {', '.join(sorted(unknown))}; the scopes are {', '.join(sorted(SCOPES))}")
        token = _new_token()
        self._rights[token] = self._with(scopes)
        self._kept[token] = sorted(scopes)
        return token

    def open(self, kept: MutableMapping[str, Any]) -> None:
        """Accept the tokens of ``kept`` too, and store all tokens there from now on.

        A token passed to the sandbox replaces the stored token with all scopes.
        """
        self._kept = kept
        mains = {token for token, scopes in kept.items() if scopes is None}
        if self._given is None and mains:
            del self._rights[self.main]
            [self.main] = mains
        for token in mains - {self.main}:
            del kept[token]
        for token, rights in self._rights.items():
            kept[token] = None if token == self.main else sorted(rights.scopes)
        for token, scopes in kept.items():
            self._rights[token] = self._with(SCOPES if scopes is None else scopes)

    def close(self) -> None:
        """Store nothing from now on."""
        self._kept = {}

    def _with(self, scopes: Collection[str]) -> Rights:
        return Rights(frozenset(scopes), RateLimiter(self._windows, self._remaining))


def _new_token() -> str:
    return "dop_v1_" + secrets.token_hex(32)  # the provider's prefix and length of a personal access token
