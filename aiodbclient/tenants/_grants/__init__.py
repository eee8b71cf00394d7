"""Give a tenant's login its rights: all rights on its own database, none on any other.

``postgres.py`` and ``mysql.py`` do it by SQL, as subclasses of ``Grants``. On the other engines the API does it, with
the settings from ``rights.py``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from attrs import frozen

from ..._dsn import dsn
from ...engines import MYSQL, POSTGRESQL, Engine
from ...errors import ConfigurationError, GrantError, UnsupportedOperationError
from ...models import Connection
from .._credential import Secret
from .._naming import Names
from .._outcomes import Problem
from .rights import SETTINGS
from .shared_sessions import SharedSessions

# How many connections to one server at a time. The rate limit allows two tenants a second, and each needs a connection
# for some milliseconds.
_CONNECTIONS = 4
CONNECT_SECONDS = 10
_NO_ADMINISTRATOR = "the administrator who gives tenants their rights cannot log in"

ServerT = TypeVar("ServerT")


class LoginRefusedError(Exception):
    """The server refuses a login or its password. The message says why and holds no secret."""


class ServerAwayError(Exception):
    """The server is unreachable or has no free connection. The message says why and holds no secret."""


@frozen
class Administrator:
    """The administrator's login, as the server reports it."""

    name: str
    server: str
    lacks: tuple[str, ...]  # the missing rights that tenants need, by the engine's names
    clock: datetime  # of the server, in UTC


def of_tenant(names: Names, reason: str, kind: type[GrantError] = GrantError) -> GrantError:
    """Make the error that names a tenant."""
    return kind(f"tenant {names.tenant!r}: {reason}", tenant=names.tenant)


class Grants(ABC, Generic[ServerT]):
    """The SQL that gives tenants of one cluster their rights.

    Every method is safe to repeat and to cancel, leaves no connection open (see ``shared``), and ends within a bounded
    time. Each raises GrantError if the server is unreachable, or refuses the administrator or a statement.
    """

    needs_password: ClassVar[bool]
    """Whether ``end_login`` logs in as the login, with a password that nobody else knows."""

    def __init__(self, admin: dict[str, Any]) -> None:
        self._admin = admin
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._sessions = SharedSessions(self._log_in, self._close)

    async def why_no_roles(self, names: Names) -> str:
        """Why the tenant's database cannot keep readers and writers within their rights; "" if it can."""
        return ""

    async def open_databases(self) -> tuple[str, ...]:
        """Return the databases that every login may enter, such as ``defaultdb``."""
        return ()

    async def close_database(self, database: str) -> None:
        """Shut every login without a grant of its own out of ``database``, for good. Others may need one."""
        raise NotImplementedError

    async def check(self) -> None:
        """Log in as the administrator, and log out."""
        async with self._administrator():
            pass

    @abstractmethod
    async def connections(self) -> int:
        """How many connections the server allows to all logins together. Any login may ask."""

    def shared(self) -> AbstractAsyncContextManager[None]:
        """Keep the sessions of ``problems`` open for the next tenant, while any task is in such a block."""
        return self._sessions.shared()

    @abstractmethod
    async def administrator(self) -> Administrator:
        """Log in as the administrator, and find out which rights it lacks."""

    async def before_creation(self, names: Names, username: str) -> None:
        """Refuse to let the API make a login that objects of the server already run as."""
        return

    @abstractmethod
    async def give(self, names: Names, username: str) -> None:
        """As the administrator: give ``username`` the rights of its role, and undo settings that would keep it out."""

    @abstractmethod
    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        """Log in as ``username``, and run what only it may run. Return why the server refuses it, or None."""

    @abstractmethod
    async def accepts(self, names: Names, username: str, password: str) -> str | None:
        """Test a password, also if rights of ``username`` are missing. Return why the server refuses it, or None."""

    @abstractmethod
    async def end_login(self, names: Names, username: str, password: str | None) -> str | None:
        """End every session of ``username``, and prevent new ones, even if a session resists. The login stays.

        ``password`` is None if ``needs_password`` is false, or if sessions of the login change it faster than the API
        does. Returns None, or why a session was faster: reset it and call this again. GrantError: only the provider
        can end its sessions, or it still owns something.
        """

    @abstractmethod
    async def end_sessions(self, names: Names, username: str, password: str) -> str | None:
        """Before ``give``: end the sessions of a login that was out of use, and was reset to ``password``.

        One of them could set another password once the login has its rights. Returns None, or why the password is
        refused, since a session was faster.
        """

    async def has_expired(self, names: Names, username: str) -> bool:
        """Whether no password of ``username`` is accepted any more, so that it must be created again."""
        return False

    async def before_deletion(self, names: Names, username: str) -> None:
        """Refuse to let the API delete an ended login of which something would become the administrator's."""
        return

    @abstractmethod
    async def problems(self, names: Names, usernames: Sequence[str]) -> frozenset[Problem]:
        """Compare the rights on the server, of these existing logins, with those that ``give`` gives."""

    async def reclaim(self, names: Names) -> None:
        """Repair OWNED_BY_OTHERS and TOO_MANY_RIGHTS, and revoke who can become a login of the tenant."""

    @abstractmethod
    async def shut_out(self, names: Names, keep: Collection[str]) -> tuple[str, ...]:
        """Return the logins and roles that lose access to the database with ``take_over`` and ``give``."""

    @abstractmethod
    async def take_over(self, names: Names, username: str, adopted: Collection[str] = ()) -> None:
        """Before ``give`` takes over an existing login: give the tenant all rights that it has now.

        ``adopted`` has the logins that keep their passwords. Others of the tenant may lose their rights.
        """

    @abstractmethod
    async def before_removal(self, names: Names) -> None:
        """Remove what prevents the API from deleting the tenant's database, such as a prepared transaction."""

    @abstractmethod
    async def shut(self, names: Names) -> None:
        """After the logins of a role were ended: let nobody else keep access to what was theirs, nor a session."""

    @abstractmethod
    async def release(self, names: Names) -> None:
        """Instead of ``forget``, for a database that stays: leave it to nobody who can log in."""

    @abstractmethod
    async def forget(self, names: Names) -> None:
        """Remove everything that ``give`` created for this role. The database of an owner is gone already."""

    @abstractmethod
    async def _open(self, options: dict[str, Any]) -> ServerT:
        """Log in with these options of the driver. Raises LoginRefusedError or ServerAwayError."""

    @abstractmethod
    async def _close(self, server: ServerT) -> None:
        """Close a connection, even if this is cancelled."""

    @abstractmethod
    def _connected(self, options: dict[str, Any]) -> AbstractAsyncContextManager[ServerT]:
        """Log in as ``_open`` does, and close the connection at the end."""

    @asynccontextmanager
    async def _administrator(self, turns: asyncio.Semaphore | None = None, **options: Any) -> AsyncGenerator[ServerT]:
        """Wait for a turn (of ``turns``, if given) and log in as the administrator. ``options`` replace its own."""
        try:
            async with turns or self._turns, self._connected(self._admin | options) as server:
                yield server
                return
        except (LoginRefusedError, ServerAwayError) as refused:
            reason = str(refused)
        raise GrantError(f"{_NO_ADMINISTRATOR}, or was cut off: {reason}")

    async def _log_in(self) -> ServerT:
        try:
            return await self._open(self._admin)
        except (LoginRefusedError, ServerAwayError) as refused:
            reason = str(refused)
        raise GrantError(f"{_NO_ADMINISTRATOR}: {reason}")


def sql_grants(
    engine: Engine | str, connection: Connection, ca: str | None, admin: str | None, connection_limit: int | None
) -> Grants[Any] | None:
    """Return the SQL for a cluster, or None if the API gives the rights (``SETTINGS``). This imports the driver."""
    if engine in SETTINGS:
        return None
    if engine not in POSTGRESQL | MYSQL:
        raise UnsupportedOperationError(
            f"tenants: {engine} is not supported; nothing was created",
            engine=engine,
            operation="tenants",
        )
    admin = Secret(_primary(engine, connection) if admin is None else admin)  # a traceback may show it
    try:
        if engine in POSTGRESQL:
            from .postgres import PostgresGrants

            return PostgresGrants(admin, ca, connection_limit=connection_limit)
        from .mysql import MySQLGrants

        return MySQLGrants(admin, ca, connection_limit=connection_limit)
    except ImportError as error:
        raise ConfigurationError(f"tenants on {engine} need {error.name}: pip install 'aiodbclient[tenants]'") from None


def _primary(engine: Engine | str, connection: Connection) -> str:
    """Return the DSN of the cluster's primary user, without TLS options."""
    if not (connection.user and connection.password):
        raise ConfigurationError(
            "the API does not return the password of the primary user, who grants tenants their rights: give the token "
            "the scope database:view_credentials, or pass admin=, the DSN of an administrator"
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
