"""The statements that a tenant's login itself runs on PostgreSQL: start as the owner role, and end its sessions.

On a managed cluster the administrator may not end the sessions of a login that the API created, or change its settings.
A session of the same login may do both.
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
from .._naming import Names
from .postgres_sessions import BlockedError, knows_options, run

_ROUNDS = 100  # how often to look for other sessions of a login before giving up
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
# Sessions of this login with an uncommitted change of a role's password or settings.
_END_BLOCKERS = SQL("""
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
WHERE usename = session_user AND pid <> pg_backend_pid() AND pid IN (
    SELECT pid FROM pg_locks WHERE relation IN ('pg_authid'::regclass, 'pg_db_role_setting'::regclass)
    AND mode = 'RowExclusiveLock' AND granted)
""")
_END_OTHERS = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usesysid = %s AND pid <> pg_backend_pid()
""")
# The same in one statement, the first of our session, because other sessions may be about to end ours.
_END_OTHERS_FIRST = SQL("""
SELECT r.oid, (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE usesysid = r.oid AND pid <> pg_backend_pid())
FROM pg_roles r WHERE rolname = session_user
""")
_LEFT = SQL("""
SELECT (SELECT count(*) FROM pg_stat_activity WHERE usesysid = %s), EXISTS (SELECT FROM pg_roles WHERE oid = %s)
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
    """The result of ``prepare``."""

    DONE = auto()
    GAVE_BACK = auto()  # it gave back the database itself, so the rights must be given again
    HAS_TO_INHERIT = auto()  # it must inherit the owner's rights before it can transfer its objects


async def prepare(names: Names, server: AsyncConnection[Any]) -> Prepared:
    """As a login of the owner: let its sessions start as the owner role, and transfer its objects here to that role."""
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
    """Return the existing logins of the role."""
    rows = await run(names, server, SQL("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)"), list(names.logins))
    return [name for (name,) in rows]


async def _alter(names: Names, server: AsyncConnection[Any], statement: Any) -> None:
    """Run an ``ALTER ROLE`` on the login itself. End its other sessions that lock the row."""
    try:
        await run(names, server, statement)
    except BlockedError:
        await run(names, server, _END_BLOCKERS)
        await run(names, server, statement)


async def cannot_enter(names: Names, server: AsyncConnection[Any], username: str) -> bool:
    """Whether ``username`` can never enter: it or the database does not exist, or it lacks the right to connect."""
    ((may,),) = await run(names, server, _MAY_ENTER, username, names.database)
    return not may


async def is_full(names: Names, server: AsyncConnection[Any]) -> bool:
    """Whether the tenant's database reached its connection limit."""
    ((full,),) = await run(names, server, _FULL, names.database)
    return bool(full)


@define
class LoginEnd:
    """Ends a login: its sessions, and every way to open another.

    Attributes:
        delete: Deletes the login by the API.
        role: The number (OID) of the login, once it is known.
        deleted: Whether ``delete`` was called.
    """

    delete: Callable[[], Awaitable[None]]
    role: int | None = None
    deleted: bool = False

    async def run(self, names: Names, server: AsyncConnection[Any]) -> None:
        """End the login from one of its own sessions, which keeps its rights after the login is deleted.

        Another session of the login may set a password or end this session first. Then this fails half done.
        """
        ((self.role, _),) = await run(names, server, _END_OTHERS_FIRST)
        await self._end_others(names, server)
        for (gid,) in await run(names, server, _PREPARED):
            await run(names, server, SQL("ROLLBACK PREPARED {}").format(Literal(gid)))
        self.deleted = True
        await self.delete()
        await self._end_others(names, server)

    async def run_as_administrator(self, names: Names, server: AsyncConnection[Any], username: str) -> None:
        """End the login without one of its sessions. Since PostgreSQL 16 its open sessions stay."""
        for (self.role,) in await run(names, server, SQL("SELECT oid FROM pg_roles WHERE rolname = %s"), username):
            if not knows_options(server):
                login = Identifier(username)
                await run(names, server, SQL("ALTER ROLE {} NOLOGIN").format(login))
                await run(names, server, SQL("GRANT {} TO CURRENT_USER").format(login))
                await run(names, server, _END_OTHERS, self.role)
        self.deleted = True
        await self.delete()

    async def verify(self, names: Names, server: AsyncConnection[Any]) -> None:
        """As the administrator: check that the login and all of its sessions are gone.

        Raises:
            GrantError: Something is left.
        """
        sessions, present = 0, False
        for _ in range(_ROUNDS):
            ((sessions, present),) = await run(names, server, _LEFT, self.role, self.role)
            if not sessions and not present:
                return
            await asyncio.sleep(_LOOK_SECONDS)
        if present:
            raise GrantError(
                f"tenant {names.tenant!r}: the API deleted the login, and the server still has it: run it again",
                tenant=names.tenant,
            )
        raise GrantError(
            f"tenant {names.tenant!r}: the login was deleted, and {sessions} of its sessions are still open: only a "
            "superuser can end them, by pg_terminate_backend",
            tenant=names.tenant,
        )

    async def _end_others(self, names: Names, server: AsyncConnection[Any]) -> None:
        """End the login's other sessions until there are none, and set a random password that is not stored."""
        quiet, locked_out = 0, self.deleted
        for _ in range(_ROUNDS):
            ((others,),) = await run(names, server, _END_OTHERS, self.role)
            quiet = 0 if others else quiet + 1
            if quiet > 1 and locked_out:
                return
            if not self.deleted and (others or not locked_out):
                with suppress(BlockedError):  # by a session that is about to end
                    await _lock_out(names, server)
                    locked_out = True
            await asyncio.sleep(_LOOK_SECONDS)
        raise GrantError(
            f"tenant {names.tenant!r}: new sessions of the login {server.info.user!r} keep appearing: run it again",
            tenant=names.tenant,
        )


async def _lock_out(names: Names, server: AsyncConnection[Any]) -> None:
    password, user = secrets.token_urlsafe(32).encode(), server.info.user.encode()
    verifier = server.pgconn.encrypt_password(password, user, b"scram-sha-256").decode()
    await run(names, server, SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(Literal(verifier)))
