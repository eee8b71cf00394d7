"""What makes a login the owner of its database and nobody else's guest: a module for each kind of engine."""

from __future__ import annotations

from typing import Protocol

from ...engines import Engine
from ...errors import ConfigurationError
from ...models import Connection
from ..naming import MYSQL, POSTGRESQL, Names

# Connections to one server at a time. The rate limit lets two tenants a second through, and each needs milliseconds.
CONNECTIONS = 4


class Grants(Protocol):
    """The SQL of one cluster. Every method may be repeated, and raises GrantError where a statement is refused."""

    async def check(self) -> None:
        """See whether the administrator can log in."""
        ...

    async def give(self, names: Names, username: str) -> None:
        """As the administrator: make ``username`` an owner of the tenant's database and nobody else's guest."""
        ...

    async def enter(self, names: Names, username: str, password: str) -> str | None:
        """Log in as ``username``, and do what only the login itself may do.

        Returns:
            None where it worked, and else why the server refused the login.
        """
        ...

    async def forget(self, names: Names) -> None:
        """Remove what ``give`` made beside the tenant's database and logins, which are gone."""
        ...


def sql_grants(engine: Engine | str, connection: Connection, ca: str | None, admin: str | None) -> Grants | None:
    """The SQL for a cluster, or None where the engine has none. The driver is imported here.

    Args:
        engine: The cluster's engine.
        connection: Where it listens, and its primary user.
        ca: Its certificate authority, where it speaks TLS.
        admin: The DSN of an administrator; None for the primary user.

    Raises:
        ConfigurationError: The driver is missing, or no administrator's password is known.
    """
    if engine not in POSTGRESQL | MYSQL:
        return None
    if admin is None and not (connection.user and connection.password):
        raise ConfigurationError(
            "the primary user's password is not told to this token, and it grants the tenants their rights: give the "
            "token the scope database:view_credentials, or pass admin=, the DSN of an administrator"
        )
    try:
        if engine in POSTGRESQL:
            from .postgres import PostgresGrants

            return PostgresGrants(connection, ca, admin)
        from .mysql import MySQLGrants

        return MySQLGrants(connection, ca, admin)
    except ImportError as error:
        raise ConfigurationError(f"tenants on {engine} need {error.name}: pip install 'aiodbclient[tenants]'") from None
