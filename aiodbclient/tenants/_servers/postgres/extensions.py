"""The extensions of a tenant's PostgreSQL database: those of ``Tenants(extensions=)``, and those that a move copies.

The script of an extension runs code that it finds in its schema. So the administrator makes extensions only in a
database in which the tenant has nothing yet. Later they are made as the owner role, if they are trusted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from psycopg.sql import SQL, Identifier

from ...errors import GrantError
from .connection import ExistsError, Session

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


async def add(session: Session, extensions: Iterable[tuple[str, str | None]]) -> None:
    """In the tenant's new and empty database: make extensions as the administrator, each with its schema."""
    owner = session.names.owner
    for name, schema in extensions:
        if schema is not None and not schema.startswith("pg_"):  # those of the server
            await session.run_as(owner, SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
        await _create(partial(session.run_with, [owner]), name, schema)


async def restore(session: Session, *, is_new: bool) -> None:
    """In the tenant's database: make the missing extensions, or raise GrantError for those that are not trusted."""
    lacks, owner = await missing(session), session.names.owner
    if not lacks:
        return
    if is_new and not await session.run(_OWNS, owner):  # as of a template, or of a ``setup`` that failed
        await add(session, lacks)
        return
    untrusted = [name for (name,) in await session.run(_UNTRUSTED, [name for name, _ in lacks])]
    for name, schema in lacks:
        if name not in untrusted:
            new = [] if schema is None else [SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema))]
            await _create(partial(session.run_as, owner, *new), name, schema)
    if untrusted:
        raise session.error(
            f"the database {session.names.database!r} lacks the extension {', '.join(map(repr, untrusted))}, which is "
            "not trusted: what the tenant has in the database could run as the administrator. If you trust it, run "
            "CREATE EXTENSION in the database yourself"
        )


async def _create(run: Callable[..., Awaitable[None]], name: str, schema: str | None) -> None:
    create = SQL("CREATE EXTENSION IF NOT EXISTS {}").format(Identifier(name))
    if schema is None:  # unless the extension has a schema of its own
        placed = [SQL("SET LOCAL search_path = public"), create, SQL("SET LOCAL search_path = pg_catalog, pg_temp")]
    else:
        placed = [SQL("{} SCHEMA {}").format(create, Identifier(schema))]
    try:
        await run(*placed)
    except ExistsError as error:  # one of its objects: another try would fail too
        raise GrantError(error.args[0], tenant=error.tenant, statement=error.statement) from None
