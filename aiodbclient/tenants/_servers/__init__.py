"""``server_of``: the server of a cluster, by its engine."""

from __future__ import annotations

from attrs import evolve

from ...engines import POSTGRESQL, Engine
from ...errors import ConfigurationError
from ...models import Connection, User
from .._credential import Secret
from .server import Server


def server_of(
    engine: Engine | str, connection: Connection, ca: str | None, admin: str | None, connection_limit: int | None
) -> Server:
    """Return the server of a cluster, with ``admin``, the DSN of an administrator, or its primary user.

    This imports the driver.
    """
    admin = Secret(primary_dsn(engine, connection) if admin is None else admin)  # a traceback may show it
    try:
        if engine in POSTGRESQL:
            from .postgres import PostgresServer

            return PostgresServer(admin, ca, connection_limit=connection_limit)
        from .mysql import MySQLServer

        return MySQLServer(admin, ca, connection_limit=connection_limit)
    except ImportError as error:
        raise ConfigurationError(f"tenants on {engine} need {error.name}: pip install 'aiodbclient[tenants]'") from None


def primary_dsn(engine: Engine | str, connection: Connection) -> str:
    """Return the DSN of the cluster's primary user, without TLS options."""
    if not (connection.user and connection.password):
        raise ConfigurationError(
            "the API does not return the password of the primary user, who makes the tenants' logins: give the token "
            "the scope database:view_credentials, or pass admin=, the DSN of an administrator"
        )
    plain = evolve(connection, engine=engine, ssl=None, uri=None)
    return plain.uri_for(User(connection.user, password=connection.password))
