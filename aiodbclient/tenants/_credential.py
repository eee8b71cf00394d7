"""``Credential``: a program needs this to connect to its tenant's database. Pure."""

from __future__ import annotations

import os
import ssl
from datetime import datetime

from attrs import field, frozen

from .._dsn import dsn
from .._masking import masked
from ..engines import POSTGRESQL, Engine
from ._naming import Role

_PG_VARIABLES = ("DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE")
_MYSQL_VARIABLES = ("DATABASE_URL", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_USER", "MYSQL_PWD", "MYSQL_DATABASE")


@frozen(kw_only=True)
class Credential:
    """What a program needs to connect to its tenant's database. Its ``repr`` shows no secret.

    Attributes:
        name: The tenant.
        username: The login. Each rotation makes a new one.
        password: The password of the login.
        database: The tenant's database.
        host: The host name of the cluster.
        port: Its port.
        engine: The cluster's engine.
        ca: The cluster's certificate authority as PEM; None if the cluster does not use TLS.
        cluster: The id of the cluster.
        cluster_name: The name of the cluster.
        role: The rights of the login.
        created: When the login was created, in UTC.
    """

    name: str
    username: str
    password: str = field(repr=masked, converter=str)  # plain: drivers refuse a subclass
    database: str
    host: str
    port: int
    engine: Engine | str
    ca: str | None = field(default=None, repr=False)
    cluster: str
    cluster_name: str
    role: Role = Role.OWNER
    created: datetime

    @property
    def uri(self) -> str:
        """The URI for the engine's drivers, with the password.

        If the cluster uses TLS, the connection is encrypted, but the server is not verified; ``uri_for`` and
        ``ssl_context`` verify it.
        """
        return self._uri()

    def uri_for(self, *, ca_file: str | os.PathLike[str]) -> str:
        """Return a URI for the engine's driver that verifies the server's certificate and name.

        Args:
            ca_file: The path of a file with ``ca``. You write that file; this does not read it.

        Returns:
            The URI, with the password. A cluster without TLS, as a sandbox may have, has nothing to verify: its URI
            says ``sslmode=disable``.
        """
        return self._uri(os.fspath(ca_file))

    def _uri(self, ca_file: str | None = None) -> str:
        return dsn(
            engine=self.engine,
            host=self.host,
            port=self.port,
            ssl=self.ca is not None,
            uri=None,
            username=self.username,
            password=self.password,
            database=self.database,
            ca_file=ca_file,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a TLS context for drivers that take one, such as asyncpg, aiomysql and aiohttp.

        Returns:
            A context that verifies the server's name, and its certificate by ``ca``. None if the cluster does not use
            TLS: for those drivers None means "no TLS" too.
        """
        return None if self.ca is None else verifying_context(self.ca)

    def env(self) -> dict[str, str]:
        """Return environment variables for a program that uses the credential.

        Returns:
            ``DATABASE_URL``, the URI, and those of the engine's own programs. PostgreSQL: ``PGHOST``, ``PGPORT``,
            ``PGUSER``, ``PGPASSWORD``, ``PGDATABASE`` and ``PGSSLMODE``. MySQL: ``MYSQL_HOST``, ``MYSQL_TCP_PORT`` and
            ``MYSQL_PWD``, and ``MYSQL_USER`` and ``MYSQL_DATABASE``.
        """
        names = _PG_VARIABLES if self.engine in POSTGRESQL else _MYSQL_VARIABLES
        values = self.uri, self.host, str(self.port), self.username, self.password, self.database
        variables: dict[str, str] = dict(zip(names, values, strict=True))
        if self.engine in POSTGRESQL:
            variables["PGSSLMODE"] = "disable" if self.ca is None else "require"
        return variables


def verifying_context(ca: str) -> ssl.SSLContext:
    """Return a TLS context that trusts only ``ca``, and verifies the server's name."""
    context = ssl.create_default_context(cadata=ca)
    # From Python 3.13 on, this flag refuses a private CA that lacks an extension. The clients of databases accept it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
