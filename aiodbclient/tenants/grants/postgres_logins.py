"""What a login of a tenant does by its own statements on PostgreSQL: begin as the owner role, and end its sessions.

No administrator of a managed cluster may end a session of a login that the API made, nor change its settings. A session
of the same login may do both.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from attrs import define
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier, Literal

from ...errors import GrantError
from ..naming import Names
from .postgres_sessions import BlockedError, knows_options, run

_ROUNDS = 100  # looks for other sessions of a login, before it counts as one that fights back
_LOOK_SECONDS = 0.05  # between two looks

_OWN = SQL("""
WITH me AS (SELECT oid FROM pg_roles WHERE rolname = session_user),
     here AS (SELECT oid FROM pg_database WHERE datname = %s),
     owned AS (SELECT classid, objid FROM pg_shdepend, me WHERE refclassid = 'pg_authid'::regclass
               AND refobjid = me.oid AND deptype = 'o'
               AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))),
     settings AS (SELECT setdatabase, unnest(setconfig) AS setting FROM pg_db_role_setting, me WHERE setrole = me.oid)
SELECT EXISTS (SELECT FROM settings WHERE setdatabase = 0 AND setting = %s),
       EXISTS (SELECT FROM settings, here WHERE setdatabase = here.oid AND starts_with(setting, 'role=')),
       EXISTS (SELECT FROM owned),
       EXISTS (SELECT FROM owned, here WHERE classid = 'pg_database'::regclass AND objid = here.oid)
""")
# Sessions of this login that have changed a role's password or settings, and did not commit.
_END_BLOCKERS = SQL("""
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
WHERE usename = session_user AND pid <> pg_backend_pid() AND pid IN (
    SELECT pid FROM pg_locks WHERE relation IN ('pg_authid'::regclass, 'pg_db_role_setting'::regclass)
    AND mode = 'RowExclusiveLock' AND granted)
""")
_END_OTHERS = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usesysid = %s AND pid <> pg_backend_pid()
""")
# The same as the first statement of a session, which others of the login may be about to end.
_END_OTHERS_FIRST = SQL("""
SELECT r.oid, (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE usesysid = r.oid AND pid <> pg_backend_pid())
FROM pg_roles r WHERE rolname = session_user
""")
_LEFT = SQL("""
SELECT (SELECT count(*) FROM pg_stat_activity WHERE usesysid = %s) + (SELECT count(*) FROM pg_roles WHERE oid = %s)
""")
_PREPARED = SQL("SELECT gid FROM pg_prepared_xacts WHERE owner = session_user AND database = current_database()")
_INHERITS = SQL("SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = %s")
_MAY_ENTER = SQL("""
SELECT EXISTS (SELECT FROM pg_roles r, pg_database d WHERE rolname = %s AND rolcanlogin AND datname = %s
               AND has_database_privilege(r.oid, d.oid, 'CONNECT'))
""")


_FULL = SQL("""
SELECT EXISTS (SELECT FROM pg_database d WHERE datname = %s AND datconnlimit >= 0
               AND datconnlimit <= (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid))
""")


class Prepared(Enum):
    """How far ``prepare`` came."""

    DONE = auto()
    GAVE_BACK = auto()  # the database itself, whose rights are to be given once more
    HAS_TO_INHERIT = auto()  # the owner's rights, for as long as it gives it what it owns


async def prepare(names: Names, server: AsyncConnection[Any]) -> Prepared:
    """As a login of the owner: let its sessions begin as the owner role, and give that what the login owns here."""
    ((begins, otherwise, owns, owns_database),) = await run(names, server, _OWN, names.database, f"role={names.owner}")
    if not begins:
        await _alter(names, server, SQL("ALTER ROLE CURRENT_USER SET role = {}").format(Literal(names.owner)))
    if otherwise:
        database = Identifier(names.database or "")
        await _alter(names, server, SQL("ALTER ROLE CURRENT_USER IN DATABASE {} RESET role").format(database))
    if owns:
        ((inherits,),) = await run(names, server, _INHERITS, names.owner)
        if not inherits:
            return Prepared.HAS_TO_INHERIT
        await run(names, server, SQL("REASSIGN OWNED BY CURRENT_USER TO {}").format(Identifier(names.owner)))
    return Prepared.GAVE_BACK if owns_database else Prepared.DONE


async def present_logins(names: Names, server: AsyncConnection[Any]) -> list[str]:
    """Those logins of the role that exist."""
    rows = await run(names, server, SQL("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)"), list(names.logins))
    return [name for (name,) in rows]


async def _alter(names: Names, server: AsyncConnection[Any], statement: Any) -> None:
    """Run an ``ALTER ROLE`` of the login itself. Another session of it that holds the row is ended."""
    try:
        await run(names, server, statement)
    except BlockedError:
        await run(names, server, _END_BLOCKERS)
        await run(names, server, statement)


async def cannot_enter(names: Names, server: AsyncConnection[Any], username: str) -> bool:
    """Whether waiting does not help ``username``: it or the database does not exist, or it may not enter."""
    ((may,),) = await run(names, server, _MAY_ENTER, username, names.database)
    return not may


async def is_full(names: Names, server: AsyncConnection[Any]) -> bool:
    """Whether the tenant's database takes no more connections, by the limit on it."""
    ((full,),) = await run(names, server, _FULL, names.database)
    return bool(full)


@define
class LoginEnd:
    """Ends a login: its other sessions, and every way to open another.

    Attributes:
        delete: Deletes the login by the API.
        role: The number (OID) of the login, once it is known.
        deleted: Whether ``delete`` was called.
    """

    delete: Callable[[], Awaitable[None]]
    role: int | None = None
    deleted: bool = False

    async def run(self, names: Names, server: AsyncConnection[Any]) -> None:
        """In a session of the login, which keeps its rights when the login is deleted. It may end in the middle.

        Another session of the login may set a password or end this one, as long as it lives: whoever is faster.
        """
        ((self.role, _),) = await run(names, server, _END_OTHERS_FIRST)
        await self._end_others(names, server)
        for (gid,) in await run(names, server, _PREPARED):
            await run(names, server, SQL("ROLLBACK PREPARED {}").format(Literal(gid)))
        self.deleted = True
        await self.delete()
        await self._end_others(names, server)

    async def run_as_administrator(self, names: Names, server: AsyncConnection[Any], username: str) -> None:
        """Without a session of the login. From PostgreSQL 16 on, its open ones stay, and can do no more than before."""
        for (self.role,) in await run(names, server, SQL("SELECT oid FROM pg_roles WHERE rolname = %s"), username):
            if not knows_options(server):
                login = Identifier(username)
                await run(names, server, SQL("ALTER ROLE {} NOLOGIN").format(login))
                await run(names, server, SQL("GRANT {} TO CURRENT_USER").format(login))
                await run(names, server, _END_OTHERS, self.role)
        self.deleted = True
        await self.delete()

    async def verify(self, names: Names, server: AsyncConnection[Any]) -> None:
        """As the administrator: make sure that no session of the login is left, nor the login.

        Raises:
            GrantError: Some is left.
        """
        left = 0
        for _ in range(_ROUNDS):
            ((left,),) = await run(names, server, _LEFT, self.role, self.role)
            if not left:
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise GrantError(
            f"tenant {names.tenant!r}: the login was deleted, and {left} of its sessions are still open: only a "
            "superuser can end them, by pg_terminate_backend",
            tenant=names.tenant,
        )

    async def _end_others(self, names: Names, server: AsyncConnection[Any]) -> None:
        """End the login's other sessions until there are none, and give it a password that nobody knows."""
        quiet, locked_out = 0, self.deleted
        for _ in range(_ROUNDS):
            ((others,),) = await run(names, server, _END_OTHERS, self.role)
            quiet = 0 if others else quiet + 1
            if quiet > 1 and locked_out:
                return
            if not self.deleted and (others or not locked_out):
                with suppress(BlockedError):  # by one of those that are ending
                    await _lock_out(names, server)
                    locked_out = True
            await asyncio.sleep(_LOOK_SECONDS)
        raise GrantError(
            f"tenant {names.tenant!r}: other sessions of the login {server.info.user!r} go on and on",
            tenant=names.tenant,
        )


async def _lock_out(names: Names, server: AsyncConnection[Any]) -> None:
    password, user = secrets.token_urlsafe(32).encode(), server.info.user.encode()
    verifier = server.pgconn.encrypt_password(password, user, b"scram-sha-256").decode()
    await run(names, server, SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(Literal(verifier)))
