"""Who may use a sandbox: ``Tokens``, with their scopes and rate limits; ``Reach``, the hosts. Pure."""

from __future__ import annotations

import math
import re
import secrets
from collections import deque
from collections.abc import Collection, Iterable, MutableMapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import frozen

from .._dsn import is_loopback
from ..rate_limiter import Window

LOOPBACK = "127.0.0.1"
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

VIEW_CREDENTIALS = "database:view_credentials"
READ_TAGS = "tag:read"
SCOPES = frozenset(
    {"database:read", "database:create", "database:update", "database:delete", VIEW_CREDENTIALS, READ_TAGS}
)

# Not the client's constant, which is tested against it.
DOCUMENTED = (Window(limit=250, seconds=60.0), Window(limit=5000, seconds=3600.0))

Remaining = Literal["hour", "refused", "full"]
"""The value of ``ratelimit-remaining``.

``hour``: what is left of the longest window. ``refused``: as ``hour``, but 0 with a 429 of a shorter window. ``full``:
as ``refused``, and 0 with the answer that fills a shorter window.
"""


class Reach:
    """The address that a sandbox listens on, and the host names that it accepts besides this machine's loopback."""

    def __init__(self, bind: str = LOOPBACK, hosts: Iterable[str] = ()) -> None:
        try:
            address = IPv4Address(bind)
        except AddressValueError:
            raise ValueError(f"bind must be an IPv4 address such as 0.0.0.0, not {bind!r}") from None
        self.bind = bind
        self.hosts: tuple[str, ...] = tuple(host.lower() for host in hosts)
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name or IPv4 address")
        self.address: str = LOOPBACK if address.is_unspecified else bind
        """An address of this machine that the sandbox listens on."""

    @property
    def public_host(self) -> str:
        """The host that the API returns for database connections."""
        return self.hosts[0] if self.hosts else self.address

    @property
    def certified(self) -> tuple[str, ...]:
        """The names in the certificates of the servers."""
        return tuple(dict.fromkeys((LOOPBACK, "localhost", self.address, *self.hosts)))

    def allows(self, host: str | None) -> bool:
        """Whether to answer a request with this Host header, or without one, since then no browser sent it."""
        # A web page can send requests to any address through its own host name (DNS rebinding).
        if host is None:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in (self.address, *self.hosts) or is_loopback(name)


class RateLimiter:
    """Counts the accepted requests of one token in every (sliding) window, and makes the API's headers."""

    # ``ratelimit-limit`` and ``ratelimit-remaining`` describe the longest window; ``ratelimit-reset`` is the unix time
    # at which the oldest request leaves it. A refusal by a shorter window, or by the only one, has ``retry-after``.

    def __init__(self, windows: Sequence[Window], remaining: Remaining = "refused") -> None:
        self._windows = [(window, deque[float]()) for window in sorted(windows, key=lambda window: window.seconds)]
        self._remaining = remaining

    def admit(self, now: float, unix_time: float) -> tuple[bool, dict[str, str]]:
        """Return whether a request at ``now`` (monotonic seconds) is accepted, and the headers of its answer."""
        if not self._windows:
            return True, {}
        for window, accepted in self._windows:
            horizon = now - window.seconds
            while accepted and accepted[0] <= horizon:
                accepted.popleft()
        refusing = [(window, accepted) for window, accepted in self._windows if len(accepted) >= window.limit]
        if not refusing:
            for _, accepted in self._windows:
                accepted.append(now)
        headers = self._headers(now, unix_time, refused=bool(refusing))
        if refusing:
            window, accepted = refusing[-1]
            if len(self._windows) == 1 or window is not self._windows[-1][0]:
                headers["retry-after"] = _seconds(accepted[0] + window.seconds - now, window)
        return not refusing, headers

    def _headers(self, now: float, unix_time: float, *, refused: bool) -> dict[str, str]:
        window, accepted = self._windows[-1]
        burst_met = any(len(accepted) >= window.limit for window, accepted in self._windows[:-1])
        zero = burst_met and (self._remaining == "full" or (self._remaining == "refused" and refused))
        return {
            "ratelimit-limit": str(window.limit),
            "ratelimit-remaining": "0" if zero else str(window.limit - len(accepted)),
            "ratelimit-reset": str(math.ceil(unix_time + accepted[0] + window.seconds - now)),
        }


def _seconds(wait: float, window: Window) -> str:
    if window.seconds >= 60:  # only tests use a shorter one
        return str(math.ceil(wait))
    return f"{math.ceil(wait * 1000) / 1000:.3f}"


@frozen
class Rights:
    """The scopes of a token, and its rate limiter."""

    scopes: frozenset[str]
    limiter: RateLimiter


class Tokens:
    """The rights of each token; ``given`` has all scopes, and None is the stored one, or else a random one."""

    def __init__(self, given: str | None, windows: Sequence[Window], remaining: Remaining) -> None:
        self._given = given
        self._windows = windows
        self._remaining: Remaining = remaining
        self.main = given or _new_token()  # the token with all scopes
        self.rights = {self.main: self._with(SCOPES)}
        self._kept: MutableMapping[str, Any] = {}  # scopes by token; None for the token with all scopes

    def add(self, scopes: Collection[str]) -> str:
        """Create a token with ``scopes``, or raise ValueError if one does not exist."""
        unknown = frozenset(scopes) - SCOPES
        if unknown:
            raise ValueError(f"unknown scope {', '.join(sorted(unknown))}; the scopes are {', '.join(sorted(SCOPES))}")
        token = _new_token()
        self.rights[token] = self._with(scopes)
        self._kept[token] = sorted(scopes)
        return token

    def open(self, kept: MutableMapping[str, Any]) -> None:
        """Accept the tokens of ``kept`` too, and store all tokens there from now on."""
        self._kept = kept
        mains = {token for token, scopes in kept.items() if scopes is None}
        if self._given is None and mains:  # a given token replaces the stored one
            del self.rights[self.main]
            [self.main] = mains
        for token in mains - {self.main}:
            del kept[token]
        for token, rights in self.rights.items():
            kept[token] = None if token == self.main else sorted(rights.scopes)
        for token, scopes in kept.items():
            self.rights[token] = self._with(SCOPES if scopes is None else scopes)

    def close(self) -> None:
        """Store nothing from now on."""
        self._kept = {}

    def _with(self, scopes: Collection[str]) -> Rights:
        return Rights(frozenset(scopes), RateLimiter(self._windows, self._remaining))


def _new_token() -> str:
    return "dop_v1_" + secrets.token_hex(32)  # the provider's prefix and length of a personal access token
