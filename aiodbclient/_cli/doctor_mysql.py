"""``MySQLSql``: what ``doctor --try`` does by SQL on MySQL and MariaDB to ask the API about it. Needs aiomysql."""

from __future__ import annotations

from typing import Any

from ..errors import GrantError
from ..tenants._credential import Secret, verifying_context
from ..tenants._servers.mysql.session import opened, options_of
from ..tenants._servers.server import LoginRefusedError, ServerAwayError

_SETTINGS = "'event_scheduler', 'local_infile', 'partial_revokes', 'sql_mode', 'sql_require_primary_key'"


class MySQLSql:
    """The administrator of a cluster."""

    def __init__(self, admin: Secret, ca: str | None) -> None:
        self._options = options_of(admin)
        self._tls = None if ca is None else verifying_context(ca)

    async def settings(self) -> str:
        """The settings of the server that nobody has seen, as text."""
        rows = await self._run(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({_SETTINGS})")
        return ", ".join(f"{name}={value or 'none'}" for name, value in sorted(rows))

    async def shut(self, login: str) -> None:
        """Lock a login."""
        await self._run("ALTER USER %s@'%%' ACCOUNT LOCK", login)

    async def is_shut(self, login: str) -> bool:
        """Whether a login is locked."""
        return "ACCOUNT LOCK" in str(await self._run("SHOW CREATE USER %s@'%%'", login))

    async def drop(self, login: str) -> None:
        """Drop a login, if it exists."""
        await self._run("DROP USER IF EXISTS %s@'%%'", login)

    async def grants(self, login: str) -> str:
        """What a login may do, as text without its name."""
        rows = [str(grant).partition(" TO ")[0] for (grant,) in await self._run("SHOW GRANTS FOR %s@'%%'", login)]
        return "; ".join(rows)

    async def _run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            session = await opened(self._options, self._tls, prepared=True)
        except (LoginRefusedError, ServerAwayError) as error:
            reason = str(error)
        else:
            try:
                return await session.rows(statement, *values)
            finally:
                await session.aclose()
        raise GrantError(f"the administrator cannot log in: {reason}")
