"""What makes a login the owner of its database and nobody else's guest: a module for each kind of engine."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from ..._dsn import dsn
from ...engines import MYSQL, POSTGRESQL, Engine
from ...errors import ConfigurationError, GrantError, UnsupportedOperationError
from ...models import Connection
from ..naming import Names
from .settings import SETTINGS

# Connections to one server at a time. The rate limit lets two tenants a second through, and each needs milliseconds.
_CONNECTIONS = 4
CONNECT_SECONDS = 10

ServerT = TypeVar("ServerT")


class LoginRefusedError(Exception):
    """The server let somebody not in, or could not be reached. The message says why, and holds no secret."""


class Grants(ABC, Generic[ServerT]):
    """The SQL of one cluster, through few connections.

    Every method may be repeated, may be cancelled, and raises GrantError where a statement is refused or the
    administrator cannot log in.

    Args:
        admin: How the administrator logs in, as options of the driver.
    """

    def __init__(self, admin: dict[str, Any]) -> None:
        self._admin = admin
        self._turns = asyncio.Semaphore(_CONNECTIONS)

    async def check(self) -> None:
        """See whether the administrator can log in."""
        async with self._administrator():
            pass

    @abstractmethod
    async def give(self, names: Names, username: str) -> None:
        """As the administrator: make ``username`` an owner of the tenant's database and nobody else's guest."""

    @abstractmethod
    async def enter(self, names: Names, username: str, password: str) -> str | None:
        """Log in as ``username``, and do what only the login itself may do.

        Returns:
            None where it worked, and else why the server refused the login.
        """

    @abstractmethod
    async def forget(self, names: Names) -> None:
        """Remove what ``give`` made beside the tenant's database and logins, which are gone."""

    @abstractmethod
    def _connected(self, options: dict[str, Any]) -> AbstractAsyncContextManager[ServerT]:
        """A connection with these options of the driver. Raises LoginRefusedError."""

    @asynccontextmanager
    async def _administrator(self) -> AsyncGenerator[ServerT]:
        try:
            async with self._turns, self._connected(self._admin) as server:
                yield server
                return
        except LoginRefusedError as refused:
            reason = str(refused)
        raise GrantError(f"the administrator who gives tenants their rights cannot log in: {reason}")


def sql_grants(engine: Engine | str, connection: Connection, ca: str | None, admin: str | None) -> Grants[Any] | None:
    """The SQL for a cluster, or None where the API gives the rights by ``SETTINGS``. The driver is imported here.

    Args:
        engine: The cluster's engine.
        connection: Where it listens, and its primary user.
        ca: Its certificate authority, where it speaks TLS.
        admin: The DSN of an administrator; None for the primary user.

    Raises:
        UnsupportedOperationError: Neither SQL nor ``SETTINGS`` give rights on this engine.
        ConfigurationError: The driver is missing, no administrator's password is known, or ``admin`` is no DSN.
    """
    if engine in SETTINGS:
        return None
    if engine not in POSTGRESQL | MYSQL:
        raise UnsupportedOperationError(
            f"tenants: nothing here tells how rights are given on {engine}; nothing was made",
            engine=engine,
            operation="tenants",
        )
    if admin is None:
        admin = _primary(engine, connection)
    try:
        if engine in POSTGRESQL:
            from .postgres import PostgresGrants

            return PostgresGrants(admin, ca)
        from .mysql import MySQLGrants

        return MySQLGrants(admin, ca)
    except ImportError as error:
        raise ConfigurationError(f"tenants on {engine} need {error.name}: pip install 'aiodbclient[tenants]'") from None


def _primary(engine: Engine | str, connection: Connection) -> str:
    """The DSN of the cluster's primary user, which says nothing of TLS."""
    if not (connection.user and connection.password):
        raise ConfigurationError(
            "the primary user's password is not told to this token, and it grants the tenants their rights: give the "
            "token the scope database:view_credentials, or pass admin=, the DSN of an administrator"
        )
    return dsn(
        engine=engine,
        host=connection.host,
        port=connection.port,
        ssl=None,
        uri=None,
        username=connection.user,
        password=connection.password,
        database=connection.database,
    )
