"""Shut, drop or release a tenant's database on PostgreSQL, and forget its roles."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from time import monotonic

from psycopg.sql import SQL, Identifier

from ....errors import GrantError
from ..._naming import Role
from .databases import closing_steps, complete, members, need_database, read_database, take
from .logins import clear, exists, revoke_membership
from .sessions import Opener, Session, roll_back
from .strangers import end_sessions

_EMPTY_SECONDS = 20.0
_LOOK_SECONDS = 0.02
_STATE = SQL("SELECT pg_get_userbyid(datdba), datallowconn, datconnlimit FROM pg_database WHERE datname = %s")
_MEMBERSHIPS = SQL("""
SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), pg_get_userbyid(grantor)
FROM pg_auth_members, pg_roles me WHERE rolname = %s AND me.oid IN (member, roleid) AND NOT admin_option
""")


async def close(session: Session) -> bool:
    """Revoke the rights of others on the database. Return whether it exists, and is the role's to empty."""
    if session.names.role is not Role.OWNER or await read_database(session) is None:
        return False
    await complete(session)
    return True


async def empty(session: Session) -> None:
    """End every session in the database and every prepared transaction, whosever it is, and look again."""
    until = monotonic() + _EMPTY_SECONDS
    while await end_sessions(session):
        if monotonic() > until:
            raise session.error(f"sessions in the database {session.names.database!r} do not end: run it again")
        await asyncio.sleep(_LOOK_SECONDS)
    await roll_back(session.opened, database=session.names.database)
    await roll_back(session.opened, owner=session.names.owner)
    if await end_sessions(session):
        await empty(session)


async def is_open(session: Session) -> bool:
    """Whether the database exists and takes connections. Otherwise it is ready to be dropped."""
    rows = await session.run(_STATE, session.names.database)
    return bool(rows) and bool(rows[0][1]) and rows[0][2] != -2


async def drop(session: Session) -> None:
    """Drop a database that was shut."""
    names, name = session.names, Identifier(session.names.database)
    rows = await session.run(_STATE, names.database)
    if not rows:
        return
    owner, _, limit = rows[0]
    if owner not in {session.admin, names.owner}:
        raise session.error(f"the database {names.database!r} belongs to {owner!r}, and was not dropped")
    if owner != session.admin:  # FORCE needs the rights of the owner and those of the administrator
        text = "ALTER DATABASE {0} IS_TEMPLATE false; ALTER DATABASE {0} ALLOW_CONNECTIONS false"
        async with session.member_of(names.owner):
            if limit != -2:
                await session.run(SQL(text).format(name))
            await session.run(SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(name))
    await session.run(SQL("DROP DATABASE {} WITH (FORCE)").format(name))


async def drop_remains(session: Session) -> None:
    """Drop what an interrupted DROP DATABASE left. Nobody can enter it, and it can only be dropped."""
    rows = await session.run(_STATE, session.names.database)
    if rows and rows[0][2] == -2:
        await drop(session)


async def release(session: Session) -> None:
    """Leave a database that was shut to its owner role, without members, and close it to all others.

    So code that the tenant planted, such as the function of an index, never runs as the administrator by itself:
    autovacuum runs it as the owner role.
    """
    names = session.names
    if await read_database(session) is None:
        return  # an earlier removal has dropped it
    for member in await members(session, names.owner) or ():
        if not member.admin:
            await session.run(revoke_membership(session, names.owner, member.name, member.grantor))
    name = Identifier(names.database)
    async with session.acting(names.owner):
        await session.run(SQL("ALTER DATABASE {} RESET ALL").format(name))  # such as a search_path
        await session.run(SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
    await take(session, list(closing_steps(session, await need_database(session), ())))


async def forget(opened: Opener, role: str) -> None:
    """Drop a role of nobody, with all that it has.

    Another tenant can hold that up. Then the role stays, renamed and without members, so its name is free.
    """
    async with opened() as session:
        for of, member, grantor in await session.run(_MEMBERSHIPS, role):
            with suppress(GrantError):
                await session.run(revoke_membership(session, of, member, grantor))
    with suppress(GrantError):
        await roll_back(opened, owner=role)
        await clear(opened, role)
    async with opened() as session:
        if await exists(session, role):
            with suppress(GrantError):
                await session.run(SQL("DROP ROLE {}").format(Identifier(role)))
                return
            gone = Identifier(f"aiodbclient_gone_{secrets.token_hex(16)}")
            await session.run(SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), gone))
