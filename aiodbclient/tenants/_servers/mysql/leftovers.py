"""What a tenant leaves on the server that acts after its sessions have ended.

- Events, routines, views and triggers. They run as the login that made them, which must keep its rights for those of
  others to work.
- A schema that is read-only.
- Prepared transactions, which keep their locks.
"""

from __future__ import annotations

import pymysql

from .session import LOCK_SECONDS, Schema, Session, identifier, reason_of

EXACTLY = "COLLATE utf8mb4_bin"  # MariaDB's information_schema ignores case and accents: other tenants' would count
_LOCKED = 1205
_TABLES = 100  # how many tables one statement locks

# Where each kind of code names who it runs as. A search of all views and triggers would open each table of the server.
_CODE = (
    ("ROUTINES", "ROUTINE_SCHEMA"),
    ("EVENTS", "EVENT_SCHEMA"),
    ("VIEWS", "TABLE_SCHEMA"),
    ("TRIGGERS", "TRIGGER_SCHEMA"),
)


async def has_code(schema: Schema, login: str) -> bool:
    """Whether code in the tenant's schema runs as the login."""
    for table, where in _CODE:
        query = f"SELECT 1 FROM information_schema.{table} WHERE {where} = %s AND DEFINER = %s {EXACTLY} LIMIT 1"
        if await schema.read(query, schema.name, f"{login}@%"):
            return True
    return False


async def make_writable(schema: Schema) -> None:
    """Undo ``ALTER DATABASE ... READ ONLY = 1``, which a tenant may run on MySQL."""
    if await _is_read_only(schema):
        await schema.change(f"ALTER DATABASE {identifier(schema.name)} READ ONLY = 0")


async def _is_read_only(schema: Schema) -> bool:
    if schema.session.is_mariadb:
        return False
    query = "SELECT OPTIONS FROM information_schema.SCHEMATA_EXTENSIONS WHERE SCHEMA_NAME = %s"
    return any("READ ONLY=1" in (options or "") for (options,) in await schema.read(query, schema.name))


async def roll_back_prepared(schema: Schema) -> str:
    """Roll back prepared transactions whose session has ended, until no table of the schema is locked.

    After ``XA PREPARE`` a transaction keeps its locks. The server does not report which tables it changed. So this
    rolls them back one by one. Returns why tables are locked still, or "".
    """
    if not await _has_locks(schema):
        return ""
    held = f"a transaction holds tables of the schema {schema.name!r}"
    try:
        prepared = await _prepared(schema.session)
    except pymysql.Error as error:
        return (
            f"{held}, and MySQL lists prepared transactions only to XA_RECOVER_ADMIN ({reason_of(error)}): if it "
            "wrote something, SHOW BINLOG EVENTS has its name (XA PREPARE ...); run XA ROLLBACK with it, or ask the "
            "provider, and run this again"
        )
    for xid in prepared:
        schema.work.check()
        try:
            await schema.session.raw(f"XA ROLLBACK {xid}")
        except pymysql.Error:  # its session is open, or it has ended meanwhile
            continue
        if not await _has_locks(schema):
            return ""
    return f"{held}, and no prepared transaction could be rolled back; end that transaction and run it again"


async def _prepared(session: Session) -> list[str]:
    """Return the names of the prepared transactions in the form of XA ROLLBACK."""
    if session.is_mariadb:
        return [str(row[3]).replace("%", "%%") for row in await session.raw("XA RECOVER FORMAT='SQL'")]
    found = []
    for number, first, second, data in await session.raw("XA RECOVER CONVERT XID"):
        digits = str(data).removeprefix("0x")
        found.append(f"X'{digits[: 2 * first]}',X'{digits[2 * first : 2 * (first + second)]}',{number}")
    return found


async def _has_locks(schema: Schema) -> bool:
    query = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_TYPE NOT LIKE '%%VIEW'"
    tables = [f"{identifier(schema.name)}.{identifier(table)}" for (table,) in await schema.read(query, schema.name)]
    # Without autocommit InnoDB locks the table too. A prepared transaction may hold only that lock.
    await schema.read("SET SESSION autocommit = 0, lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
    try:
        writable = f"ALTER DATABASE {identifier(schema.name)} READ ONLY = 0"
        if await _is_read_only(schema) and await _waits(schema, writable):
            return True
        for start in range(0, len(tables), _TABLES):
            if await _are_locked(schema, tables[start : start + _TABLES]):
                return True
        return False
    finally:
        await schema.read(
            f"SET SESSION autocommit = 1, lock_wait_timeout = {LOCK_SECONDS}, innodb_lock_wait_timeout = {LOCK_SECONDS}"
        )
        await schema.read("UNLOCK TABLES")


async def _are_locked(schema: Schema, tables: list[str]) -> bool:
    """Whether a transaction has a lock on any of these tables.

    WRITE is refused for all of them if one is broken, or has a trigger that names a table of the server's log. READ
    locks nothing that a trigger names, but does not wait for transactions that only read.
    """
    waits = await _waits(schema, "LOCK TABLES " + ", ".join(f"{table} WRITE" for table in tables))
    if waits is None and len(tables) > 1:
        for table in tables:
            if await _are_locked(schema, [table]):
                return True
        return False
    if waits is None:
        waits = await _waits(schema, f"LOCK TABLES {tables[0]} READ")
    return bool(waits)


async def _waits(schema: Schema, statement: str) -> bool | None:
    """Whether a statement waits for a lock; None if the server refuses it for another reason."""
    try:
        await schema.session.raw(statement)
    except pymysql.Error as error:
        return True if error.args and error.args[0] == _LOCKED else None
    return False
