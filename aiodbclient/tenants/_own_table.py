"""A table of this package's own in PostgreSQL, which others may have planted. Needs psycopg."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, LiteralString

from psycopg import AsyncConnection, errors
from psycopg.sql import SQL, Identifier

_TRIES = 5  # of creating it; others may create and drop it at the same time
# Who owns the schema can replace the table. The owner of the database and superusers can do so anyway.
_TRUSTED = (
    "{} IN (SELECT oid FROM pg_roles WHERE rolsuper OR rolname IN (current_user, 'pg_database_owner')"
    " UNION SELECT datdba FROM pg_database WHERE datname = current_database())"
)
_FIND = f"""
SELECT nspname, relname, {_TRUSTED.format("nspowner")}, relname IS NULL OR {_TRUSTED.format("relowner")},
    pg_get_userbyid(nspowner), pg_get_userbyid(relowner)
FROM pg_namespace LEFT JOIN pg_class ON pg_class.oid = to_regclass(%(table)s)
WHERE pg_namespace.oid = coalesce(
    relnamespace, to_regnamespace(coalesce(%(schema)s::text, quote_ident(current_schema())))
)
"""


class NotOwnError(Exception):
    """The table or its schema belongs to somebody who is not trusted, or the schema does not exist."""


async def own_table(connection: AsyncConnection[Any], name: str, columns: LiteralString) -> Identifier:
    """Find the table ``name`` or ``schema.name``, or create it. Returns its whole name.

    From then on the session finds no functions and operators but PostgreSQL's own.
    """
    whole, exists = await _find(connection, name)
    for _ in range(_TRIES):
        if exists:
            break
        # Another session may create it, perhaps not ours.
        with suppress(errors.UniqueViolation, errors.DuplicateObject, errors.DuplicateTable):
            await connection.execute(SQL("CREATE TABLE {} {}").format(whole, SQL(columns)))
        whole, exists = await _find(connection, name)
    await connection.execute("SELECT set_config('search_path', 'pg_catalog', false)")
    return whole


async def _find(connection: AsyncConnection[Any], name: str) -> tuple[Identifier, bool]:
    """Return the whole name and whether the table exists, or raise NotOwnError."""
    schema, _, table = name.rpartition(".")
    values = {
        "table": Identifier(*name.split(".")).as_string(None),
        "schema": Identifier(schema).as_string(None) if schema else None,
    }
    row = await (await connection.execute(_FIND.encode(), values)).fetchone()
    if row is None:
        raise NotOwnError(f"there is no schema {values['schema']}" if schema else "search_path has no schema")
    found_in, found, is_own_schema, is_own_table, *owners = row
    if not (is_own_schema and is_own_table):
        what = f"the table {found_in}.{found}" if is_own_schema else f"the schema {found_in}"
        instead = "drop it" if is_own_schema else "drop it, or take it out of search_path"
        reads = "could read and change what is stored there"
        raise NotOwnError(f"{what} belongs to {owners[is_own_schema]}, who {reads}: {instead}")
    return Identifier(found_in, found or table), found is not None
