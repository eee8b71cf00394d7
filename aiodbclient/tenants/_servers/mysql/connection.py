"""A session on a MySQL server: every statement is bounded in time, and its errors name the tenant.

A tenant can hold locks. So the server stops waiting for a lock after some seconds, and the client closes the connection
if an answer takes longer.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import aiomysql  # pyright: ignore[reportMissingTypeStubs]
import pymysql
from attrs import frozen
from pymysql.constants import CLIENT, CR

from ...._dsn import mysql_parts
from ...._masking import Secret
from ....errors import ConfigurationError
from ..._naming import Names
from ...errors import GrantError
from .. import SHARE_OF_CONNECTIONS, BaseTenant, LoginRefusedError, ServerUnreachableError, SessionLostError, of_tenant

CONNECT_SECONDS = 10
LOCK_SECONDS = 3  # the longest wait of a statement for a lock
STATEMENT_SECONDS = 10  # the longest wait for the answer to a statement


class PasswordAcceptedError(LoginRefusedError):
    """The server accepts the password, but refuses the login for another reason."""


class DefinerError(GrantError):
    """A view runs as the login of DROP USER."""


class LockedError(GrantError):
    """Another session holds a lock that the statement needs."""


# MySQL 8 manual, "Server Error Message Reference".
_ERRORS: Mapping[object, type[GrantError]] = {4006: DefinerError, 1205: LockedError}
_ENDED = (1053, 4031)  # the session: the server stops, somebody killed it, or it was idle for too long
_REFUSALS: Mapping[object, type[LoginRefusedError]] = {
    1044: PasswordAcceptedError,  # the schema is closed to the login
    1045: LoginRefusedError,  # wrong password, or no such account
    1049: PasswordAcceptedError,  # there is no such schema
    1130: LoginRefusedError,  # this host is not allowed
    1203: PasswordAcceptedError,  # the login reached its limit of connections
    1226: PasswordAcceptedError,  # the same
    1251: LoginRefusedError,  # the account's authentication plugin is not supported
    1396: LoginRefusedError,  # the account is missing
    1862: LoginRefusedError,  # the password has expired
    2059: LoginRefusedError,  # the driver does not support the account's authentication plugin
    3118: LoginRefusedError,  # the account is locked
    3159: LoginRefusedError,  # the server requires TLS
    3955: LoginRefusedError,  # the account is locked after too many wrong passwords
}
# As far as the server says it.
_LOCK_HOLDERS = """
SELECT DISTINCT PROCESSLIST_USER FROM performance_schema.metadata_locks
JOIN performance_schema.threads ON THREAD_ID = OWNER_THREAD_ID
WHERE OBJECT_SCHEMA COLLATE utf8mb4_bin IN ('mysql', %s) AND LOCK_STATUS = 'GRANTED'
AND PROCESSLIST_ID <> CONNECTION_ID()
"""
# What aiomysql raises in addition to its own errors, for example if the server speaks another protocol.
_NOT_MYSQL = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, struct.error)


class Cursor(aiomysql.Cursor):  # type: ignore[misc]  # aiomysql has no types
    """A cursor that ignores the warnings of the server."""

    async def _show_warnings(self, conn: Any) -> None:
        """Do nothing: aiomysql would raise a Python warning for each note of the server."""


class Session(aiomysql.Connection):  # type: ignore[misc]  # aiomysql has no types
    """A session that closes at once, leaks nothing if its login fails, and verifies the server or sends no login."""

    literal_names = False  # whether GRANT takes the name of a schema as it is, and not as a pattern
    max_connections = 0  # of the server

    def close(self) -> None:
        """Close the connection at once. aiomysql would first wait for the server, which may hang."""
        if self._writer:
            self._writer.transport.abort()
        super().close()

    async def _request_authentication(self) -> None:
        try:
            context: ssl.SSLContext | None = self._ssl_context
            if context is not None and context.verify_mode and not self.server_capabilities & CLIENT.SSL:
                # aiomysql would log in without TLS
                raise pymysql.OperationalError(CR.CR_SSL_CONNECTION_ERROR, "the server does not support TLS")
            await super()._request_authentication()
        except BaseException:
            self.close()
            raise

    async def log_in(self, *, prepared: bool) -> None:
        """Log in. If ``prepared``, limit the waits of the session, and read the settings of the server."""
        await self._connect()  # aiomysql.connect leaks the connection if it is cancelled
        if not prepared:
            return
        # The server's mode changes what quotes and || mean, and SHOW GRANTS.
        await self.rows(
            f"SET SESSION autocommit = 1, sql_mode = '', lock_wait_timeout = {LOCK_SECONDS}, "
            f"innodb_lock_wait_timeout = {LOCK_SECONDS}, max_execution_time = {STATEMENT_SECONDS * 1000}, "
            "information_schema_stats_expiry = 0"  # otherwise sizes are up to a day old
        )
        query = "SELECT @@partial_revokes = 1, @@max_connections"
        [(self.literal_names, self.max_connections)] = await self.rows(query)

    async def rows(
        self,
        statement: str,
        *values: object,
        fine: Collection[int] = (),
        tenant: str = "",
        seconds: float | None = None,
    ) -> list[tuple[Any, ...]]:
        """Execute ``statement`` with a value for each ``%s``, and return its rows, or none after a ``fine`` error."""
        try:
            async with asyncio.timeout(seconds or STATEMENT_SECONDS), self.cursor() as cursor:
                await cursor.execute(statement, values)
                return list(await cursor.fetchall())
        except pymysql.Error as error:
            code, reason = error.args[0], str(error.args[-1])  # no password
            if code in fine:
                return []
            is_lost = self.closed or code in _ENDED
            kind = SessionLostError if is_lost else _ERRORS.get(code, GrantError)
        except TimeoutError:
            kind, reason = GrantError, f"no answer within {seconds or STATEMENT_SECONDS} seconds"
        except BaseException as error:
            error.__traceback__ = None  # the driver's frames show the values
            raise
        # The repr of a ``Secret`` hides it.
        of, shown = f"tenant {tenant!r}: " if tenant else "", statement % tuple(map(repr, values))
        raise kind(f"{of}MySQL refused a statement: {reason}", tenant=tenant, statement=shown)

    async def aclose(self) -> None:
        """Log out, so that the server reports no broken connection, and close the connection even if cancelled."""
        try:
            with suppress(OSError, pymysql.Error):
                await self.ensure_closed()
        finally:
            self.close()


@frozen
class Schema:
    """The schema of a tenant, in a session of the administrator that works on it."""

    session: Session
    tenant: BaseTenant
    log_in: Callable[[str, Secret], Awaitable[Session]]  # as a login, and run no statement
    limit: int | None  # of the connections of a login

    @property
    def names(self) -> Names:
        return self.tenant.names

    @property
    def name(self) -> str:
        return self.tenant.names.database

    @property
    def in_grant(self) -> str:
        r"""The schema as GRANT takes it: with ``_``, ``%`` and ``\`` escaped where that is a pattern."""
        if self.session.literal_names:
            return self.name
        return self.name.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")

    def error(self, reason: str) -> GrantError:
        return of_tenant(self.names, reason)

    @property
    def most(self) -> int:
        """How many connections a login may have. With 0, MySQL would not count them, so no limit could stop them."""
        return max(2, int(self.session.max_connections * SHARE_OF_CONNECTIONS)) if self.limit is None else self.limit

    async def run(
        self, statement: str, *values: object, fine: Collection[int] = (), seconds: float | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement while the claim holds. If a lock is in the way, the error names who holds locks."""
        self.tenant.check_lease()
        try:
            return await self.session.rows(statement, *values, fine=fine, tenant=self.names.tenant, seconds=seconds)
        except LockedError as locked:
            reason = str(locked)
        holders = await self.session.rows(_LOCK_HOLDERS, self.name, tenant=self.names.tenant)
        if holders:
            reason += f". These logins hold locks: {', '.join(sorted(repr(user) for (user,) in holders))}"
        else:  # whoever knows the name of the transaction can commit it
            reason += (
                ". No session holds one, but a prepared transaction (XA) may. Run XA ROLLBACK with its name, or ask "
                "the provider to: XA RECOVER lists it to XA_RECOVER_ADMIN. Then run this again"
            )
        raise LockedError(reason, tenant=self.names.tenant)


async def connect(options: dict[str, Any], tls: ssl.SSLContext | None, *, prepared: bool) -> Session:
    """Log in with these options of the driver. An account that may run no statement cannot be ``prepared``."""
    # autocommit=None: otherwise the driver sends a statement, which an account at its limit cannot run.
    settings: dict[str, Any] = {"ssl": tls, "charset": "utf8mb4", "autocommit": None, "cursorclass": Cursor}
    session = Session(**options, **settings)
    refused: LoginRefusedError | ServerUnreachableError
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await session.log_in(prepared=prepared)
            return session
    except pymysql.Error as error:
        refused = _REFUSALS.get(error.args[0], ServerUnreachableError)(str(error.args[-1]))
    except GrantError as error:
        refused = ServerUnreachableError(str(error))
    except TimeoutError:
        refused = ServerUnreachableError(f"no answer within {CONNECT_SECONDS} seconds")
    except _NOT_MYSQL as error:
        refused = ServerUnreachableError(f"the server is not MySQL ({type(error).__name__})")
    except BaseException as error:
        session.close()
        error.__traceback__ = None  # the driver's frames show the password
        raise
    session.close()
    raise refused


def options_of(admin: str) -> dict[str, Any]:
    admin = Secret(admin)
    parts = mysql_parts(admin)
    if parts is None:
        raise ConfigurationError(
            "admin is not a DSN of MySQL: mysql://USER:PASSWORD@HOST:PORT, with / ? and # in the password written as "
            "%2F, %3F and %23"
        )
    return {
        "host": parts.hostname,
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": Secret(unquote(parts.password or "")),
    }


def identifier(name: str) -> str:
    """Return ``name`` as an identifier. Each ``%`` is doubled, because the driver formats statements with ``%``."""
    return "`{}`".format(name.replace("`", "``")).replace("%", "%%")
