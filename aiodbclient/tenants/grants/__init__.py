"""How a tenant's login gets its rights: on its own database all of them, on every other none.

``postgres.py`` and ``mysql.py`` give them by SQL, as subclasses of ``Grants``. On the other engines the API gives them,
by the settings of ``settings.py``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Generic, TypeVar

from ..._dsn import dsn
from ...engines import MYSQL, POSTGRESQL, Engine
from ...errors import ConfigurationError, GrantError, UnsupportedOperationError
from ...models import Connection
from ..naming import Names
from ..problems import Problem
from .administrator import Administrator
from .settings import SETTINGS

# Connections to one server at a time. The rate limit lets two tenants a second through, and each needs a connection for
# some milliseconds.
_CONNECTIONS = 4
CONNECT_SECONDS = 10

ServerT = TypeVar("ServerT")


class LoginRefusedError(Exception):
    """The server refuses a login or its password. The message says why, and holds no secret."""


class ServerAwayError(Exception):
    """The server cannot be reached, or has no connection left. The message says why, and holds no secret."""


class Grants(ABC, Generic[ServerT]):
    """The SQL that gives tenants of one cluster their rights.

    Every method is safe to repeat and to cancel, leaves no connection open, and ends within a bounded time. Each raises
    GrantError if the server is away, refuses the administrator or refuses a statement.

    Args:
        admin: How the administrator logs in, as options of the driver.
    """

    _database_option: ClassVar[str]
    """The driver's option that names the database."""

    def __init__(self, admin: dict[str, Any]) -> None:
        self._admin = admin
        self._turns = asyncio.Semaphore(_CONNECTIONS)

    async def check(self) -> None:
        """Log in as the administrator, and do nothing."""
        async with self._administrator():
            pass

    async def administrator(self) -> Administrator:
        """Log in as the administrator, and find out which rights it lacks."""
        raise NotImplementedError

    @abstractmethod
    async def give(self, names: Names, username: str) -> None:
        """As the administrator: give ``username`` the rights of ``names.role`` on the tenant's database, and no others.

        It also takes back what a tenant has set on its own database that would keep the login out: settings, a limit of
        connections, another owner.

        Args:
            names: The tenant's names, of one role. Its database is there.
            username: One of the logins of that role, which is there.
        """

    @abstractmethod
    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        """Log in to the tenant's database as ``username``, and run the statements that only the login itself may run.

        Returns:
            None if it worked, else the reason for which the server refuses this login or password. (A server that is
            away, or has no connection left, is a GrantError.)
        """

    @abstractmethod
    async def accepts(self, names: Names, username: str, password: str) -> str | None:
        """Log in as ``username``, and do nothing: to the tenant's database, or to none if the rights for that are gone.

        Returns:
            None if the server accepts the password, else the reason for which it refuses it.

        Raises:
            GrantError: The server cannot be reached, or has no connection left.
        """

    @abstractmethod
    async def end_login(
        self, names: Names, username: str, password: str | None, delete: Callable[[], Awaitable[None]]
    ) -> str | None:
        """End every session of ``username`` and keep it from opening another, also against one that fights back.

        Args:
            names: The tenant's names, of one role.
            username: One of its logins.
            password: Its password, which the API has just made, and nobody else was given. None: do without a session
                of the login, because others of it set passwords faster than the API does.
            delete: Deletes the login by the API. It is called once or not at all: only where the engine needs it.

        Returns:
            None if no session is left, else the reason why the login could not be used: a session of it was faster, and
            set another password or ended ours. Reset the login and call this again; after some times, with None.

        Raises:
            GrantError: Sessions of the login are left, and nobody but the provider can end them.
        """

    @abstractmethod
    async def problems(self, names: Names, usernames: Sequence[str]) -> frozenset[Problem]:
        """Compare the rights on the server with those that ``give`` gives. Changes nothing.

        Args:
            names: The tenant's names, of one role. Its database is there.
            usernames: Those logins of the role that are there.

        Returns:
            RIGHTS_MISSING, OPEN_TO_OTHERS, both or none.
        """

    @abstractmethod
    async def shut_out(self, names: Names) -> tuple[str, ...]:
        """The logins and roles, besides the tenant's, that can use the database now and cannot after ``give``."""

    @abstractmethod
    async def take_over(self, names: Names, username: str) -> None:
        """Before ``give``, for a login that was there before: whatever it can do now, both logins can do afterwards.

        Args:
            names: The tenant's names.
            username: The login that is adopted. It is the first of ``names.logins``.
        """

    @abstractmethod
    async def before_removal(self, names: Names) -> None:
        """Undo what would keep the API from deleting the tenant's database, such as a prepared transaction."""

    @abstractmethod
    async def release(self, names: Names) -> None:
        """Make the administrator own the database and all that the tenant has in it, and open it to nobody else."""

    @abstractmethod
    async def forget(self, names: Names) -> None:
        """Remove what ``give`` made for this role, such as a role of the server, wherever something is left of it.

        For the owner, the tenant's database is gone already or was released.
        """

    @abstractmethod
    def _connected(self, options: dict[str, Any]) -> AbstractAsyncContextManager[ServerT]:
        """Connect with these options of the driver.

        Raises:
            LoginRefusedError: The server refuses the login.
            ServerAwayError: The server cannot be reached, or has no connection left.
        """

    @asynccontextmanager
    async def _administrator(self, **options: Any) -> AsyncGenerator[ServerT]:
        """Take a turn and log in as the administrator, with these options instead of its own."""
        try:
            async with self._turns, self._connected(self._admin | options) as server:
                yield server
                return
        except (LoginRefusedError, ServerAwayError) as refused:
            reason = str(refused)
        raise GrantError(f"the administrator who gives tenants their rights cannot log in, or was cut off: {reason}")


def sql_grants(
    engine: Engine | str, connection: Connection, ca: str | None, admin: str | None, connection_limit: int | None
) -> Grants[Any] | None:
    """Return the SQL for a cluster; None if the API gives the rights, by ``SETTINGS``. The driver is imported here.

    Args:
        engine: The cluster's engine.
        connection: Where it listens, and its primary user.
        ca: Its certificate authority as PEM; None if it speaks no TLS.
        admin: The DSN of an administrator; None for the primary user.
        connection_limit: How many connections a tenant may have; None for half of those that the server takes.

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

            return PostgresGrants(admin, ca, connection_limit=connection_limit)
        from .mysql import MySQLGrants

        return MySQLGrants(admin, ca, connection_limit=connection_limit)
    except ImportError as error:
        raise ConfigurationError(f"tenants on {engine} need {error.name}: pip install 'aiodbclient[tenants]'") from None


def _primary(engine: Engine | str, connection: Connection) -> str:
    """The DSN of the cluster's primary user, without options for TLS."""
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
