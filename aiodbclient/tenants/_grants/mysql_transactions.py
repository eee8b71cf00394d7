"""Roll back prepared transactions that hold a schema.

After ``XA PREPARE`` a transaction keeps its locks even when its session has ended, and ``DROP DATABASE`` waits for
them. The server does not report which tables a prepared transaction changed. So this rolls them back one by one, and
only while a table of the schema is locked. It skips transactions whose session is open.
"""

from __future__ import annotations

import pymysql

from ...errors import GrantError
from .mysql_server import MySQLSession, quoted, reason_of

_LOCKED = 1205
_TABLES = 100  # how many tables one statement locks


async def roll_back_prepared(server: MySQLSession, tenant: str, schema: str) -> None:
    """Roll back prepared transactions whose session has ended, until no table of ``schema`` is locked.

    Args:
        server: The administrator's session.
        tenant: The tenant of the schema.
        schema: The schema. Its data is about to be deleted.

    Raises:
        GrantError: A table is still locked, or the administrator may not list prepared transactions.
    """
    if not await _is_locked(server, tenant, schema):
        return
    try:
        prepared = await _prepared(server)
    except pymysql.Error as error:
        reason = f"the prepared transactions cannot be listed: {reason_of(error)} (MySQL asks for XA_RECOVER_ADMIN)"
    else:
        for xid in prepared:
            try:
                await server.raw(f"XA ROLLBACK {xid}")
            except pymysql.Error:  # its session is open, or it has ended meanwhile
                continue
            if not await _is_locked(server, tenant, schema):
                return
        reason = "no prepared transaction could be rolled back"
    raise GrantError(
        f"tenant {tenant!r}: a transaction holds tables of the schema {schema!r}, so it cannot be deleted: {reason}; "
        "end that transaction and run it again",
        tenant=tenant,
    )


async def _prepared(server: MySQLSession) -> list[str]:
    """Return the names of the prepared transactions in the form of XA ROLLBACK."""
    if server.is_mariadb:
        return [str(row[3]).replace("%", "%%") for row in await server.raw("XA RECOVER FORMAT='SQL'")]
    found = []
    for number, first, second, data in await server.raw("XA RECOVER CONVERT XID"):
        digits = str(data).removeprefix("0x")
        found.append(f"X'{digits[: 2 * first]}',X'{digits[2 * first : 2 * (first + second)]}',{number}")
    return found


async def _is_locked(server: MySQLSession, tenant: str, schema: str) -> bool:
    query = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_TYPE = 'BASE TABLE'"
    tables = [f"{quoted(schema)}.{quoted(table)} WRITE" for (table,) in await server.rows(tenant, query, schema)]
    # Without autocommit InnoDB locks the table too. A prepared transaction may hold only that lock.
    await server.rows(tenant, "SET SESSION autocommit = 0, lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
    try:
        for start in range(0, len(tables), _TABLES):
            await server.raw("LOCK TABLES " + ", ".join(tables[start : start + _TABLES]))
        return False
    except pymysql.Error as error:
        return bool(error.args) and error.args[0] == _LOCKED
    finally:
        await server.rows(tenant, "SET SESSION autocommit = 1")
        await server.rows(tenant, "UNLOCK TABLES")
