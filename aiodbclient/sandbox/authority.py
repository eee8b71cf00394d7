"""The certificate authority of a sandbox. Needs trustme (extra ``sandbox``), which it imports when it is first used."""

from __future__ import annotations

from collections.abc import MutableMapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from .requirements import require

if TYPE_CHECKING:
    import trustme


class SandboxCA:
    """Signs the certificates of a sandbox's servers.

    Args:
        kept: Where it keeps its key and certificate for the next start.
    """

    def __init__(self, kept: MutableMapping[str, Any]) -> None:
        self._kept = kept
        self._ca: trustme.CA | None = None
        self._making = Lock()

    @property
    def ca(self) -> trustme.CA:
        """The authority, made when it is first used. Raises RuntimeError if trustme is not installed."""
        with self._making:  # clusters that are added together start in threads of their own
            if self._ca is None:
                self._ca = self._made_or_kept()
            return self._ca

    def _made_or_kept(self) -> trustme.CA:
        require("trustme", "sandbox")
        import trustme

        if "ca" in self._kept:
            certificate, key = self._kept["ca"]
            return trustme.CA.from_pem(certificate.encode(), key.encode())
        ca = trustme.CA(organization_name="aiodbclient sandbox")
        self._kept["ca"] = [pem.bytes().decode() for pem in (ca.cert_pem, ca.private_key_pem)]
        return ca

    def certificate(self) -> str:
        """The certificate that clients are to trust, as PEM."""
        return self.ca.cert_pem.bytes().decode()

    def server_certificate(self, *names: str) -> str:
        """A new key and certificate for a server with these names and addresses, as PEM: a secret."""
        return self.ca.issue_cert(*names).private_key_and_cert_chain_pem.bytes().decode()
