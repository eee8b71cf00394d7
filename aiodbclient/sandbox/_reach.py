"""``Reach``: where clients reach a sandbox and its servers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urlsplit

from .._dsn import is_loopback

LOOPBACK = "127.0.0.1"
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


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
