"""``check_place``: whether the DSN of an administrator leads to the server of its cluster."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

from ..._dsn import is_loopback
from ...engines import POSTGRESQL
from ...errors import ConfigurationError, GrantError
from ...models import Cluster
from .._credential import Secret
from . import server_of


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
