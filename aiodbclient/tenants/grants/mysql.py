r"""A tenant on MySQL or MariaDB: all that the API granted its login is revoked, and ALL on its one schema granted.

As the administrator (the cluster's primary user: the usual rights WITH GRANT OPTION, no SUPER)::

    REVOKE ALL PRIVILEGES, GRANT OPTION FROM login
    GRANT ALL PRIVILEGES ON `d`.* TO login          in d, ``_``, ``%`` and ``\`` are escaped: GRANT takes a pattern
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomysql  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pymysql

from ...errors import ConfigurationError, GrantError
from ..credential import verified
from ..naming import Names
from . import CONNECT_SECONDS, Grants, LoginRefusedError


class MySQLGrants(Grants[Any]):
    """The SQL of one MySQL cluster. See ``Grants``.

    Args:
        admin: The DSN of an administrator. Logins are tried where it leads.
        ca: The cluster's certificate authority, by which the server is verified.

    Raises:
        ConfigurationError: ``admin`` is no DSN.
    """

    def __init__(self, admin: str, ca: str | None) -> None:
        super().__init__(_options(admin))
        self._tls = None if ca is None else verified(ca)

    async def give(self, names: Names, username: str) -> None:
        assert names.database is not None
        async with self._administrator() as server:
            await _run(names, server, "REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", username)
            await _run(names, server, f"GRANT ALL PRIVILEGES ON {_pattern(names.database)}.* TO %s@'%%'", username)

    async def enter(self, names: Names, username: str, password: str) -> str | None:
        options = self._admin | {"user": username, "password": password, "db": names.database}
        try:
            async with self._turns, self._connected(options):
                return None
        except LoginRefusedError as refused:
            return str(refused)

    async def forget(self, names: Names) -> None:
        """Nothing is left on MySQL: what was granted went with the logins."""

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
