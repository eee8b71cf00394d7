"""The statements that a tenant's login itself runs on PostgreSQL: start as the owner role, and end its sessions.

On a managed cluster the administrator may not end the sessions of a login that the API created, or change its settings.
A session of the same login may do both.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum, auto
from functools import partial
from typing import Any

from attrs import define, field
from psycopg.sql import SQL, Identifier, Literal

from ...errors import GrantError
from .._naming import Role
from . import LoginRefusedError, ServerAwayError
from .postgres_leaving import describe_holder, entered, forget_role, gone_name, open_to, wait_until_free
from .postgres_objects import hand_over
from .postgres_rights import members, membership_steps, take
from .postgres_sessions import BlockedError, Opener, Session

_ROUNDS_OF_SCRAM = SQL("SET scram_iterations = 4096")
_ROUNDS = 100  # how often to look for other sessions of a login before giving up
_LOOK_SECONDS = 0.05  # between two looks
_BLOCKED_LOOKS = 5  # how often to wait for a lock on the password before saying who holds it

_OWN = SQL("""
WITH me AS (SELECT oid FROM pg_roles WHERE rolname = session_user),
     here AS (SELECT oid FROM pg_database WHERE datname = %s),
     owned AS (SELECT classid, objid FROM pg_shdepend, me WHERE refclassid = 'pg_authid'::regclass
               AND refobjid = me.oid AND deptype = 'o'
               AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
SELECT EXISTS (SELECT FROM owned),
       EXISTS (SELECT FROM owned, here WHERE classid = 'pg_database'::regclass AND objid = here.oid)
""")
# The login's settings in each database, None for all, and whether they are the wanted ones.
_SETTINGS = SQL("""
SELECT datname, setdatabase = 0 AND setconfig = %s
FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase
WHERE rolname = session_user
""")
# Sessions of this login with an uncommitted change of a role's password or settings.
_END_BLOCKERS = SQL("""
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
WHERE usename = session_user AND pid <> pg_backend_pid() AND pid IN (
    SELECT pid FROM pg_locks WHERE relation IN ('pg_authid'::regclass, 'pg_db_role_setting'::regclass)
    AND mode = 'RowExclusiveLock' AND granted)
""")
# One statement, and the first of our session, because the other sessions may be about to end it.
_END_OTHERS = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()
""")
# Who holds a lock on a changed password: a prepared transaction of this login, or any open transaction.
_CHANGING = SQL("""
SELECT owner, database, gid FROM pg_prepared_xacts WHERE owner = %s UNION ALL
SELECT usename, datname, NULL FROM pg_locks l JOIN pg_stat_activity USING (pid)
WHERE relation = 'pg_authid'::regclass AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()
""")
# The transactions in which connections log in. The server read the password at their start, and the client may take
# its time to answer. Those connections are no sessions yet: 18 lists them without a user, older servers do not.
_PENDING = SQL("""
SELECT virtualtransaction FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE locktype = 'virtualxid' AND l.pid IS NOT NULL AND usesysid IS NULL AND datid IS NULL
""")
# The open transactions of tenants. In one that began while a login owned a function, that function may still run.
_OPEN = SQL("""
SELECT virtualtransaction, usename, datname FROM pg_locks l JOIN pg_stat_activity a USING (pid)
JOIN pg_roles r ON r.oid = usesysid WHERE locktype = 'virtualxid' AND NOT rolsuper AND usename <> current_user
""")
_PREPARED = SQL("SELECT gid FROM pg_prepared_xacts WHERE owner = %s AND database = current_database()")
# The databases in which a login owns something or has prepared a transaction. "": all of them, such as a database.
# One with a limit of -2 is left of an interrupted DROP DATABASE, and nobody can enter it.
_OWNS_IN = SQL("""
SELECT coalesce(datname, '') FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
  AND deptype = 'o' AND datconnlimit IS DISTINCT FROM -2
UNION SELECT database FROM pg_prepared_xacts WHERE owner = %s ORDER BY 1
""")
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


async def prepare(session: Session) -> Prepared:
    """As a login: reset its settings. The owner's starts as the owner role, and gives that role its objects here."""
    names = session.names
    if names.role is not Role.OWNER:
        await _reset_settings(session, [])
        return Prepared.DONE
    if not await _reset_settings(session, [f"role={names.owner}"]):
        await _alter(session, SQL("ALTER ROLE CURRENT_USER SET role = {}").format(Literal(names.owner)))
    ((owns, owns_database),) = await session.run(_OWN, names.database)
    if owns:
        ((inherits,),) = await session.run(_INHERITS, names.owner)
        if not inherits:
            return Prepared.HAS_TO_INHERIT
        await give_up(session, session.login)
        await session.reset_role()
    return Prepared.GAVE_BACK if owns_database else Prepared.DONE


async def _reset_settings(session: Session, wanted: list[str]) -> bool:
    """As a login: reset its settings, which may keep programs out. Return whether the ``wanted`` ones stay."""
    settings = await session.run(_SETTINGS, wanted)
    for database, is_wanted in settings:
        if not is_wanted:
            where = SQL("") if database is None else SQL("IN DATABASE {} ").format(Identifier(database))
            await _alter(session, SQL("ALTER ROLE CURRENT_USER {}RESET ALL").format(where))
    return any(is_wanted for _, is_wanted in settings)


async def present_logins(session: Session) -> list[str]:
    """Return the existing logins of the role."""
    rows = await session.run(SQL("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)"), list(session.names.logins))
    return [name for (name,) in rows]


async def _alter(session: Session, statement: Any) -> None:
    """Run an ``ALTER ROLE`` on the login itself. End its other sessions that lock the row."""
    try:
        await session.run(statement)
    except BlockedError:
        await session.run(_END_BLOCKERS)
        await session.run(statement)


async def cannot_enter(session: Session, username: str) -> bool:
    """Whether ``username`` can never enter: it or the database does not exist, or it lacks the right to connect."""
    ((may,),) = await session.run(_MAY_ENTER, username, session.names.database)
    return not may


async def may_have_sessions(session: Session, username: str) -> bool:
    """Whether a session of ``username`` is open, or a connection of anybody logs in."""
    open_ones = await session.run(SQL("SELECT FROM pg_stat_activity WHERE usename = %s"), username)
    return bool(open_ones or await session.run(_PENDING))


async def is_full(session: Session) -> bool:
    """Whether the tenant's database reached its connection limit."""
    ((full,),) = await session.run(_FULL, session.names.database)
    return bool(full)


async def give_up(session: Session, login: str) -> None:
    """Give the owner role all that ``login`` owns in this database. The session may be or become that login.

    The login has to inherit the owner role's rights.
    """
    await hand_over(session, login, login)
    await session.become(login)
    await session.run(SQL("REASSIGN OWNED BY CURRENT_USER TO {}").format(Identifier(session.names.owner)))  # extensions


class KeptLoginError(GrantError):
    """A login was not ended or deleted, because what it owns would become the administrator's."""


async def prepare_deletion(open_session: Opener, username: str) -> None:
    """As the administrator, before the API deletes an ended login: let nothing of it become the administrator's.

    Before PostgreSQL 16 the API deletes a new login of that name, so what others make as the old one stays nobody's.
    """
    async with open_session() as session:
        if not await _exists(session, username):
            return
        await wait_until_free(session, role=username)
        if session.knows_options:
            await _wait_for_transactions(session, username)
            if left := await _databases(session, username):
                raise _kept(session, username, left, [])
            if await session.run(SQL("SELECT FROM pg_stat_activity WHERE usename = %s"), username):
                raise session.error(
                    f"the login {username!r} was not deleted, because it has a session: end that session, and run this "
                    "again",
                    KeptLoginError,
                )
            return
        gone = gone_name()
        text = SQL("ALTER ROLE {0} RENAME TO {1}; ALTER ROLE {1} NOLOGIN; CREATE ROLE {0} NOLOGIN")
        await session.run(text.format(Identifier(username), Identifier(gone)))
    await forget_role(open_session, gone)


async def _wait_for_transactions(session: Session, username: str) -> None:
    """Wait until all transactions that are open now have ended: one may run a function as the login."""
    began: dict[str, tuple[str, str]] | None = None
    for _ in range(_ROUNDS):
        is_open = {transaction: (login, where) for transaction, login, where in await session.run(_OPEN)}
        began = is_open if began is None else {each: who for each, who in began.items() if each in is_open}
        if not began:
            return
        await asyncio.sleep(_LOOK_SECONDS)
    assert began
    what, remedy = describe_holder(*next(iter(began.values())), None)
    raise session.error(
        f"the login {username!r} was not deleted, because its code may run in {what}: run this again when that has "
        f"ended; to end it, {remedy}",
        KeptLoginError,
    )


async def _exists(session: Session, username: str) -> bool:
    return bool(await session.run(SQL("SELECT FROM pg_roles WHERE rolname = %s"), username))


async def _databases(session: Session, username: str) -> list[str]:
    return [name for (name,) in await session.run(_OWNS_IN, username, username)]


def _kept(session: Session, username: str, databases: list[str], reasons: list[str]) -> GrantError:
    where = ", ".join(repr(name) if name else "the whole server" for name in databases)
    why = f": {'; '.join(reasons)}" if reasons else ""
    return session.error(
        f"the login {username!r} was not deleted, because what it owns (in {where}) would become the administrator's"
        f"{why}; nobody knows its password: drop or give away what it owns there, and run this again",
        KeptLoginError,
    )


@define
class LoginEnd:
    """Ends a login: its sessions, every way to open another, and what it owns.

    The login stays. What a login owns when the API deletes it becomes the administrator's: a function of the tenant
    would run with the administrator's rights. Another session of the tenant may run a function of the login at that
    moment, and make more. So it is deleted only when its tenant is removed.
    """

    username: str
    open_session: Opener
    enter: Callable[[str, str], AbstractAsyncContextManager[Session]]  # as the login: a database, a password
    password: str = field(default="", repr=False)  # the random one, once its sessions are ended

    async def run(self, session: Session) -> None:
        """End the login from one of its own sessions.

        Another session of the login may set a password or end this session first. Then this fails half done.
        """
        await self.end_others(session, lock_out=True)
        await self._disown(session, self._entered)

    async def run_as_administrator(self, session: Session) -> None:
        """End the login without one of its sessions, as PostgreSQL 15 and older allow."""
        if not await _exists(session, self.username):
            return
        if session.knows_options:
            raise session.error(
                f"the login {self.username!r} was not ended: its sessions change its password before the client can "
                "log in: only a superuser can end them, by pg_terminate_backend: ask the provider, and run this again",
                KeptLoginError,
            )
        await session.run(SQL("GRANT {} TO CURRENT_USER").format(Identifier(self.username)))
        await self.end_others(session, lock_out=True)
        await self._disown(session, partial(entered, self.open_session))

    async def _disown(self, session: Session, enter: Callable[[str], AbstractAsyncContextManager[Session]]) -> None:
        """Let the login own nothing in any database, by sessions with its rights that ``enter`` opens."""
        databases, reasons = await _databases(session, self.username), list[str]()
        if not databases:
            return
        own = session.names.database or ""
        is_owner = self.username in session.names.owner_logins
        if is_owner or {own, ""} & {*databases}:
            if not is_owner:
                await _wait_for_transactions(session, self.username)  # one may use the rights
            await self._join_owner()
        for database in dict.fromkeys([own if name == "" else name for name in databases]):
            try:
                async with enter(database) as there:
                    await self._leave(there)
            except (GrantError, LoginRefusedError, ServerAwayError) as error:
                reasons.append(str(error))
        left = await _databases(session, self.username)
        if left and (reasons or session.knows_options):  # before 16, ``prepare_deletion`` drops what others make
            await self._leave_owner()
            raise _kept(session, self.username, left, reasons)

    async def _join_owner(self) -> None:
        """Make the login a member of the owner role, with its rights, until ``end_login`` takes them."""
        async with self.open_session() as session:
            owner = session.names.owner
            if await members(session, owner) is None:
                await take(session, list(membership_steps(session, owner, None, ())))
            text = "GRANT {} TO {}" + (" WITH INHERIT TRUE, SET TRUE" if session.knows_options else "")
            await session.run(SQL(text).format(Identifier(owner), Identifier(self.username)))

    async def _leave_owner(self) -> None:
        """Undo ``_join_owner`` for a login that stays."""
        async with self.open_session() as session:
            owner, login = Identifier(session.names.owner), Identifier(self.username)
            if self.username not in session.names.owner_logins:
                await session.run(SQL("REVOKE {} FROM {}").format(owner, login))
            elif session.knows_options:
                await session.run(SQL("GRANT {} TO {} WITH INHERIT FALSE").format(owner, login))

    @asynccontextmanager
    async def _entered(self, database: str) -> AsyncGenerator[Session]:
        async with self.open_session() as session:
            await open_to(session, database, self.username)
        async with self.enter(database, self.password) as session:
            yield session

    async def _leave(self, session: Session) -> None:
        """In one database: end the login's prepared transactions, and give or drop what it owns."""
        await session.become(self.username)
        for (gid,) in await session.run(_PREPARED, self.username):
            await session.run(SQL("ROLLBACK PREPARED {}").format(Literal(gid)))
        if session.server.info.dbname == session.names.database:
            await give_up(session, self.username)
        elif self.username in session.names.owner_logins:
            # Its large objects are data; the rest is code for others, who would have the tenant's rights.
            await hand_over(session, self.username, self.username)
            await session.become(self.username)
        await session.run(SQL("DROP OWNED BY CURRENT_USER"))

    async def end_others(self, session: Session, *, lock_out: bool) -> None:
        """End the login's other sessions until there are none, and none can begin with an older password."""
        began: set[str] | None = None
        looks = blocked = 0
        while looks < _ROUNDS:
            # A login that began before the last change of the password may still finish with the old one. It counts
            # as a session before it is no longer pending, so this order misses none.
            pending = began and began & await self._pending(session)
            ((others,),) = await session.run(_END_OTHERS, self.username)
            if others == 0 and began is not None and not pending:
                return
            if others or began is None:
                try:
                    if lock_out:
                        await self._lock_out(session)
                    began = await self._pending(session)
                except BlockedError:  # by a session that is about to end, a prepared transaction, or somebody else
                    blocked += 1
                    if blocked > _BLOCKED_LOOKS and (holders := await session.run(_CHANGING, self.username)):
                        raise self._blocked(session, *holders[0]) from None
            looks += not pending  # the server ends a pending login after its authentication_timeout
            await asyncio.sleep(_LOOK_SECONDS)
        raise session.error(f"new sessions of the login {self.username!r} keep appearing: run it again")

    def _blocked(self, session: Session, login: str, database: str, gid: str | None) -> GrantError:
        what, remedy = describe_holder(login, database, gid)
        return session.error(
            f"the login {self.username!r} was not ended, because {what} holds a lock on its password: {remedy}, and "
            "run this again",
            KeptLoginError,
        )

    async def _pending(self, session: Session) -> set[str]:
        return {transaction for (transaction,) in await session.run(_PENDING)}

    async def _lock_out(self, session: Session) -> None:
        """Set a random password that is not stored. Only the login itself may end its prepared transactions."""
        if session.login == self.username:
            for (gid,) in await session.run(_PREPARED, self.username):  # one may hold a lock on the login
                await session.run(SQL("ROLLBACK PREPARED {}").format(Literal(gid)))
        if session.knows_options:  # libpq hashes with as many rounds as the server says
            await session.run(_ROUNDS_OF_SCRAM)
        password = secrets.token_urlsafe(32)
        hashed = session.server.pgconn.encrypt_password(password.encode(), self.username.encode(), b"scram-sha-256")
        text = SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(self.username), Literal(hashed.decode()))
        await session.run(text)
        self.password = password
