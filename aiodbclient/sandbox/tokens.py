"""``Tokens``: the valid tokens of a sandbox, what each may do, and its rate limits."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from attrs import frozen

from .._pacing.budget import Window
from .limits import RateLimiter, Remaining

VIEW_CREDENTIALS = "database:view_credentials"
READ_TAGS = "tag:read"
SCOPES = frozenset(
    {"database:read", "database:create", "database:update", "database:delete", VIEW_CREDENTIALS, READ_TAGS}
)


@frozen
class Rights:
    """What a token may do, and the count of its requests."""

    scopes: frozenset[str]
    limiter: RateLimiter


class Tokens(Mapping[str, Rights]):
    """The rights of each token.

    Args:
        given: The token that may do everything; None for the one that was kept, or a random one.
        windows: The rate limits of each token.
        remaining: The value of ``ratelimit-remaining``.
    """

    def __init__(self, given: str | None, windows: Sequence[Window], remaining: Remaining) -> None:
        self._given = given
        self._windows = windows
        self._remaining: Remaining = remaining
        self.main = given or _new_token()  # the one that may do everything
        self._rights = {self.main: self._with(SCOPES)}
        self._kept: MutableMapping[str, Any] = {}  # the scopes of each, None for the one that may do everything

    def __getitem__(self, token: str) -> Rights:
        return self._rights[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rights)

    def __len__(self) -> int:
        return len(self._rights)

    def add(self, scopes: Collection[str]) -> str:
        """Make a token that may do what ``scopes`` say.

        Raises:
            ValueError: A scope does not exist.
        """
        unknown = frozenset(scopes) - SCOPES
        if unknown:
            raise ValueError(f"no scope {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCOPES))}")
        token = _new_token()
        self._rights[token] = self._with(scopes)
        self._kept[token] = sorted(scopes)
        return token

    def open(self, kept: MutableMapping[str, Any]) -> None:
        """Let the tokens of ``kept`` in too, and keep all from now on.

        The token that was given to the sandbox replaces the kept one that may do everything.
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
        """Keep nothing from now on."""
        self._kept = {}

    def _with(self, scopes: Collection[str]) -> Rights:
        return Rights(frozenset(scopes), RateLimiter(self._windows, self._remaining))


def _new_token() -> str:
    return "dop_v1_" + secrets.token_hex(32)  # the provider's prefix and length of a personal access token
