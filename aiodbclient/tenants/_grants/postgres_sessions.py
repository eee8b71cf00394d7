"""Connect to a tenant's PostgreSQL: verified, bounded in time, and protected from the tenant's settings and code.

A tenant owns its database. It may set ``search_path``, ``statement_timeout`` or ``role`` on it, and plant functions and
operators in it. So every session here sets its own value for each such setting: client options override the settings of
a database and of a role.
"""

from __future__ import annotations

import os
import tempfile
import traceback
import weakref
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

import psycopg
from attrs import frozen
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier

from ..._libpq import one_line, options_of
from ...errors import ConfigurationError, GrantError
from .._naming import Names
from . import CONNECT_SECONDS, of_tenant
from .shared_sessions import SessionLostError

WITH_OPTIONS = 16_00_00  # the first server version with WITH INHERIT and WITH SET
SESSION_SECONDS = 30.0  # s for everything in one session
ENDING_SECONDS = 600.0  # the same for a session that waits for the API and its rate limit
_LOCK_SECONDS = 0.5  # s that a statement waits for a lock; a hostile session may hold it forever
_STATEMENT_SECONDS = 10.0
_STATEMENT_CHARACTERS = 1_000  # of a refused statement in an error

_SETTINGS = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "standard_conforming_strings": "on",
    "local_preload_libraries": "",
    "lock_timeout": f"{_LOCK_SECONDS * 1000:.0f}",
    "statement_timeout": f"{_STATEMENT_SECONDS * 1000:.0f}",
    "client_connection_check_interval": "1000",
}
# The server ends a session whose client has vanished.
_IDLE = ("idle_in_transaction_session_timeout", "idle_session_timeout")
_SINCE_17 = "transaction_timeout"  # an older server refuses an unknown setting
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}

# A lock timeout, a statement timeout, a serialization failure and a deadlock.
_BLOCKED = {"55P03", "57014", "40001", "40P01"}
_SAME_ROW = "tuple concurrently"  # PostgreSQL does not translate its internal errors


class BlockedError(GrantError):
    """Another session holds a lock that the statement needs."""


class CAFile:
    """A temporary file with the cluster's CA certificate, because libpq only takes a file. Deleted with this object.

    Keep it while connections are open: to cancel a statement, libpq opens another connection.
    """

    def __init__(self, ca: str) -> None:
        self._ca = ca
        self._path: str | None = None

    def path(self) -> str:
        """Return the path of the file. If something deleted the file, write it again."""
        if self._path is None or not os.path.exists(self._path):
            handle, self._path = tempfile.mkstemp(prefix="aiodbclient-", suffix=".pem")
            with open(handle, "w") as file:
                file.write(self._ca)
            weakref.finalize(self, _unlink, self._path)
        return self._path


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def admin_options(admin: str) -> dict[str, Any]:
    """Return the options of the DSN ``admin``. Raises ConfigurationError if it is none."""
    options = options_of(admin)
    if options is None:
        raise ConfigurationError(
            "admin is not a DSN of PostgreSQL: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ and / in the "
            "password written as %40 and %2F"
        )
    return options


async def connect(
    options: dict[str, Any], ca: CAFile | None, version: int = 0, seconds: float = SESSION_SECONDS
) -> AsyncConnection[Any]:
    """Connect with these options and ``_SETTINGS``, verify the server by ``ca`` if given, and close what is half-made.

    The session may be idle, or in a transaction, for ``seconds``. A ``version`` of 0 is unknown.
    """
    settings = _SETTINGS | dict.fromkeys((*_IDLE, _SINCE_17) if version >= 17_00_00 else _IDLE, f"{seconds * 1000:.0f}")
    given = " ".join([str(options.get("options") or ""), *(f"-c {name}={value}" for name, value in settings.items())])
    verified = {} if ca is None else {"sslmode": "verify-full", "sslrootcert": ca.path()}
    conninfo = make_conninfo(
        "",
        **_KEEPALIVE | options | verified,
        client_encoding="utf8",
        options=given,
        connect_timeout=CONNECT_SECONDS,
    )
    try:
        return await AsyncConnection.connect(conninfo, autocommit=True)
    except BaseException as error:
        # psycopg's frames and its error hold the half-made connection, in a cycle.
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, psycopg.Error) and error.pgconn is not None:
            error.pgconn.finish()
        raise


def quoted(text: Any) -> SQL:
    """Return SQL from the server itself: a privilege, or a quoted name."""
    return SQL(text)


@frozen
class Session:
    """A session on the server, at work for one tenant."""

    names: Names
    server: AsyncConnection[Any]

    @property
    def login(self) -> str:
        """Who logged in."""
        return self.server.info.user

    @property
    def knows_options(self) -> bool:
        """Whether the server supports ``WITH INHERIT`` and ``WITH SET``. Without them, members inherit and may set."""
        return self.server.info.server_version >= WITH_OPTIONS

    async def run(self, statement: Composed | SQL, *values: Any) -> list[Any]:
        """Execute ``statement`` and return its rows."""
        kind: type[GrantError] = GrantError
        try:
            cursor = await self.server.execute(statement, values or None)
            return [] if cursor.description is None else await cursor.fetchall()
        except psycopg.Error as error:
            reason = error.diag.message_primary or one_line(error)
            if error.sqlstate in _BLOCKED or reason.startswith(_SAME_ROW):
                kind, reason = BlockedError, f"{reason} (another session holds a lock that it needs)"
            elif self.server.closed:
                kind = SessionLostError
        raise kind(
            f"tenant {self.names.tenant!r}: PostgreSQL refused a statement: {reason}",
            tenant=self.names.tenant,
            statement=statement.as_string(None)[:_STATEMENT_CHARACTERS],
        )

    def error(self, reason: str, kind: type[GrantError] = GrantError) -> GrantError:
        """Make an error that names the tenant."""
        return of_tenant(self.names, reason, kind)

    async def become(self, role: str) -> None:
        """Continue as ``role`` until ``RESET ROLE``."""
        await self.run(SQL("SET ROLE {}").format(Identifier(role)))

    async def reset_role(self) -> None:
        """Continue as the login itself."""
        await self.run(SQL("RESET ROLE"))


class Opener(Protocol):
    """Opens sessions of the administrator for one tenant. ``options`` replace the administrator's own."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[Session]: ...
