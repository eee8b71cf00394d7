"""What a tenant leaves on the server that acts after its sessions have ended.

- Code that runs as a login: events, routines, views and triggers. It keeps the name of the login, even of a deleted
  one. The API gives a new login all rights for a moment, and such code would have them too.
- Events that set the password of a login. They run even while the login is locked.
- Prepared transactions, which keep their locks.
"""

from __future__ import annotations

import re

import pymysql

from .mysql_server import MySQLSession, Work, quoted, reason_of

# These set a password: SET PASSWORD, ALTER USER ... IDENTIFIED, or a statement that is built at run time.
# Functions and triggers cannot do any of this.
_SETS = re.compile(r"\b(PASSWORD|IDENTIFIED|PREPARE|EXECUTE)\b", re.IGNORECASE)
# These begin an event of one statement, which calls no procedure. None of the words can be a label or a procedure.
_ONE_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_EXACTLY = "COLLATE utf8mb4_bin"  # MariaDB's information_schema ignores case and accents: other tenants' would count
_LOCKED = 1205
_TABLES = 100  # how many tables one statement locks
_SHOWN = 3  # how many objects an error names

# Where each kind of code names who it runs as. Only a login with rights on every schema could leave routines and events
# elsewhere. A search of all views and triggers would open each table of the server.
_CODE = (
    ("ROUTINE_TYPE", "ROUTINE_SCHEMA", "ROUTINE_NAME", "ROUTINES", ""),
    ("'EVENT'", "EVENT_SCHEMA", "EVENT_NAME", "EVENTS", ""),
    ("'VIEW'", "TABLE_SCHEMA", "TABLE_NAME", "VIEWS", "TABLE_SCHEMA"),
    ("'TRIGGER'", "TRIGGER_SCHEMA", "TRIGGER_NAME", "TRIGGERS", "TRIGGER_SCHEMA"),
)


async def check_code(work: Work, username: str) -> None:
    """Refuse to make a login that code on the server runs as."""
    found: list[str] = []
    for kind, schema, name, table, where in _CODE:
        query = f"SELECT {kind}, {schema}, {name} FROM information_schema.{table} WHERE DEFINER = %s {_EXACTLY}"
        rows = await work.rows(
            f"{query} AND {where} = %s" if where else query, f"{username}@%", *([work.schema] if where else [])
        )
        found += [f"{kind} `{schema}`.`{name}`" for kind, schema, name in rows]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise work.error(
            f"the login {username!r} does not exist, and {', '.join(found[:_SHOWN])}{more} run as it: a new login has "
            "all rights in every schema for a moment, and they would have them too. Rotate the tenant to its other "
            f"login, or drop them (DROP {found[0]}), and run it again",
        )


async def check_events(work: Work, username: str) -> None:
    """Refuse a locked login if an event that runs as it could set its password, alone or with a routine's help.

    Unless the event is one statement, it may call any routine of the schema: a call has many forms.
    """
    query = "SELECT EVENT_SCHEMA, EVENT_NAME, EVENT_DEFINITION FROM information_schema.EVENTS WHERE DEFINER = %s "
    events = await work.rows(query + _EXACTLY, f"{username}@%")
    if not events:
        return
    query = "SELECT ROUTINE_DEFINITION FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s "
    routines = [text for (text,) in await work.rows(query + _EXACTLY, work.schema)]
    for schema, name, text in events:
        runs = [text] if text and _ONE_STATEMENT.match(text) else [text, *routines]
        if any(each is None or _SETS.search(each) for each in runs):
            raise work.error(
                f"the event {name!r} runs as the login {username!r} and could set its password, so the login stays "
                f"locked: drop the event (DROP EVENT `{schema}`.`{name}`) and run it again",
            )


async def roll_back_prepared(work: Work, *, before_removal: bool = False) -> None:
    """Roll back prepared transactions whose session has ended, until no table of the schema is locked.

    After ``XA PREPARE`` a transaction keeps its locks, and ``DROP DATABASE`` waits for them. The server does not report
    which tables it changed. So this rolls them back one by one. ``before_removal`` this also makes a schema writable
    that the tenant made read-only.
    """
    if not await _has_locks(work, before_removal):
        return
    try:
        prepared = await _prepared(work.server)
    except pymysql.Error as error:
        reason = f"the prepared transactions cannot be listed: {reason_of(error)} (MySQL asks for XA_RECOVER_ADMIN)"
    else:
        for xid in prepared:
            try:
                await work.server.raw(f"XA ROLLBACK {xid}")
            except pymysql.Error:  # its session is open, or it has ended meanwhile
                continue
            if not await _has_locks(work, before_removal):
                return
        reason = "no prepared transaction could be rolled back"
    raise work.error(
        f"a transaction holds tables of the schema {work.schema!r}, so it cannot be deleted: {reason}; end that "
        "transaction and run it again",
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


async def _has_locks(work: Work, before_removal: bool) -> bool:
    query = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_TYPE NOT LIKE '%%VIEW'"
    tables = [f"{quoted(work.schema)}.{quoted(table)}" for (table,) in await work.rows(query, work.schema)]
    # Without autocommit InnoDB locks the table too. A prepared transaction may hold only that lock.
    await work.rows("SET SESSION autocommit = 0, lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
    try:
        if before_removal and await _waits(work, f"ALTER DATABASE {quoted(work.schema)} READ ONLY = 0"):
            return True
        for start in range(0, len(tables), _TABLES):
            if await _are_locked(work, tables[start : start + _TABLES]):
                return True
        return False
    finally:
        await work.rows("SET SESSION autocommit = 1")
        await work.rows("UNLOCK TABLES")


async def _are_locked(work: Work, tables: list[str]) -> bool:
    """Whether a transaction has a lock on any of these tables.

    WRITE is refused for all of them if one is broken, or has a trigger that names a table of the server's log. READ
    locks nothing that a trigger names, but does not wait for transactions that only read.
    """
    waits = await _waits(work, "LOCK TABLES " + ", ".join(f"{table} WRITE" for table in tables))
    if waits is None and len(tables) > 1:
        for table in tables:
            if await _are_locked(work, [table]):
                return True
        return False
    if waits is None:
        waits = await _waits(work, f"LOCK TABLES {tables[0]} READ")
    return bool(waits)


async def _waits(work: Work, statement: str) -> bool | None:
    """Whether a statement waits for a lock; None if the server refuses it for another reason."""
    try:
        await work.server.raw(statement)
    except pymysql.Error as error:
        return True if error.args and error.args[0] == _LOCKED else None
    return False
