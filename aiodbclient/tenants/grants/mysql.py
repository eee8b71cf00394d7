r"""The rights of a tenant on MySQL or MariaDB: revoke all that the API granted its login, and grant ALL on its schema.

As the administrator (the cluster's primary user: the usual rights WITH GRANT OPTION, no SUPER)::

    REVOKE ALL PRIVILEGES, GRANT OPTION FROM login
    GRANT ALL PRIVILEGES ON `d`.* TO login          in d, ``_``, ``%`` and ``\`` are escaped: GRANT takes a pattern
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomysql  # pyright: ignore[reportMissingTypeStubs]
import pymysql

from ...errors import ConfigurationError, GrantError
from ..credential import verifying_context
from ..naming import Names
from . import CONNECT_SECONDS, Grants, LoginRefusedError


class MySQLGrants(Grants[Any]):
    """The SQL of one MySQL cluster. See ``Grants``.

    Args:
        admin: The DSN of an administrator. Logins are tested on the server that it names.
        ca: The cluster's certificate authority as PEM, by which the server is verified; None: no TLS.

    Raises:
        ConfigurationError: ``admin`` is no DSN.
    """

    def __init__(self, admin: str, ca: str | None) -> None:
        super().__init__(_options(admin))
        self._tls = None if ca is None else verifying_context(ca)

    async def give(self, names: Names, username: str) -> None:
        assert names.database is not None
        async with self._administrator() as server:
            await _run(names, server, "REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", username)
            await _run(names, server, f"GRANT ALL PRIVILEGES ON {_pattern(names.database)}.* TO %s@'%%'", username)

    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        options = self._admin | {"user": username, "password": password, "db": names.database}
        try:
            async with self._turns, self._connected(options):
                return None
        except LoginRefusedError as refused:
            return str(refused)

    async def forget(self, names: Names) -> None:
        """Do nothing: MySQL removes what was granted with the logins."""

    @asynccontextmanager
    async def _connected(self, options: dict[str, Any]) -> AsyncGenerator[Any]:
        try:
            server = await aiomysql.connect(
                **options, ssl=self._tls, charset="utf8mb4", autocommit=True, connect_timeout=CONNECT_SECONDS
            )
        except pymysql.Error as error:
            reason = _reason(error)
        else:
            try:
                yield server
            finally:
                await server.ensure_closed()
            return
        raise LoginRefusedError(reason)


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
    """``schema`` as a quoted pattern for GRANT. Each ``%`` is doubled: the driver formats the statement by ``%``."""
    literal = schema.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
    return "`{}`".format(literal.replace("`", "``").replace("%", "%%"))


async def _run(names: Names, server: Any, statement: str, username: str) -> None:
    """Execute ``statement``, whose one placeholder ``%s`` is the login."""
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
