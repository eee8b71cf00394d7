"""What a tenant's program needs to reach its database."""

from __future__ import annotations

import os
import ssl

from attrs import field, frozen

from .._dsn import dsn
from ..engines import Engine
from ..errors import ConfigurationError


def _masked(value: object) -> str:
    return "None" if value is None else "'********'"


@frozen(kw_only=True)
class Credential:
    """A login of a tenant and where it works.

    Attributes:
        name: The tenant.
        username: The login. It differs from the name once the tenant was rotated.
        password: Its password.
        database: The tenant's database; None for Kafka and OpenSearch, which have none.
        host: Where the cluster listens.
        port: On which port.
        engine: The cluster's engine.
        uri: What the engine's drivers take. Where the cluster speaks TLS it is encrypted and not verified: see
            ``uri_for``.
        ca: The cluster's certificate authority as PEM, or None where the cluster speaks no TLS.
        access_cert: Kafka's client certificate, as PEM.
        access_key: Its key.
        cluster: The id of the cluster.
    """

    name: str
    username: str
    password: str | None = field(repr=_masked)
    database: str | None
    host: str
    port: int
    engine: Engine | str
    uri: str = field(repr=_masked)
    ca: str | None = field(default=None, repr=False)
    access_cert: str | None = field(default=None, repr=_masked)
    access_key: str | None = field(default=None, repr=_masked)
    cluster: str | None = None

    def uri_for(self, *, ca_file: str | os.PathLike[str]) -> str:
        """The URI with which a driver verifies the server by ``ca_file``, in the language of the engine.

        Args:
            ca_file: The file that holds ``ca``. It is yours to write; nothing is read here.

        Raises:
            ConfigurationError: The cluster speaks no TLS.
        """
        if self.ca is None:
            raise ConfigurationError(f"the cluster of the tenant {self.name!r} speaks no TLS: there is no CA to verify")
        return dsn(
            engine=self.engine,
            host=self.host,
            port=self.port,
            ssl=True,
            uri=self.uri,
            username=self.username,
            password=self.password,
            database=self.database,
            ca_file=os.fspath(ca_file),
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that verifies the cluster by its CA, for drivers that take one (asyncpg, aiomysql, aiohttp).

        None where the cluster speaks no TLS, which those drivers take to mean so.
        """
        if self.ca is None:
            return None
        return verified(self.ca)

    def env(self) -> dict[str, str]:
        """The environment of a program that uses the credential.

        ``DATABASE_URL`` is the URI. PostgreSQL's programs read ``PGHOST``, ``PGPORT``, ``PGUSER``, ``PGPASSWORD``,
        ``PGDATABASE`` and ``PGSSLMODE`` by themselves; MySQL's ``MYSQL_HOST``, ``MYSQL_TCP_PORT`` and ``MYSQL_PWD``,
        to which ``MYSQL_USER`` and ``MYSQL_DATABASE`` are added. Kafka has no URI: its variables are
        ``KAFKA_BOOTSTRAP_SERVERS``, ``KAFKA_USERNAME`` and ``KAFKA_PASSWORD``.
        """
        password = self.password or ""
        match self.engine:
            case Engine.KAFKA:
                return {
                    "KAFKA_BOOTSTRAP_SERVERS": f"{self.host}:{self.port}",
                    "KAFKA_USERNAME": self.username,
                    "KAFKA_PASSWORD": password,
                }
            case Engine.PG | Engine.ADVANCED_PG:
                variables = {
                    "PGHOST": self.host,
                    "PGPORT": str(self.port),
                    "PGUSER": self.username,
                    "PGPASSWORD": password,
                    "PGDATABASE": self.database or "",
                    "PGSSLMODE": "prefer" if self.ca is None else "require",
                }
            case Engine.MYSQL | Engine.ADVANCED_MYSQL:
                variables = {
                    "MYSQL_HOST": self.host,
                    "MYSQL_TCP_PORT": str(self.port),
                    "MYSQL_USER": self.username,
                    "MYSQL_PWD": password,
                    "MYSQL_DATABASE": self.database or "",
                }
            case _:
                variables = {}
        return variables | {"DATABASE_URL": self.uri}


def verified(ca: str) -> ssl.SSLContext:
    """A context that trusts ``ca`` alone, and verifies the server's name too."""
    context = ssl.create_default_context(cadata=ca)
    # From Python 3.13 on, a private CA that lacks an extension would be refused, as no database's own client does.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
