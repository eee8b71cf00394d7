"""What ``doctor --try`` does by SQL to ask the API about it. Its names need no quoting: ``doctor`` made them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from .. import Connection
from .._libpq import one_line
from ..errors import GrantError
from ..tenants._credential import Secret, verifying_context

# Runs a statement as the administrator, in a database that may be named, and returns its rows. Raises GrantError.
Run: TypeAlias = Callable[..., Awaitable[list[tuple[Any, ...]]]]

POSTGRESQL_SQL = {
    "settings": "SELECT name, setting FROM pg_settings WHERE name IN ('createrole_self_grant', 'max_connections', "
    "'max_prepared_transactions', 'password_encryption')",
    "lock": 'ALTER ROLE "{0}" NOLOGIN',
    "account": "SELECT 'ACCOUNT LOCK' FROM pg_roles WHERE rolname = '{0}' AND NOT rolcanlogin",
    "drop": 'DROP ROLE IF EXISTS "{0}"',
    "create": "CREATE ROLE \"{0}\" LOGIN PASSWORD '{1}'",
    "join": 'GRANT "{0}" TO CURRENT_USER',
    "create database": 'CREATE DATABASE "{0}" TEMPLATE template0',
    "close database": 'REVOKE ALL ON DATABASE "{0}" FROM PUBLIC',
    "drop database": 'DROP DATABASE IF EXISTS "{0}" WITH (FORCE)',
    "own": 'CREATE SCHEMA own AUTHORIZATION "{0}"; SET ROLE "{0}"; CREATE TABLE own.doctor ()',
    "owner": "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'doctor'",
}
MYSQL_SQL = {
    "settings": "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('event_scheduler', 'local_infile', 'partial_revokes', "
    "'sql_mode', 'sql_require_primary_key')",
    "lock": "ALTER USER '{0}'@'%%' ACCOUNT LOCK",
    "account": "SHOW CREATE USER '{0}'@'%%'",
    "drop": "DROP USER IF EXISTS '{0}'@'%%'",
    "grants": "SHOW GRANTS FOR '{0}'@'%%'",
}


def on_postgresql(admin: Secret, ca: str | None) -> Run:
    """Return what runs statements on PostgreSQL. Needs psycopg."""
    import psycopg

    from ..tenants._servers.postgres.sessions import CAFile, admin_options, connect

    options = admin_options(admin)
    file = None if ca is None or "sslmode" in options else CAFile(ca)

    async def run(what: str, *names: str, inside: str | None = None) -> list[tuple[Any, ...]]:
        different = {} if inside is None else {"dbname": inside}
        try:
            async with await connect(options | different, file, 0, "aiodbclient-doctor") as session:
                cursor = await session.execute(POSTGRESQL_SQL[what].format(*names).encode())
                return [] if cursor.description is None else await cursor.fetchall()
        except psycopg.Error as error:
            reason = error.diag.message_primary or one_line(error)
        raise GrantError(f"PostgreSQL refused a statement: {reason}")

    return run


async def enters(
    connection: Connection,
    ca: str | None,
    login: str,
    password: str | None,
    database: str,
    where: tuple[str, int] | None = None,
) -> bool:
    """Whether a login may enter a database of PostgreSQL, or a pool that is ``where``."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    from ..tenants._servers.postgres.sessions import CAFile, clear

    host, port = where or (connection.host, connection.port)
    file = None if ca is None else CAFile(ca)
    verified = {} if file is None else {"sslmode": "verify-full", "sslrootcert": file.path()}
    options: dict[str, Any] = {"host": host, "port": port, "user": login, "dbname": database, "connect_timeout": 10}
    own = Secret(make_conninfo("", **options | verified, password=password))
    try:
        await (await psycopg.AsyncConnection.connect(own)).close()
    except psycopg.OperationalError as error:
        clear(error)  # psycopg's frames hold the password
        return False
    return True


def on_mysql(admin: Secret, ca: str | None) -> Run:
    """Return what runs statements on MySQL and MariaDB. Needs aiomysql."""
    from ..tenants._servers.mysql.session import opened, options_of
    from ..tenants._servers.server import LoginRefusedError, ServerAwayError

    tls = None if ca is None else verifying_context(ca)

    async def run(what: str, *names: str) -> list[tuple[Any, ...]]:
        try:
            session = await opened(options_of(admin), tls, prepared=True)
        except (LoginRefusedError, ServerAwayError) as error:
            reason = str(error)
        else:
            try:
                return await session.rows(MYSQL_SQL[what].format(*names))
            finally:
                await session.aclose()
        raise GrantError(f"the administrator cannot log in: {reason}")

    return run
