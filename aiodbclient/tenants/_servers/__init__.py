"""``server_of``: the server of a cluster, by its engine, and whether the DSN of an administrator leads to it."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

from attrs import evolve

from ..._dsn import is_loopback
from ...engines import POSTGRESQL, Engine
from ...errors import ConfigurationError
from ...models import Cluster, Connection, User
from .._credential import Secret
from ..errors import GrantError
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


async def check_place(cluster: Cluster, admin: str, ca: str | None) -> None:
    """Make sure that ``admin`` leads to the server of the cluster: a DSN of another one would change its tenants.

    An address that the API does not return can be a tunnel. There the primary user must be able to log in, if the API
    returns its password. Otherwise only a tunnel on this machine is taken. Raises ConfigurationError.
    """
    address, connection = _address(cluster, admin), cluster.connection
    own = [f"{each.host}:{each.port}" for each in (connection, cluster.private_connection) if each is not None]
    if connection is None or address in own:
        return
    if connection.user and connection.password:
        there = _at(cluster, admin, connection.user, connection.password)
        try:
            await server_of(cluster.engine, connection, ca, there, None).administrator()
        except GrantError as error:
            why = f"{connection.user} of the cluster cannot log in there ({error})"
        else:
            return
    elif is_loopback(address.rpartition(":")[0]):
        return
    else:
        why = f"its server is {' or '.join(own)}"
    raise ConfigurationError(
        f"the DSN of the administrator leads to {address}, which is not the server of the cluster {cluster.name!r}: "
        f"{why}; nothing was changed"
    )


def _address(cluster: Cluster, admin: str) -> str:
    if cluster.engine in POSTGRESQL:
        from .postgres.sessions import admin_options

        options = admin_options(admin)
        return f"{options.get('host') or options.get('hostaddr')}:{options.get('port') or 5432}"
    from .mysql.session import options_of

    options = options_of(admin)
    return f"{options['host']}:{options['port']}"


def _at(cluster: Cluster, admin: str, user: str, password: str) -> Secret:
    """The DSN of another login on the server of ``admin``."""
    if cluster.engine in POSTGRESQL:
        from psycopg.conninfo import make_conninfo

        return Secret(make_conninfo(admin, user=user, password=password))
    parts = urlsplit(admin)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return Secret(urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}")))
