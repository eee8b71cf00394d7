"""The certificate authority of a sandbox. It imports trustme (extra ``sandbox``) on first use."""

from __future__ import annotations

from collections.abc import MutableMapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from ._requirements import require

if TYPE_CHECKING:
    import trustme


class SandboxCA:
    """Signs the certificates of a sandbox's servers.

    Args:
        kept: Stores its key and certificate for the next start.
    """

    def __init__(self, kept: MutableMapping[str, Any]) -> None:
        self._kept = kept
        self._ca: trustme.CA | None = None
        self._making = Lock()

    @property
    def ca(self) -> trustme.CA:
        """The authority, created on first use. Raises RuntimeError if trustme is not installed."""
        with self._making:  # clusters that are added together start in different threads
            if self._ca is None:
                self._ca = self._load_or_create()
            return self._ca

    def _load_or_create(self) -> trustme.CA:
        require("trustme", "sandbox")
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
        """Issue a key and certificate for a server with these names and addresses, as PEM. The result is secret."""
        return self.ca.issue_cert(*names).private_key_and_cert_chain_pem.bytes().decode()
