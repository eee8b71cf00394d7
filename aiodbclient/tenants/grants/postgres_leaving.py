"""How a tenant leaves PostgreSQL: its database can be dropped or is kept, and its roles go from every database."""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier, Literal

from ...errors import GrantError
from ..naming import Names
from .postgres_objects import granted, policy_changes, revokes
from .postgres_owner import closing_steps, lacking, members, membership_steps, read_database, take
from .postgres_sessions import become, knows_options, run

_TRIES = 3  # since another tenant may go on granting to the role

_PREPARED = SQL("SELECT gid, owner FROM pg_prepared_xacts WHERE database = %s")
_SLOTS = SQL("SELECT slot_name FROM pg_replication_slots WHERE database = %s")
_WHERE = SQL("""
SELECT DISTINCT coalesce(datname, current_database()) FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
""")


class Administrator(Protocol):
    """Opens sessions of the administrator."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[AsyncConnection[Any]]: ...


async def make_removable(names: Names, administrator: Administrator) -> None:
    """Undo what would keep the API from dropping the tenant's database.

    Raises:
        GrantError: Something is left that the administrator cannot undo. The message says what.
    """
    async with administrator() as server:
        if not await run(names, server, SQL("SELECT FROM pg_database WHERE datname = %s"), names.database):
            return
        if (await read_database(names, server)).template:
            await take(names, server, await lacking(names, server, (), None))
        prepared = await run(names, server, _PREPARED, names.database)
        slots = await run(names, server, _SLOTS, names.database)
        if prepared:
            await _open_to_administrator(names, server, names.database or "")
    if prepared:
        async with administrator(dbname=names.database) as server:
            for gid, owner in prepared:
                await become(names, server, owner)  # it alone may end it
                await run(names, server, SQL("ROLLBACK PREPARED {}").format(Literal(gid)))
    if slots:
        raise GrantError(
            f"tenant {names.tenant!r}: the database {names.database!r} has the replication slot {slots[0][0]!r}, so "
            "that it cannot be dropped: run SELECT pg_drop_replication_slot(...) as a user that may replicate",
            tenant=names.tenant,
        )


async def release(names: Names, administrator: Administrator) -> None:
    """Give the tenant's database and all that its owner has in it to the administrator, open to nobody else."""
    async with administrator() as server:
        if not await run(names, server, SQL("SELECT FROM pg_database WHERE datname = %s"), names.database):
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


async def forget_role(names: Names, administrator: Administrator, role: str) -> None:
    """Drop ``role``, with what it has in every database.

    Another tenant can grant it something that only its own login can revoke, such as a large object. Then the role
    stays, under another name, with no members and no use.

    Raises:
        GrantError: The role owns a database that was not dropped yet, or the server is away.
    """
    for _ in range(_TRIES):
        async with administrator() as server:
            present = await members(names, server, role)
            if present is None:
                return
            owned = SQL("SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s")
            for (database,) in await run(names, server, owned, role):
                raise GrantError(
                    f"tenant {names.tenant!r}: its database {database!r} is still there: run it again",
                    tenant=names.tenant,
                )
            await take(names, server, list(membership_steps(role, present, (), server)))
            databases = [database for (database,) in await run(names, server, _WHERE, role)]
        for database in databases:
            with suppress(GrantError):  # by a session of another tenant, or since it was dropped
                await _clear(names, administrator, role, database)
        with suppress(GrantError):
            async with administrator() as server:
                await run(names, server, SQL("DROP ROLE {}").format(Identifier(role)))
                return
    async with administrator() as server:
        name = f"aiodbclient_gone_{secrets.token_hex(16)}"
        await run(names, server, SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), Identifier(name)))


async def _clear(names: Names, administrator: Administrator, role: str, database: str) -> None:
    """Revoke what ``role`` has in one database, and drop what it owns there. The tenant's own data is kept."""
    async with administrator() as server:
        await _open_to_administrator(names, server, database)
    async with administrator(dbname=database) as server:
        if database == names.database and role == names.owner:
            await _reassign(names, server)
        changes = revokes(role, await granted(names, server, role)) + await policy_changes(names, server, role)
        for owner, statement in changes:
            with suppress(GrantError):  # of a login's own, such as a large object
                await become(names, server, owner)
                await run(names, server, statement)
        await become(names, server, role)
        await run(names, server, SQL("DROP OWNED BY CURRENT_USER").format())


async def _reassign(names: Names, server: AsyncConnection[Any]) -> None:
    """Give all that the owner role has in the session's database to the administrator, who inherits it meanwhile."""
    owner = Identifier(names.owner)
    async with server.transaction():
        if knows_options(server):
            await run(names, server, SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE").format(owner))
        await run(names, server, SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(owner))
        if knows_options(server):
            await run(names, server, SQL("GRANT {} TO CURRENT_USER WITH INHERIT FALSE").format(owner))


async def _open_to_administrator(names: Names, server: AsyncConnection[Any], database: str) -> None:
    """Let the administrator enter a database, whoever of the tenants owns it."""
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
