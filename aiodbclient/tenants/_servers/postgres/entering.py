"""The administrator enters the database of any tenant, and ends prepared transactions in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import groupby
from typing import Any, Protocol

from psycopg.sql import SQL, Identifier, Literal

from .sessions import Session

_DOOR = SQL("""
SELECT pg_get_userbyid(datdba), has_database_privilege(oid, 'CONNECT') AND datallowconn AND (
    datconnlimit < 0 OR datconnlimit > (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid))
FROM pg_database d WHERE datname = %s
""")
_PREPARED = SQL("SELECT database, gid, owner FROM pg_prepared_xacts WHERE database = %s OR owner = %s ORDER BY 1, 2")


class Opener(Protocol):
    """Opens sessions of the administrator for one tenant, in the administrator's database or in ``database``."""

    def __call__(self, database: str | None = None) -> AbstractAsyncContextManager[Session]: ...


@asynccontextmanager
async def entered(opened: Opener, database: str) -> AsyncGenerator[Session]:
    """Enter a database, also one that its owner has closed."""
    async with opened() as session:
        for owner, is_open in await session.run(_DOOR, database):
            if not is_open:
                await _open(session, database, owner)
    async with opened(database) as session:
        yield session


async def _open(session: Session, database: str, owner: str) -> None:
    name = Identifier(database)
    statements = [
        SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, Identifier(session.admin)),
        SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true CONNECTION LIMIT -1").format(name),
    ]
    if owner == session.admin:
        await session.run_all(*statements)
        return
    async with session.acting(owner):
        await session.run_all(*statements)


async def roll_back(opened: Opener, *, database: str = "", owner: str = "") -> None:
    """Roll back all prepared transactions in a database or of a role."""
    async with opened() as session:
        prepared = await session.run(_PREPARED, database, owner)
    await roll_back_these(opened, prepared)


async def roll_back_these(opened: Opener, prepared: list[Any]) -> None:
    """Roll back these transactions: the database, the name and the owner of each."""
    for database, of_database in groupby(prepared, key=lambda row: str(row[0])):
        async with entered(opened, database) as session:
            for _, gid, owner in of_database:
                if owner is None:
                    raise session.error(
                        f"the database {database!r} has the prepared transaction {gid!r} of a deleted login: run "
                        "ROLLBACK PREPARED in it as a superuser, and run this again"
                    )
                await _roll_back(session, gid, Identifier(owner))


async def _roll_back(session: Session, gid: str, owner: Identifier) -> None:
    # Only its owner may, and not in a transaction.
    options = SQL(" WITH INHERIT FALSE, SET TRUE" if session.knows_options else "")
    await session.run_all(SQL("GRANT {} TO CURRENT_USER{}").format(owner, options), SQL("SET ROLE {}").format(owner))
    await session.run(SQL("ROLLBACK PREPARED {}").format(Literal(gid)))
    await session.run_all(SQL("RESET ROLE"), SQL("REVOKE {} FROM CURRENT_USER").format(owner))
