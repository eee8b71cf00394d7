"""A tenant on MySQL or MariaDB: all that the API granted its login is revoked, and ALL on its one schema granted.

As the administrator (the cluster's primary user: the usual rights WITH GRANT OPTION, no SUPER)::

    REVOKE ALL PRIVILEGES, GRANT OPTION FROM login
    GRANT ALL PRIVILEGES ON `d`.* TO login          in d, ``_``, ``%`` and ``\\`` are escaped: GRANT takes a pattern
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomysql  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pymysql

from ...errors import ConfigurationError, GrantError
from ...models import Connection
from ..credential import verified
from ..naming import Names
from . import CONNECTIONS

_CONNECT_SECONDS = 10


class MySQLGrants:
    """The SQL of one MySQL cluster. See ``Grants``.

    Args:
        connection: Where the cluster listens, and its primary user.
        ca: The cluster's certificate authority, by which the server is verified.
        admin: The DSN of an administrator; None for the primary user. Logins are tried where it leads.
    """

    def __init__(self, connection: Connection, ca: str | None, admin: str | None) -> None:
        if admin is None:
            self._admin: dict[str, Any] = {
                "host": connection.host,
                "port": connection.port or 3306,
                "user": connection.user,
                "password": connection.password,
            }
        else:
            self._admin = _options(admin)
        self._tls = None if ca is None else verified(ca)
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def check(self) -> None:
        async with self._administrator():
            pass

    async def give(self, names: Names, username: str) -> None:
        assert names.database is not None
        async with self._administrator() as server:
            await _run(names, server, "REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", username)
            await _run(names, server, f"GRANT ALL PRIVILEGES ON {_pattern(names.database)}.* TO %s@'%%'", username)

    async def enter(self, names: Names, username: str, password: str) -> str | None:
        options = self._admin | {"user": username, "password": password, "db": names.database}
        async with self._turns:
            try:
                connected = await self._connect(options)
            except pymysql.Error as error:
                return _reason(error)
            await connected.ensure_closed()
        return None

    async def forget(self, names: Names) -> None:
        """Nothing is left on MySQL: what was granted went with the logins."""

    @asynccontextmanager
    async def _administrator(self) -> AsyncGenerator[Any]:
        async with self._turns:
            try:
                server = await self._connect(self._admin)
            except pymysql.Error as error:
                reason = _reason(error)
            else:
                try:
                    yield server
                finally:
                    await server.ensure_closed()
                return
        raise GrantError(f"the administrator who gives tenants their rights cannot log in: {reason}")

    async def _connect(self, options: dict[str, Any]) -> Any:
        return await aiomysql.connect(
            **options, ssl=self._tls, charset="utf8mb4", autocommit=True, connect_timeout=_CONNECT_SECONDS
        )


def _options(admin: str) -> dict[str, Any]:
    try:
        parts = urlsplit(admin)
        if parts.scheme in ("mysql", "mariadb") and parts.hostname and parts.username:
            return {
                "host": parts.hostname,
                "port": parts.port or 3306,
                "user": unquote(parts.username),
                "password": unquote(parts.password or ""),
            }
    except ValueError:  # it may quote the DSN, and so a password
        pass
    raise ConfigurationError("admin is no DSN of MySQL: mysql://USER:PASSWORD@HOST:PORT")


def _pattern(schema: str) -> str:
    """``schema`` as GRANT takes it, quoted, and for the driver, which quotes values alone and formats with ``%``."""
    literal = schema.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
    return "`{}`".format(literal.replace("`", "``").replace("%", "%%"))


async def _run(names: Names, server: Any, statement: str, username: str) -> None:
    """Execute ``statement``, in which ``%`` is the driver's, with the login as its one value."""
    try:
        async with server.cursor() as cursor:
            await cursor.execute(statement, (username,))
            return
    except pymysql.Error as error:
        reason = _reason(error)
    raise GrantError(
        f"tenant {names.tenant!r}: MySQL refused a statement: {reason}",
        tenant=names.tenant,
        statement=statement % repr(username),
    )


def _reason(error: pymysql.Error) -> str:
    return str(error.args[-1]) if error.args else type(error).__name__
