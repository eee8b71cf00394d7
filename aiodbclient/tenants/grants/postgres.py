"""The rights of a tenant on PostgreSQL: a role owns its database, and both of its logins are members of that role.

The sessions of the logins begin as the owner role, so that whatever one of them makes, the other owns too.

As the administrator (the cluster's primary user: LOGIN, CREATEDB, CREATEROLE, no superuser)::

    CREATE ROLE owner NOLOGIN
    GRANT owner TO login
    GRANT owner TO CURRENT_USER WITH SET TRUE       without WITH SET TRUE before PostgreSQL 16, which does not know it
    ALTER DATABASE d OWNER TO owner
    REVOKE ALL ON DATABASE d FROM PUBLIC

and as the login, in its database::

    SET ROLE NONE                                   its sessions may begin as the owner already
    ALTER ROLE CURRENT_USER SET role = 'owner'      only a role itself may do so, since the API made it
    REASSIGN OWNED BY CURRENT_USER TO owner         what it had made before it got the owner role
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier, Literal

from ..._libpq import one_line, options_of
from ...errors import ConfigurationError, GrantError
from ..naming import Names
from . import CONNECT_SECONDS, Grants, LoginRefusedError

_WITH_SET = 16_00_00  # the first server version that knows WITH SET


class PostgresGrants(Grants[AsyncConnection[Any]]):
    """The SQL of one PostgreSQL cluster. See ``Grants``.

    Args:
        admin: The DSN of an administrator. Logins are tested on the server that it names.
        ca: The cluster's certificate authority as PEM, by which the server is verified, unless ``admin`` has an
            ``sslmode``; None: as libpq does by itself.

    Raises:
        ConfigurationError: ``admin`` is no DSN.
    """

    def __init__(self, admin: str, ca: str | None) -> None:
        super().__init__(_options(admin))
        self._ca = None if "sslmode" in self._admin else ca

    async def give(self, names: Names, username: str) -> None:
        assert names.database is not None
        owner, login, database = Identifier(names.owner), Identifier(username), Identifier(names.database)
        async with self._administrator() as server:
            with_set = SQL(" WITH SET TRUE" if server.info.server_version >= _WITH_SET else "")
            found = await _run(
                names, server, SQL("SELECT FROM pg_roles WHERE rolname = {}").format(Literal(names.owner))
            )
            if not found:
                await _run(names, server, SQL("CREATE ROLE {} NOLOGIN").format(owner))
            await _run(names, server, SQL("GRANT {} TO {}").format(owner, login))
            await _run(names, server, SQL("GRANT {} TO CURRENT_USER{}").format(owner, with_set))
            await _run(names, server, SQL("ALTER DATABASE {} OWNER TO {}").format(database, owner))
            await _run(names, server, SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))

    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        options = self._admin | {"user": username, "password": password, "dbname": names.database}
        role, owner = Literal(names.owner), Identifier(names.owner)
        try:
            async with self._turns, self._connected(options) as server:
                await _run(names, server, SQL("SET ROLE NONE"))
                await _run(names, server, SQL("ALTER ROLE CURRENT_USER SET role = {}").format(role))
                await _run(names, server, SQL("REASSIGN OWNED BY CURRENT_USER TO {}").format(owner))
        except LoginRefusedError as refused:
            return str(refused)
        return None

    async def forget(self, names: Names) -> None:
        async with self._administrator() as server:
            await _run(names, server, SQL("DROP ROLE IF EXISTS {}").format(Identifier(names.owner)))

    @asynccontextmanager
    async def _connected(self, options: dict[str, Any]) -> AsyncGenerator[AsyncConnection[Any]]:
        try:
            server = await self._connect(options)
        except psycopg.OperationalError as error:
            reason = one_line(error)
        else:
            # Not ``async with server``, which leaves it open when it is cancelled at its end.
            try:
                yield server
            finally:
                await server.close()
            return
        raise LoginRefusedError(reason)

    async def _connect(self, options: dict[str, Any]) -> AsyncConnection[Any]:
        conninfo = make_conninfo(**options, connect_timeout=CONNECT_SECONDS)
        if self._ca is None:
            return await AsyncConnection.connect(conninfo, autocommit=True)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # libpq takes a file alone
            file.write(self._ca)
            file.flush()
            verifying = make_conninfo(conninfo, sslmode="verify-full", sslrootcert=file.name)
            return await AsyncConnection.connect(verifying, autocommit=True)


def _options(admin: str) -> dict[str, Any]:
    options = options_of(admin)
    if options is None:
        raise ConfigurationError(
            "admin is no DSN of PostgreSQL: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ and / in the "
            "password written as %40 and %2F"
        )
    return options


async def _run(names: Names, server: AsyncConnection[Any], statement: Composed | SQL) -> list[Any]:
    try:
        cursor = await server.execute(statement)
        return [] if cursor.description is None else await cursor.fetchall()
    except psycopg.Error as error:
        reason = error.diag.message_primary or one_line(error)
    text = statement.as_string(server)
    raise GrantError(
        f"tenant {names.tenant!r}: PostgreSQL refused a statement: {reason}", tenant=names.tenant, statement=text
    )
