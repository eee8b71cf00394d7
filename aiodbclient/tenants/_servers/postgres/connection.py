"""Sessions on a tenant's PostgreSQL: verified, bounded in time, and protected from the tenant's settings and code.

A tenant owns what is in its database, and may plant functions and operators in it. The database may have settings, such
as ``search_path`` or ``statement_timeout``. So every session here sets its own value for each such setting: client
options override the settings of a database and of a role. No session of the administrator runs what a tenant wrote,
also not after ``SET ROLE``, which a function may undo.

During a step, ``LockWatcher`` reads which sessions block it. If a tenant's login has blocked it for
``PATIENCE_SECONDS``, by one session or by several, its sessions are terminated. No other session is. The error names a
prepared transaction that blocks the step: its owner or a superuser can roll it back.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import traceback
import weakref
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg
from attrs import define, field, frozen
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier, Literal

from ...._masking import Secret
from ....errors import DatabaseClientError
from ..._libpq import one_line, options_of
from ..._naming import OF_A_GROUP, Names
from ..._options import DatabaseOptions
from ...errors import GrantError
from .. import BaseTenant, SessionLostError, of_tenant

CONNECT_SECONDS = 10
WITH_OPTIONS = 16_00_00  # the first server version with WITH INHERIT, WITH SET and createrole_self_grant
_WITH_TRANSACTION_TIMEOUT = 17_00_00
SESSION_SECONDS = 120.0  # for everything in one session
_IDLE_SECONDS = 60
PATIENCE_SECONDS = 5.0  # with a tenant's login that holds a lock
_FIRST_POLL_SECONDS = 0.3  # most steps are done by then
_POLL_SECONDS = 0.2
_END_AGAIN_SECONDS = 0.02
_OPENING_SECONDS = 2.0  # after which a session that is being opened is ended
_STATEMENT_CHARACTERS = 1_000  # of a refused statement in an error
_VERIFIER = re.compile("PASSWORD '[^']*'")

_SETTINGS = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "standard_conforming_strings": "on",
    "local_preload_libraries": "",
    "exit_on_error": "off",
    "lock_timeout": "1s",
    "statement_timeout": "100s",  # CREATE DATABASE may copy some gigabytes. See also ``databases.drop``
    "client_connection_check_interval": "1s",
    # The server ends a session whose client has vanished.
    "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
    "idle_session_timeout": f"{_IDLE_SECONDS}s",
}
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}

_SAME_ROW = "tuple concurrently"  # PostgreSQL does not translate its internal errors

# What a process that lost its claim still does: its sessions have the name of the owner role.
_END_STALE = SQL("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename = current_user AND application_name = %s AND pid <> pg_backend_pid()
""")
# From before the server looks at CONNECT until ``pg_stat_activity`` has a session, it holds or awaits this lock.
_OPENING: LiteralString = """
FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND mode = 'RowExclusiveLock'
"""
_FIND_OPENING = SQL(f"""
SELECT pid {_OPENING}
  AND (%(database)s::text IS NULL OR objid = (SELECT oid FROM pg_database WHERE datname = %(database)s))
""")
_END_OPENING = SQL(f"SELECT pg_terminate_backend(pid) {_OPENING} AND pid = %s")
# What runs SQL of a login: a walsender does, if the login may replicate.
CLIENTS: LiteralString = "backend_type IN ('client backend', 'walsender')"
# In the database, sessions of any login, and of roles that were dropped. A superuser's is the provider's, and cannot be
# ended. MATERIALIZED: otherwise the planner may call pg_terminate_backend before it checks the conditions.
_END = SQL(f"""
WITH found AS MATERIALIZED (
    SELECT pid, coalesce(usename, 'a dropped role') AS login
    FROM pg_stat_activity LEFT JOIN pg_roles r ON r.oid = usesysid
    WHERE pid <> pg_backend_pid() AND (usename = ANY (%s) OR datname = %s AND {CLIENTS}
      AND rolsuper IS DISTINCT FROM true AND coalesce(usename, '') <> ALL (%s)))
SELECT pid, login FROM found, pg_terminate_backend(pid)
""")
# Whether the role ``r`` is a tenant's: an owner role, a group, a member of one, or a login of this tenant, which may be
# ended. Never an administrator.
_OF_A_TENANT = """
coalesce(NOT r.rolsuper AND NOT r.rolcreaterole AND (r.rolname ~ %(form)s OR r.rolname ~ %(own)s OR EXISTS (
    SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname ~ %(form)s)),
false)
"""
# Who the session with this process id waits for, and whether it was ended: the sessions of ``ending`` are.
_END_BLOCKING = SQL(f"""
SELECT a.usename, a.datname, CASE WHEN a.usename = ANY (%(ending)s) AND {_OF_A_TENANT} AND a.{CLIENTS}
       THEN pg_terminate_backend(b.pid) END
FROM unnest(pg_blocking_pids(%(pid)s)) AS b (pid)
JOIN pg_stat_activity a USING (pid) LEFT JOIN pg_roles r ON r.oid = a.usesysid
""")
# PostgreSQL does not say which one. Without any of these, no prepared transaction would be in the way.
_BLOCKING_PREPARED = SQL("SELECT database, gid, owner FROM pg_prepared_xacts WHERE 0 = ANY (pg_blocking_pids(%(pid)s))")
Statement: TypeAlias = SQL | Composed
T = TypeVar("T")


class BlockedError(GrantError):
    """Another session is in the way of the statement: it holds a lock, for example."""


class DeniedError(GrantError):
    """The administrator lacks a right that the statement needs."""


class StatementTimeoutError(GrantError):
    """The server did not finish the statement in time, though nobody held a lock that it needs."""


# PostgreSQL's manual, "PostgreSQL Error Codes".
_ERRORS: Mapping[str | None, type[GrantError]] = {
    "55P03": BlockedError,  # a lock timeout
    "40001": BlockedError,  # a serialization failure
    "40P01": BlockedError,  # a deadlock
    "42P04": BlockedError,  # another session has just created the database: the next try finds it
    "42501": DeniedError,
    "57014": StatementTimeoutError,
}


# Keep it while connections are open: to cancel a statement, libpq opens another connection.
@define(eq=False)
class CAFile:
    """A temporary file with the cluster's CA certificate, because libpq only takes a file."""

    ca: str
    _path: str = ""

    def path(self) -> str:
        """Return the path of the file. If something deleted the file, write it again."""
        if not os.path.exists(self._path):
            handle, self._path = tempfile.mkstemp(prefix="aiodbclient-", suffix=".pem")
            with open(handle, "w") as file:
                file.write(self.ca)
            weakref.finalize(self, Path(self._path).unlink, missing_ok=True)
        return self._path


def options_from(dsn: str) -> dict[str, Any]:
    """Return the options of the DSN of a login, whose password a traceback does not show."""
    options = options_of(dsn, "admin")
    return options | {"password": Secret(options.get("password", ""))}


async def connect(options: Mapping[str, Any], ca: CAFile | None, name: str) -> AsyncConnection[Any]:
    """Connect with ``_SETTINGS``, verify the server by ``ca`` if given, and set ``name`` as the application name."""
    given = " ".join([str(options.get("options") or ""), *[f"-c {key}={value}" for key, value in _SETTINGS.items()]])
    verified = {} if ca is None else {"sslmode": "verify-full", "sslrootcert": ca.path()}
    conninfo = Secret(
        make_conninfo(
            "",
            **{**_KEEPALIVE, **options, **verified, "options": given},
            client_encoding="utf8",
            application_name=name,
            connect_timeout=CONNECT_SECONDS,
        )
    )
    try:
        return await AsyncConnection.connect(conninfo, autocommit=True)
    except BaseException as error:
        # psycopg's frames hold the password, and the half-made connection in a cycle with its error.
        clear(error)
        if isinstance(error, psycopg.Error) and error.pgconn is not None:
            error.pgconn.finish()
        raise


def clear(error: BaseException) -> None:
    """Remove the local variables from the ended frames of an error, and from those of the errors before it."""
    seen = set[int]()
    while id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__ or error


async def begin_session(server: AsyncConnection[Any], label: str) -> None:
    """Name a session after its work, and set what an older server does not know. The server may have ended it."""
    version = server.info.server_version
    statements = list[Statement]([SQL("SET application_name = {}").format(Literal(label))])
    if version >= WITH_OPTIONS:
        # Each membership in the roles that the administrator makes would delay later statements.
        statements.append(SQL("SET createrole_self_grant = {}").format(Literal("")))
    if version >= _WITH_TRANSACTION_TIMEOUT:
        statements.append(SQL("SET transaction_timeout = 0"))  # each statement has a timeout
    await rows(server, SQL("; ").join(statements))


async def rows(server: AsyncConnection[Any], statement: Statement, values: Any = None, tenant: str = "") -> list[Any]:
    try:
        cursor = await server.execute(statement, values)
        return [] if cursor.description is None else await cursor.fetchall()
    except psycopg.Error as error:
        reason = error.diag.message_primary or one_line(error)
        kind = _ERRORS.get(error.sqlstate, SessionLostError if server.closed else GrantError)
        if kind is BlockedError or reason.startswith(_SAME_ROW):
            kind, reason = BlockedError, f"{reason} (another session holds a lock that it needs)"
    of, shown = (f"tenant {tenant!r}: ", _shown(statement)) if tenant else ("", "")
    raise kind(f"{of}PostgreSQL refused a statement: {reason}", tenant=tenant, statement=shown)


def _shown(statement: Statement) -> str:
    return _VERIFIER.sub("PASSWORD '...'", statement.as_string(None))[:_STATEMENT_CHARACTERS]


def verbatim(text: Any) -> SQL:
    """Return SQL from the server itself: a privilege, or a quoted name."""
    return SQL(text)


def as_role(role: str, *statements: Statement) -> list[Statement]:
    """The statements, in a transaction of a member of ``role``, as that role: with many roles, its rights cost less."""
    return [SQL("SET LOCAL ROLE {}").format(Identifier(role)), *statements, SQL("SET LOCAL ROLE NONE")]


@frozen
class Session:
    """A session of the administrator, at work for one tenant."""

    names: Names
    server: AsyncConnection[Any]
    connection_limit: int | None = None  # of a login; None for a part of the server's
    options: DatabaseOptions = DatabaseOptions()
    check_lease: Callable[[], None] | None = None  # before each statement: whether the claim still holds

    @property
    def admin(self) -> str:
        return self.server.info.user

    @property
    def knows_options(self) -> bool:
        """Whether the server supports ``WITH INHERIT`` and ``WITH SET``. Without them, members inherit and may set."""
        return self.server.info.server_version >= WITH_OPTIONS

    async def run(self, statement: Statement, *values: Any, **named: Any) -> list[Any]:
        if self.check_lease is not None:
            self.check_lease()
        return await rows(self.server, statement, named or values or None, self.names.tenant)

    def error(self, reason: str) -> GrantError:
        return of_tenant(self.names, reason)

    async def run_as(self, role: str, *statements: Statement) -> None:
        """Execute statements that return nothing as ``role``, in one transaction."""
        await self.run_with([role], *as_role(role, *statements))

    async def run_with(self, roles: Collection[str], *statements: Statement) -> None:
        """Execute statements that return nothing as a member of ``roles``, in one transaction and one round trip."""
        begin, end = list[Statement]([SQL("BEGIN")]), list[Statement]([SQL("COMMIT")])
        if roles:
            options, by = SQL(""), SQL("")
            if self.knows_options:
                options, by = SQL(" WITH INHERIT TRUE, SET TRUE"), SQL(" GRANTED BY CURRENT_USER")
            names = SQL(", ").join(map(Identifier, sorted(roles)))
            begin.append(SQL("GRANT {} TO CURRENT_USER{}").format(names, options))
            end.insert(0, SQL("REVOKE {} FROM CURRENT_USER{}").format(names, by))
        try:
            await self.run(SQL("; ").join([*begin, *statements, *end]))
        except GrantError as error:
            error.statement = _shown(SQL("; ").join(statements))  # without the transaction around them
            with suppress(GrantError):
                await self.run(SQL("ROLLBACK"))
            raise


# Opens a session for one tenant, in the administrator's database, or in the one that is its argument.
Connector: TypeAlias = Callable[..., AbstractAsyncContextManager[Session]]


# The sessions of others.


async def end_stale_sessions(session: Session) -> None:
    """End the sessions of an earlier process, which has the same names for them."""
    if await session.run(_END_STALE, session.names.owner):  # until the next try
        reason = f"tenant {session.names.tenant!r}: the sessions of an earlier process do not end: run it again"
        raise BlockedError(reason, tenant=session.names.tenant)


async def end_opening(session: Session, database: str | None = None) -> None:
    """Wait for the sessions that others are opening, in ``database`` or in any, and end those that take too long."""
    # They may have passed all checks, and nothing shows whose they are. ``post_auth_delay`` hides one for half an hour.
    until = monotonic() + _OPENING_SECONDS
    opening = set(await session.run(_FIND_OPENING, database=database))
    while opening and monotonic() < until:
        await asyncio.sleep(_END_AGAIN_SECONDS)
        opening &= set(await session.run(_FIND_OPENING, database=database))
    for (pid,) in opening:
        with suppress(DeniedError):  # a superuser's, such as the provider's
            await session.run(_END_OPENING, pid)


async def end_sessions(
    session: Session,
    seconds: float = 0.0,
    *,
    database: str | None = None,
    logins: Collection[str] = (),
    keep: Collection[str] = (),
) -> list[str]:
    """End the sessions in ``database`` but those of ``keep``, and those of ``logins`` in all.

    Look again until there are none, or for ``seconds``. Return those that were left.
    """
    until = monotonic() + seconds
    while True:
        await end_opening(session, None if logins else database)
        left = await session.run(_END, [*logins], database, [*keep])
        if not left or monotonic() > until:
            return [f"process {pid} of {login!r}" for pid, login in left]
        await asyncio.sleep(_END_AGAIN_SECONDS)


@define
class LockWatcher:
    """Watches over a step, and ends who blocks it."""

    tenant: BaseTenant
    connected_to: Connector
    seen: str = ""  # who was in the way last
    _since: dict[str, float] = field(factory=dict[str, float])  # when a login was in the way first
    _looking: asyncio.Lock = field(factory=asyncio.Lock)  # held until it is noted who was ended

    @asynccontextmanager
    async def over(self, session: Session) -> AsyncGenerator[None]:
        """End who blocks ``session``, with a second one."""
        watching = asyncio.create_task(self._watch(session))
        try:
            yield
        finally:
            try:
                async with self._looking:
                    pass
            finally:
                watching.cancel()
                await asyncio.wait([watching])

    async def _watch(self, session: Session) -> None:
        await asyncio.sleep(_FIRST_POLL_SECONDS)
        with suppress(DatabaseClientError):  # the watched session reports what is wrong
            async with self.connected_to() as second:
                while True:
                    async with self._looking:
                        await self._look(second, session.server.info.backend_pid)
                    await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, session: Session, pid: int) -> None:
        own, now = self.tenant.names.login_pattern, monotonic()
        ending = [login for login, since in self._since.items() if now - since > PATIENCE_SECONDS]
        blocking = await session.run(_END_BLOCKING, pid=pid, form=OF_A_GROUP, own=own, ending=ending)
        for login, database, was_ended in blocking:
            self._since.setdefault(login, now)
            self.seen = f"an open transaction of the login {login!r} in the database {database!r} holds a lock"
            if was_ended is not None and not self.tenant.names.is_ours(login):
                self.tenant.terminated.add(login)
        for database, gid, owner in await session.run(_BLOCKING_PREPARED, pid=pid):
            self.seen = f"the prepared transaction {gid!r} of {owner!r} in the database {database!r} holds a lock"
