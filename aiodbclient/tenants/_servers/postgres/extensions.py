"""The extensions of a tenant's PostgreSQL database: those of ``Tenants(extensions=)``, and those that a move copies.

The script of an extension runs code that it finds in its schema. So the administrator makes extensions only in a
database in which the tenant has nothing yet. Later they are made as the owner role, if they are trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from psycopg.sql import SQL, Identifier

from .connection import Session, Statement

_PRESENT = SQL("SELECT extname::text FROM pg_extension")
_OWNS = SQL("""
SELECT FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
  AND deptype = 'o' AND classid <> 'pg_namespace'::regclass LIMIT 1
""")
_UNTRUSTED = SQL("""
SELECT v.name::text FROM pg_available_extension_versions v
JOIN pg_available_extensions a ON a.name = v.name AND a.default_version = v.version
WHERE v.name = ANY (%s) AND NOT v.trusted ORDER BY 1
""")


async def missing(session: Session) -> list[tuple[str, str | None]]:
    """In the tenant's database: return the extensions of ``Tenants`` that it lacks, with their schemas."""
    present = {name for (name,) in await session.run(_PRESENT)}
    return [(name, schema) for name, schema in session.options.extensions if name not in present]


async def add(session: Session, extensions: Iterable[tuple[str, str | None]], *, as_owner: bool = False) -> None:
    """In the tenant's database: make extensions, each with its schema, as the administrator or as the owner role."""
    owner = session.names.owner
    run = partial(session.run_as, owner) if as_owner else partial(session.run_with, [owner])
    for name, schema in extensions:
        statements: list[Statement] = [SQL("CREATE EXTENSION IF NOT EXISTS {}").format(Identifier(name))]
        if schema is None:  # unless the extension has a schema of its own
            begin, end = SQL("SET LOCAL search_path = public"), SQL("SET LOCAL search_path = pg_catalog, pg_temp")
            statements = [begin, *statements, end]
        else:
            if not schema.startswith("pg_"):  # those of the server
                await session.run_as(owner, SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
            statements = [SQL("{} SCHEMA {}").format(*statements, Identifier(schema))]
        await run(*statements)


async def restore(session: Session, *, is_new: bool) -> None:
    """In the tenant's database: make the missing extensions, or raise GrantError for those that are not trusted."""
    lacks, owner = await missing(session), session.names.owner
    as_owner = not is_new or bool(await session.run(_OWNS, owner))  # as of a template, or of a ``setup`` that failed
    untrusted = list[str]()
    if as_owner:
        untrusted = [name for (name,) in await session.run(_UNTRUSTED, [name for name, _ in lacks])]
    await add(session, [each for each in lacks if each[0] not in untrusted], as_owner=as_owner)
    if untrusted:
        raise session.error(
            f"the database {session.names.database!r} lacks the extension {', '.join(map(repr, untrusted))}, which is "
            "not trusted: what the tenant has in the database could run as the administrator. If you trust it, run "
            "CREATE EXTENSION in the database yourself"
        )
