"""The certificate authority of a sandbox. Needs trustme, of the extra ``sandbox``, which is imported at first use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from .requirements import require

if TYPE_CHECKING:
    import trustme


class Authority:
    """Signs the certificates of the servers of one sandbox. Its key is nowhere but in memory."""

    @cached_property
    def ca(self) -> trustme.CA:
        """Made at first use. Raises RuntimeError where trustme is not installed."""
        require("trustme", "sandbox")
        import trustme

        return trustme.CA(organization_name="aiodbclient sandbox")

    def certificate(self) -> str:
        """The certificate that clients are to trust, as PEM."""
        return self.ca.cert_pem.bytes().decode()

    def server_certificate(self) -> str:
        """A new key and certificate for a server on loopback, as PEM: a secret."""
        return self.ca.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.bytes().decode()
