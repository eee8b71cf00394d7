"""Remove a tenant from PostgreSQL: make its database droppable or keep it, and drop its roles."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from typing import Any

from psycopg.sql import SQL, Identifier, Literal

from ...errors import GrantError
from .postgres_objects import revoke_all
from .postgres_rights import closing_steps, has_database, lacking, members, membership_steps, read_database, take
from .postgres_sessions import Opener, Session

_TRIES = 3  # because another tenant may keep granting rights to the role
_LOOKS, _LOOK_SECONDS = 10, 0.2  # how often, and how far apart, to look whether a lock is free

# Those in the tenant's database, and those that the owner role left elsewhere.
_PREPARED = SQL("SELECT database, gid, owner FROM pg_prepared_xacts WHERE database = %s OR owner = %s ORDER BY 1, 2")
_SESSIONS = SQL("""
SELECT DISTINCT usename FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid
WHERE datname = %s AND NOT rolsuper AND usename <> current_user ORDER BY 1
""")
_UNLINKED = 1_000  # large objects at once: each takes a lock, and a server has some thousands
_UNLINK = SQL("""
SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata
    WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = %s) LIMIT %s) AS few
""")
_SLOTS = SQL("SELECT slot_name FROM pg_replication_slots WHERE database = %s")
_WHERE = SQL("""
SELECT DISTINCT coalesce(datname, current_database()) FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
""")
# Transactions that keep the API from dropping a role or a database: open ones of sessions, and prepared ones.
_HOLDERS = SQL("""
SELECT a.usename, coalesce(a.datname, p.database), p.gid
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
LEFT JOIN pg_locks own
  ON l.pid IS NULL AND own.virtualtransaction = l.virtualtransaction AND own.locktype = 'transactionid'
LEFT JOIN pg_prepared_xacts p ON p.transaction = own.transactionid
WHERE l.locktype = 'object' AND l.database = 0 AND l.classid = %s::regclass AND l.granted
  AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.objid = (
    SELECT oid FROM pg_roles WHERE rolname = %s UNION ALL SELECT oid FROM pg_database WHERE datname = %s)
ORDER BY 1, 2, 3 LIMIT 1
""")


def describe_holder(login: str, database: str, gid: str | None) -> tuple[str, str]:
    """Say which transaction prevents something, and how to end it. ``gid`` is that of a prepared one."""
    if gid is not None:
        return f"the prepared transaction {gid!r} in the database {database!r}", "end it with ROLLBACK PREPARED"
    return (
        f"an open transaction of the login {login!r} in the database {database!r}",
        "rotate and retire the tenant of that login, which ends its sessions",
    )


async def wait_until_free(session: Session, *, role: str | None = None, database: str | None = None) -> None:
    """Wait until no other transaction prevents the role or the database from being dropped."""
    if role is not None:
        kind, kept = "pg_authid", f"the login {role!r} cannot be deleted"
    else:
        kind, kept = "pg_database", f"the database {database!r} cannot be dropped"
    held: list[Any] = []
    for _ in range(_LOOKS):
        held = await session.run(_HOLDERS, kind, role, database)
        if not held:
            return
        await asyncio.sleep(_LOOK_SECONDS)
    what, remedy = describe_holder(*held[0])
    raise session.error(f"{kept}, because {what} holds a lock on it: {remedy}, and run this again")


async def make_removable(open_session: Opener) -> None:
    """Remove what prevents the API from dropping the tenant's database."""
    async with open_session() as session:
        names = session.names
        if not await has_database(session):
            return
        if (await read_database(session)).template:
            await take(session, await lacking(session, (), None))
        slots = await session.run(_SLOTS, names.database)
    await _roll_back_prepared(open_session)
    if slots:
        raise session.error(
            f"the database {names.database!r} has the replication slot {slots[0][0]!r}, so it cannot be dropped: run "
            "SELECT pg_drop_replication_slot(...) as a user with REPLICATION",
        )
    async with open_session() as session:
        await wait_until_free(session, database=names.database)


async def _roll_back_prepared(open_session: Opener) -> None:
    async with open_session() as session:
        names = session.names
        prepared = await session.run(_PREPARED, names.database, names.owner)
    for where, of_database in groupby(prepared, key=lambda row: str(row[0])):
        async with entered(open_session, where) as session:
            for _, gid, owner in of_database:
                if owner is None:
                    raise session.error(
                        f"the database {names.database!r} has the prepared transaction {gid!r} of a deleted login, so "
                        "it cannot be dropped: run ROLLBACK PREPARED in it as a superuser",
                    )
                await session.become(owner)  # only the owner may end it
                await session.run(SQL("ROLLBACK PREPARED {}").format(Literal(gid)))


async def sessions_of_others(session: Session) -> list[str]:
    """Return the logins, other than the tenant's and superusers, that have a session in its database."""
    rows = await session.run(_SESSIONS, session.names.database)
    return [login for (login,) in rows if login not in session.names.family]


async def shut(open_session: Opener, limit: int | None) -> None:
    """Roll back prepared transactions in the database of a tenant without logins, and close it to everybody else."""
    async with open_session() as session:
        names = session.names
        if not await has_database(session):
            return
    await _roll_back_prepared(open_session)
    async with open_session() as session:
        await take(session, await lacking(session, (), limit))
        for (login,) in await session.run(_SESSIONS, names.database):
            raise session.error(
                f"the login {login!r} may no longer enter the database {names.database!r}, and still has a session "
                "there: end that session, and run this again",
            )


async def release(open_session: Opener) -> None:
    """Leave the database to its owner role, of which only the administrator is a member, and close it to all others.

    So code that the tenant planted, such as the function of an index, never runs as the administrator by itself:
    autovacuum runs it as the owner role.
    """
    async with open_session() as session:
        names = session.names
        if not await has_database(session):
            return  # an earlier removal has dropped it
        await take(session, await lacking(session, (), None))
        await take(session, list(membership_steps(session, names.owner, await members(session, names.owner), ())))
        name = Identifier(names.database or "")
        await session.become(names.owner)
        await session.run(SQL("ALTER DATABASE {} RESET ALL").format(name))  # such as a search_path
        await session.run(SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
        await session.reset_role()
        await take(session, list(closing_steps(await read_database(session), name, {names.owner, session.login})))


async def forget_role(open_session: Opener, role: str) -> None:
    """Drop ``role`` and its rights in every database.

    Another tenant can grant it rights that only that tenant's login can revoke, for example on a large object. Then the
    role stays, renamed and without members.
    """
    for _ in range(_TRIES):
        async with open_session() as session:
            present = await members(session, role)
            if present is None:
                return
            names = session.names
            if role == names.owner and await has_database(session):
                raise session.error(f"its database {names.database!r} still exists: run it again")
            await take(session, list(membership_steps(session, role, present, ())))
            databases = [database for (database,) in await session.run(_WHERE, role)]
        for database in databases:
            with suppress(GrantError):  # a session of another tenant blocks it, or the database was dropped
                await _clear(open_session, role, database)
        with suppress(GrantError):
            async with open_session() as session:
                await session.run(SQL("DROP ROLE {}").format(Identifier(role)))
                return
    async with open_session() as session:
        await session.run(SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), Identifier(gone_name())))


def gone_name() -> str:
    """A new name for a role of nobody, which is dropped as soon as no other tenant prevents it."""
    return f"aiodbclient_gone_{secrets.token_hex(16)}"


async def _clear(open_session: Opener, role: str, database: str) -> None:
    """Revoke the rights of ``role`` in one database, and drop its objects there."""
    async with entered(open_session, database) as session:
        await revoke_all(session, role)
        await session.become(role)
        while await session.run(_UNLINK, role, _UNLINKED) != [(0,)]:
            pass
        await session.run(SQL("DROP OWNED BY CURRENT_USER").format())


@asynccontextmanager
async def entered(open_session: Opener, database: str) -> AsyncGenerator[Session]:
    """As the administrator: enter a database of any tenant."""
    async with open_session() as session:
        await open_to(session, database, session.login)
    async with open_session(dbname=database) as session:
        yield session


async def open_to(session: Session, database: str, login: str, *, full: bool = False) -> None:
    """As the administrator: let ``login`` enter a database of any tenant, even if it is ``full``."""
    state = SQL(
        "SELECT pg_get_userbyid(datdba), has_database_privilege(%s, oid, 'CONNECT') AND datallowconn"
        " AND datconnlimit <> 0 FROM pg_database WHERE datname = %s"
    )
    for owner, may_enter in await session.run(state, login, database):
        if may_enter and not full:
            continue
        await session.become(owner)
        name = Identifier(database)
        await session.run(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, Identifier(login)))
        await session.run(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        await session.run(SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
        await session.reset_role()
