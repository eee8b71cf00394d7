"""``server_of``: the server of a cluster, by its engine."""

from __future__ import annotations

from typing import TypeAlias

from attrs import evolve

from ...engines import POSTGRESQL, Engine
from ...errors import ConfigurationError
from ...models import Connection, User
from .._credential import Secret
from .server import Server

Login: TypeAlias = tuple[str, str]  # a user and its password


def server_of(
    engine: Engine | str, connection: Connection, ca: str | None, admin: Login | None, connection_limit: int | None
) -> Server:
    """Return the server of a cluster, with ``admin`` or its primary user as the administrator.

    This imports the driver.
    """
    dsn = admin_dsn(engine, connection, admin)
    del admin  # a traceback may show it
    try:
        if engine in POSTGRESQL:
            from .postgres import PostgresServer

            return PostgresServer(dsn, ca, connection_limit=connection_limit)
        from .mysql import MySQLServer

        return MySQLServer(dsn, ca, connection_limit=connection_limit)
    except ImportError as error:
        raise ConfigurationError(f"tenants on {engine} need {error.name}: pip install 'aiodbclient[tenants]'") from None


def admin_dsn(engine: Engine | str, connection: Connection, admin: Login | None) -> Secret:
    """Return the DSN of ``admin``, or of the cluster's primary user, without TLS options."""
    user, password = (connection.user, connection.password) if admin is None else admin
    if not (user and password):
        raise ConfigurationError(
            "the API does not return the password of the primary user, who makes the tenants' logins: give the token "
            "the scope database:view_credentials, or pass admin=, the user and password of an administrator"
        )
    uri = evolve(connection, engine=engine, uri=None).uri_for(User(user, password=password))
    return Secret(uri.partition("?")[0])  # a traceback may show it
