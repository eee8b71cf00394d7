"""Roll back prepared transactions that hold a schema.

``XA PREPARE`` leaves a transaction that keeps its locks when its session ends. ``DROP DATABASE`` then waits for them. A
server does not say which tables a prepared transaction has changed. So one after the other is rolled back, and only
while a table of the schema is locked.
"""

from __future__ import annotations

import re

import pymysql

from .mysql_server import MySQLSession, quoted

_LOCKED = 1205
_HEX = re.compile(r"0x([0-9A-Fa-f]*)")


async def roll_back_prepared(server: MySQLSession, tenant: str, schema: str) -> None:
    """Roll back prepared transactions whose session has ended, until no table of ``schema`` is locked.

    Args:
        server: The administrator's session.
        tenant: The tenant that the schema is of.
        schema: The schema. Its data is about to be deleted.

    Raises:
        GrantError: A statement was refused.
    """
    for xid in await _prepared(server, tenant):
        if not await _is_locked(server, tenant, schema):
            return
        try:
            await server.raw(f"XA ROLLBACK {xid}")
        except pymysql.Error:  # its session is open, or it has ended
            continue


async def _prepared(server: MySQLSession, tenant: str) -> list[str]:
    """The names of the prepared transactions, as XA ROLLBACK takes them."""
    if server.is_mariadb:
        return [str(row[3]) for row in await server.rows(tenant, "XA RECOVER FORMAT='SQL'")]
    found = []
    for number, first, second, data in await server.rows(tenant, "XA RECOVER CONVERT XID"):
        digits = str(data).removeprefix("0x")
        found.append(f"X'{digits[: 2 * first]}',X'{digits[2 * first : 2 * (first + second)]}',{number}")
    return found


async def _is_locked(server: MySQLSession, tenant: str, schema: str) -> bool:
    query = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_TYPE = 'BASE TABLE'"
    await server.rows(tenant, "SET SESSION lock_wait_timeout = 1")
    for (table,) in await server.rows(tenant, query, schema):
        try:
            await server.raw(f"LOCK TABLES {quoted(schema)}.{quoted(table)} WRITE")
        except pymysql.Error as error:
            if error.args and error.args[0] == _LOCKED:
                return True
        finally:
            await server.raw("UNLOCK TABLES")
    return False
