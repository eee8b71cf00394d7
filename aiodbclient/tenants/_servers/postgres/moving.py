"""What moving, dumping and measuring a tenant need of a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from ....engines import Engine
from ....errors import InvalidArgumentError
from ..._credential import Secret
from ..._naming import names_of
from .databases import PUBLIC, grantee, need_database
from .logins import create_login, exists
from .sessions import Session, quoted

_TEMPORARY_CONNECTIONS = 4
_MAY = {"CONNECT", "TEMPORARY", "CREATE"}
OWNERS = SQL("SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datconnlimit <> -2")
USAGE = SQL("""
SELECT datname, pg_database_size(d.oid), (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid)
FROM pg_database d WHERE datname = ANY (%s)
""")


def made(databases: Sequence[Any]) -> Iterator[str]:
    """Yield the databases that ``create`` made, of their names and owners."""
    for database, owner in databases:
        with suppress(InvalidArgumentError):
            if names_of(database, Engine.PG).owner == owner:
                yield database


async def guests(session: Session) -> tuple[str, ...]:
    """Return the rights of others on the database: ``CONNECT neighbour``."""
    names, database = session.names, await need_database(session)
    kept = {database.owner, names.owner, session.admin, *names.everything}
    others = {who: rights for who, rights in database.privileges.items() if who not in kept}
    return tuple(f"{right} {who}" for who, rights in sorted(others.items()) for right in sorted(rights))


async def unknown(session: Session, guests: Sequence[str]) -> tuple[str, ...]:
    """Return who of them is no role of this server."""
    everybody = sorted({who for _, _, who in (guest.partition(" ") for guest in guests)} - {PUBLIC})
    return tuple([who for who in everybody if not await exists(session, who)])


async def reopen(session: Session, guests: Sequence[str]) -> None:
    """Give others their rights back."""
    statements = list[Composed]()
    for guest in guests:
        right, _, who = guest.partition(" ")
        if right in _MAY and (who == PUBLIC or await exists(session, who)):
            text = SQL("GRANT {} ON DATABASE {} TO {}")
            statements.append(text.format(quoted(right), Identifier(session.names.database), grantee(who)))
    if statements:
        async with session.acting(session.names.owner):
            await session.run_all(*statements)


async def create_temporary(session: Session, stored: Secret) -> None:
    """Create the login that dumps: a member of the owner role alone."""
    await create_login(session, session.names.temporary, stored, _TEMPORARY_CONNECTIONS, session.names.owner)


async def add_extensions(session: Session, extensions: Sequence[tuple[str, str]]) -> None:
    """Create extensions, and their schemas, in a database that is new and empty."""
    schemas = {name for (name,) in await session.run(SQL("SELECT nspname::text FROM pg_namespace"))}
    for name, schema in extensions:
        if schema not in schemas:
            async with session.acting(session.names.owner):
                await session.run(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        create = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}")
        async with session.member_of(session.names.owner):
            await session.run(create.format(Identifier(name), Identifier(schema)))
