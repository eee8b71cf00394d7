"""``Reach``: the address that a sandbox listens on, and the names that clients may call it by. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, ip_address
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class Reach:
    """Who reaches a sandbox, and by which names.

    Args:
        bind: The IPv4 address to listen on; ``0.0.0.0`` for all of this machine.
        hosts: Names that clients may call it by, besides this machine's loopback.

    Raises:
        ValueError: One of them is invalid.
    """

    def __init__(self, bind: str = LOOPBACK, hosts: Iterable[str] = ()) -> None:
        try:
            address = IPv4Address(bind)
        except AddressValueError:
            raise ValueError(f"bind must be an IPv4 address such as 0.0.0.0, not {bind!r}") from None
        self.bind = bind
        self.hosts = tuple(host.lower() for host in hosts)
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name or IPv4 address")
        self.address = LOOPBACK if address.is_unspecified else bind
        """An address of this machine at which it answers."""

    @property
    def told(self) -> str:
        """The host of database connections that the API returns."""
        return self.hosts[0] if self.hosts else self.address

    @property
    def certified(self) -> tuple[str, ...]:
        """The names in the certificates of its servers."""
        return tuple(dict.fromkeys((LOOPBACK, "localhost", self.address, *self.hosts)))

    def allows(self, host: str | None) -> bool:
        """Whether a request with this Host header is answered. None: it has none, so that no browser has sent it.

        A web page can send requests to any address by a host name of its own (DNS rebinding). So only names that were
        chosen here are allowed, and this machine's loopback.
        """
        if host is None:
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in ("localhost", self.address, *self.hosts) or ip_address(name).is_loopback
        except ValueError:
            return False
