"""Where clients reach a sandbox and its servers, and the authority that certifies it (trustme, extra ``sandbox``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from ipaddress import AddressValueError, IPv4Address
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._dsn import is_loopback

if TYPE_CHECKING:
    import trustme

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


class SandboxCA:
    """Signs the certificates of a sandbox's servers, with a key that ``kept`` stores for the next start."""

    def __init__(self, kept: MutableMapping[str, Any]) -> None:
        self._kept = kept
        self._ca: trustme.CA | None = None
        self._making = Lock()

    @property
    def ca(self) -> trustme.CA:
        """The authority, created on first use."""
        with self._making:  # clusters that are added together start in different threads
            if self._ca is None:
                self._ca = self._load_or_create()
            return self._ca

    def _load_or_create(self) -> trustme.CA:
        import trustme

        if "ca" in self._kept:
            certificate, key = self._kept["ca"]
            return trustme.CA.from_pem(certificate.encode(), key.encode())
        ca = trustme.CA(organization_name="aiodbclient sandbox")
        self._kept["ca"] = [pem.bytes().decode() for pem in (ca.cert_pem, ca.private_key_pem)]
        return ca

    def certificate(self) -> str:
        """The certificate that clients must trust, as PEM."""
        return self.ca.cert_pem.bytes().decode()

    def server_certificate(self, *names: str) -> str:
        """Issue a (secret) key and certificate for a server with these names and addresses, as PEM."""
        return self.ca.issue_cert(*names).private_key_and_cert_chain_pem.bytes().decode()
