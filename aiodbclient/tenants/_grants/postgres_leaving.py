"""Remove a tenant from PostgreSQL: make its database droppable or keep it, and drop its roles."""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier, Literal

from ...errors import GrantError
from .._naming import Names
from .postgres_objects import granted, policy_changes, revokes
from .postgres_owner import closing_steps, has_database, lacking, members, membership_steps, read_database, take
from .postgres_sessions import become, knows_options, run

_TRIES = 3  # because another tenant may keep granting rights to the role

_PREPARED = SQL("SELECT gid, owner FROM pg_prepared_xacts WHERE database = %s")
_STRANGERS = SQL("""
SELECT DISTINCT usename FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid
WHERE datname = %s AND NOT rolsuper AND usename <> current_user
""")
_SLOTS = SQL("SELECT slot_name FROM pg_replication_slots WHERE database = %s")
_WHERE = SQL("""
SELECT DISTINCT coalesce(datname, current_database()) FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
""")


class Administrator(Protocol):
    """Opens sessions of the administrator."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[AsyncConnection[Any]]: ...


async def make_removable(names: Names, administrator: Administrator) -> None:
    """Remove what prevents the API from dropping the tenant's database.

    Raises:
        GrantError: Something is left that the administrator cannot remove. The message says what.
    """
    async with administrator() as server:
        if not await has_database(names, server):
            return
        if (await read_database(names, server)).template:
            await take(names, server, await lacking(names, server, (), None))
        slots = await run(names, server, _SLOTS, names.database)
    await _roll_back_prepared(names, administrator)
    if slots:
        raise GrantError(
            f"tenant {names.tenant!r}: the database {names.database!r} has the replication slot {slots[0][0]!r}, so it "
            "cannot be dropped: run SELECT pg_drop_replication_slot(...) as a user with REPLICATION",
            tenant=names.tenant,
        )


async def shut(names: Names, administrator: Administrator, limit: int | None) -> None:
    """Roll back prepared transactions in the database of a tenant without logins, and close it to everybody else.

    Raises:
        GrantError: A session of another login is open there. Only that login can end it.
    """
    async with administrator() as server:
        if not await has_database(names, server):
            return
    await _roll_back_prepared(names, administrator)
    async with administrator() as server:
        await take(names, server, await lacking(names, server, (), limit))
        for (login,) in await run(names, server, _STRANGERS, names.database):
            raise GrantError(
                f"tenant {names.tenant!r}: the login {login!r} may no longer enter the database {names.database!r}, "
                "and still has a session there: end that session, and run this again",
                tenant=names.tenant,
            )


async def release(names: Names, administrator: Administrator) -> None:
    """Make the administrator the owner of the tenant's database and objects. Remove all other access."""
    async with administrator() as server:
        if not await has_database(names, server):
            return  # an earlier removal has dropped it
        database = await read_database(names, server)
        if database.owner == names.owner:
            await take(names, server, await lacking(names, server, (), None))
        present = await members(names, server, names.owner)
    if present is not None:
        async with administrator(dbname=names.database) as server:
            await _reassign(names, server)
    async with administrator() as server:
        name = Identifier(names.database or "")
        await run(names, server, SQL("ALTER DATABASE {} RESET ALL").format(name))  # such as a search_path
        await run(names, server, SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
        database = await read_database(names, server)
        for step in closing_steps(database, name, {database.owner}):
            await run(names, server, step.statement)


async def _roll_back_prepared(names: Names, administrator: Administrator) -> None:
    async with administrator() as server:
        prepared = await run(names, server, _PREPARED, names.database)
        if prepared:
            await _open_to_administrator(names, server, names.database or "")
    if prepared:
        async with administrator(dbname=names.database) as server:
            for gid, owner in prepared:
                await become(names, server, owner)  # only the owner may end it
                await run(names, server, SQL("ROLLBACK PREPARED {}").format(Literal(gid)))


async def forget_role(names: Names, administrator: Administrator, role: str) -> None:
    """Drop ``role`` and its rights in every database.

    Another tenant can grant it rights that only that tenant's login can revoke, for example on a large object. Then the
    role stays, renamed and without members.

    Raises:
        GrantError: The role still owns a database, or the server is unreachable.
    """
    for _ in range(_TRIES):
        async with administrator() as server:
            present = await members(names, server, role)
            if present is None:
                return
            owned = SQL("SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s")
            for (database,) in await run(names, server, owned, role):
                raise GrantError(
                    f"tenant {names.tenant!r}: its database {database!r} still exists: run it again",
                    tenant=names.tenant,
                )
            await take(names, server, list(membership_steps(role, present, (), server)))
            databases = [database for (database,) in await run(names, server, _WHERE, role)]
        for database in databases:
            with suppress(GrantError):  # a session of another tenant blocks it, or the database was dropped
                await _clear(names, administrator, role, database)
        with suppress(GrantError):
            async with administrator() as server:
                await run(names, server, SQL("DROP ROLE {}").format(Identifier(role)))
                return
    async with administrator() as server:
        name = f"aiodbclient_gone_{secrets.token_hex(16)}"
        await run(names, server, SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), Identifier(name)))


async def _clear(names: Names, administrator: Administrator, role: str, database: str) -> None:
    """Revoke the rights of ``role`` in one database, and drop its objects there. Keep the tenant's own data."""
    async with administrator() as server:
        await _open_to_administrator(names, server, database)
    async with administrator(dbname=database) as server:
        if database == names.database and role == names.owner:
            await _reassign(names, server)
        changes = revokes(role, await granted(names, server, role)) + await policy_changes(names, server, role)
        for owner, statement in changes:
            with suppress(GrantError):  # only the login itself can revoke some, such as on a large object
                await become(names, server, owner)
                await run(names, server, statement)
        await become(names, server, role)
        await run(names, server, SQL("DROP OWNED BY CURRENT_USER").format())


async def _reassign(names: Names, server: AsyncConnection[Any]) -> None:
    """Make the administrator the owner of all objects of the owner role in this database."""
    owner = Identifier(names.owner)
    async with server.transaction():
        if knows_options(server):
            await run(names, server, SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE").format(owner))
        await run(names, server, SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(owner))
        if knows_options(server):
            await run(names, server, SQL("GRANT {} TO CURRENT_USER WITH INHERIT FALSE").format(owner))


async def _open_to_administrator(names: Names, server: AsyncConnection[Any], database: str) -> None:
    """Let the administrator enter a database of any tenant."""
    state = SQL(
        "SELECT pg_get_userbyid(datdba), has_database_privilege(oid, 'CONNECT') AND datallowconn AND datconnlimit <> 0"
        " FROM pg_database WHERE datname = %s"
    )
    for owner, may_enter in await run(names, server, state, database):
        if may_enter:
            continue
        await become(names, server, owner)
        name, admin = Identifier(database), Identifier(server.info.user)
        await run(names, server, SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, admin))
        await run(names, server, SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        await run(names, server, SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
        await run(names, server, SQL("RESET ROLE"))
