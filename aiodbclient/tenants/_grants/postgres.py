"""Give tenants their rights on PostgreSQL, with the limited rights of a managed cluster's administrator.

``postgres_rights`` returns the missing statements of a tenant: ``give`` runs them, and ``problems`` reports them.
``postgres_logins`` has the statements that a login itself runs. ``postgres_leaving`` removes databases and roles.
``postgres_adoption`` transfers the rights of an adopted login. ``postgres_objects`` knows who owns what.
``postgres_sessions`` connects, and ``postgres_password`` tests a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC
from functools import partial
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from ..._libpq import one_line
from ...errors import GrantError
from .._credential import verifying_context
from .._naming import Names, Role
from .._outcomes import Problem
from . import Administrator, Grants, LoginRefusedError, ServerAwayError, of_tenant
from .postgres_adoption import carry_over, shut_out
from .postgres_leaving import entered, forget_role, make_removable, open_to, release, shut
from .postgres_logins import (
    KeptLoginError,
    LoginEnd,
    Prepared,
    cannot_enter,
    is_full,
    may_have_sessions,
    prepare,
    prepare_deletion,
    present_logins,
)
from .postgres_password import Address, authenticate, context_of
from .postgres_rights import (
    OPEN_SCHEMAS,
    Step,
    has_database,
    inherit_step,
    lacking,
    lacking_inside,
    lacking_outside,
    take,
)
from .postgres_sessions import ENDING_SECONDS, SESSION_SECONDS, BlockedError, CAFile, Session, admin_options, connect
from .postgres_strangers import drop_elsewhere, reclaim, strangers

# s to wait before a retry, if another session held a lock. Meanwhile the turn is free for others.
_PAUSES = (0.1, 0.5, 1.0)
_AFTER_OPENING = 2  # the attempt of a login to enter after the administrator has made room for it
_LOGINS = 4  # how many logins of tenants to test at a time; each may need a turn of the administrator
_ENDING = 4  # how many logins to end at a time; these do not use the turns

_CONNECTIONS = SQL("""
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
""")
# A superuser may do everything.
_ADMINISTRATOR = SQL("""
SELECT rolname, current_setting('server_version'), rolsuper OR rolcreaterole, rolsuper OR rolcreatedb, clock_timestamp()
FROM pg_catalog.pg_roles WHERE rolname = current_user
""")
_OPEN_DATABASES = SQL("""
SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND EXISTS (
    SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0 AND privilege_type = 'CONNECT')
ORDER BY datname
""")


class PostgresGrants(Grants[AsyncConnection[Any]]):
    """The SQL of one PostgreSQL cluster. See ``Grants``."""

    needs_password = True

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        super().__init__(admin_options(admin))
        self._ca = None if ca is None or "sslmode" in self._admin else CAFile(ca)
        self._context = None if self._ca is None or ca is None else verifying_context(ca)
        self._limit = connection_limit
        self._version = 0  # of the server; 0 until it is known
        self._address: Address | None = None  # None until the administrator has logged in
        self._logins = asyncio.Semaphore(_LOGINS)
        self._ending = asyncio.Semaphore(_ENDING)

    async def why_no_roles(self, names: Names) -> str:
        async with self._session(names) as session:
            if not await has_database(session):
                return ""
        async with entered(partial(self._session, names), names.database or "") as session:
            for schema, is_ours in await session.run(OPEN_SCHEMAS, names.owner):
                if not is_ours:
                    return (
                        f"every login may create objects in the schema {schema!r} of the database {names.database!r}, "
                        "and only a superuser can change that"
                    )
        return ""

    async def connections(self) -> int:
        [(connections,)] = await self._ask(_CONNECTIONS)
        return int(connections)

    async def administrator(self) -> Administrator:
        [(name, version, creates_roles, creates_databases, clock)] = await self._ask(_ADMINISTRATOR)
        has = {"CREATEROLE": creates_roles, "CREATEDB": creates_databases}
        return Administrator(name, version, tuple(right for right in has if not has[right]), clock.astimezone(UTC))

    async def open_databases(self) -> tuple[str, ...]:
        return tuple(name for (name,) in await self._ask(_OPEN_DATABASES))

    async def close_database(self, database: str) -> None:
        try:
            async with self._administrator() as server:
                await server.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(Identifier(database)))
        except psycopg.Error as error:
            reason = one_line(error)
        else:
            if database not in await self.open_databases():
                return
            reason = "only its owner may close it"
        raise GrantError(f"the database {database!r} was not closed to other logins: {reason}")

    async def give(self, names: Names, username: str) -> None:
        async def inside(session: Session) -> None:
            await take(session, await lacking_inside(session))

        try:
            await self._patiently(names, lambda session: self._set_rights(session, [username]))
        except BlockedError:
            if names.role is not Role.OWNER:
                raise
            # A session of another login may hold a lock on the database forever. It can be ended only after this login
            # has replaced that one. Until then, this login inherits the owner's rights to enter.
            async with self._session(names) as session:
                await take(session, [inherit_step(session, username)])
                if not all(step.of_login for step in await lacking(session, [username], self._limit)):
                    raise
        if names.role is not Role.OWNER:
            await self._patiently(names, inside, dbname=names.database)

    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        try:
            async with self._logins, self._entered(names, username, password, testing=True) as session:
                prepared = await prepare(session)
            if prepared is Prepared.HAS_TO_INHERIT:
                async with self._session(names) as session:
                    await take(session, [inherit_step(session, username)])
                async with self._logins, self._entered(names, username, password, testing=True) as session:
                    await prepare(session)
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = str(away)
        else:
            if prepared is not Prepared.DONE:
                await self.give(names, username)
            return None
        raise of_tenant(names, f"the login {username!r} could not be tested: {reason}")

    async def accepts(self, names: Names, username: str, password: str) -> str | None:
        address = await self._where()
        try:
            async with self._turns:
                await authenticate(address, username, password, names.database)
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = str(away)
        else:
            return None
        raise GrantError(
            f"the database server is unreachable, so the login could not be tested: {reason}", tenant=names.tenant
        )

    async def problems(self, names: Names, usernames: Sequence[str]) -> frozenset[Problem]:
        async def seen_from_outside(server: AsyncConnection[Any]) -> frozenset[Problem]:
            session = Session(names, server)
            if names.role is Role.OWNER:
                found = _problems(await lacking(session, usernames, self._limit))
            else:
                found = _problems(await lacking_outside(session, usernames))
                if await cannot_enter(session, session.login):
                    found |= {Problem.RIGHTS_MISSING}
            return found | {problem for problem, _ in await strangers(session)}

        found = await self._sessions.read(seen_from_outside)
        if names.role is Role.OWNER or Problem.RIGHTS_MISSING in found:
            return found
        async with self._session(names, dbname=names.database) as session:
            return found | _problems(await lacking_inside(session))

    async def reclaim(self, names: Names) -> None:
        await reclaim(partial(self._session, names))

    async def end_login(self, names: Names, username: str, password: str | None) -> str | None:
        ending = LoginEnd(username, partial(self._session, names), partial(self._as, names, username))
        kept: KeptLoginError | None = None
        async with self._ending:
            try:
                if password is None:
                    async with self._connected(self._admin, ENDING_SECONDS) as server:
                        await ending.run_as_administrator(Session(names, server))
                else:
                    async with self._entered(names, username, password) as session:
                        await ending.run(session)
            except KeptLoginError as error:
                kept = error  # it loses its rights too
            except (LoginRefusedError, GrantError, ServerAwayError) as error:
                return str(error)  # another session of the login may have ended ours
        async with self._session(names) as session:
            if await has_database(session):
                others = [login for login in await present_logins(session) if login != username]
                with suppress(BlockedError):  # by another session on the database; the next ``give`` does it
                    await self._set_rights(session, others, ended=username)
        if kept is not None:
            raise kept
        await drop_elsewhere(partial(self._session, names))
        return None

    async def end_sessions(self, names: Names, username: str, password: str) -> str | None:
        async with self._session(names) as session:
            if not await may_have_sessions(session, username):
                return None
        ending = LoginEnd(username, partial(self._session, names), partial(self._as, names, username))
        try:
            async with self._ending, self._entered(names, username, password) as session:
                await ending.end_others(session, lock_out=False)
        except (LoginRefusedError, GrantError, ServerAwayError) as error:
            return str(error)  # another session of the login may have ended ours
        return await self.accepts(names, username, password)

    async def has_expired(self, names: Names, username: str) -> bool:
        async with self._session(names) as session:
            expired = SQL("SELECT FROM pg_roles WHERE rolname = %s AND rolvaliduntil < now()")
            return bool(await session.run(expired, username))

    async def before_deletion(self, names: Names, username: str) -> None:
        await prepare_deletion(partial(self._session, names), username)

    async def take_over(self, names: Names, username: str, adopted: Collection[str] = ()) -> None:
        if names.role is Role.OWNER:  # what a reader or writer may do is in its group
            async with self._session(names, dbname=names.database) as session:
                await carry_over(session, username, adopted)

    async def shut_out(self, names: Names, keep: Collection[str]) -> tuple[str, ...]:
        async with self._session(names) as session:
            return await shut_out(session, keep)

    async def before_removal(self, names: Names) -> None:
        await make_removable(partial(self._session, names))

    async def shut(self, names: Names) -> None:
        if names.role is Role.OWNER:
            await shut(partial(self._session, names), self._limit)
            return
        async with self._session(names) as session:
            await take(session, await lacking_outside(session, ()))

    async def release(self, names: Names) -> None:
        await release(partial(self._session, names))

    async def forget(self, names: Names) -> None:
        await forget_role(partial(self._session, names), names.group)

    async def _ask(self, statement: SQL) -> list[Any]:
        """The rows of one statement of the administrator."""
        async with self._administrator() as server:
            return await (await server.execute(statement)).fetchall()

    @asynccontextmanager
    async def _session(self, names: Names, **options: Any) -> AsyncGenerator[Session]:
        """Log in as the administrator, for one tenant. ``options`` replace its own."""
        async with self._administrator(**options) as server:
            yield Session(names, server)

    async def _set_rights(self, session: Session, usernames: Sequence[str], *, ended: str = "") -> None:
        """Give these logins their rights outside of the database, and take those of an ``ended`` one."""
        if session.names.role is Role.OWNER:
            await take(session, await lacking(session, usernames, self._limit, ended=ended))
        else:
            await take(session, await lacking(session, (), self._limit))
            await take(session, await lacking_outside(session, usernames, ended=ended))

    async def _patiently(self, names: Names, work: Callable[[Session], Awaitable[None]], **options: Any) -> None:
        """Do ``work`` in a session of the administrator. If a lock blocks it, retry, and leave the turn to others."""
        for pause in _PAUSES:
            with suppress(BlockedError):
                async with self._session(names, **options) as session:
                    await work(session)
                return
            await asyncio.sleep(pause)
        async with self._session(names, **options) as session:
            await work(session)

    @asynccontextmanager
    async def _as(self, names: Names, username: str, database: str, password: str) -> AsyncGenerator[Session]:
        """Log in as a login of the tenant, with a password that only this process knows."""
        options = self._admin | {"user": username, "password": password, "dbname": database}
        async with self._connected(options, ENDING_SECONDS) as server:
            yield Session(names, server)

    @asynccontextmanager
    async def _entered(
        self, names: Names, username: str, password: str, *, testing: bool = False
    ) -> AsyncGenerator[Session]:
        """Log in as a login of the tenant: to its database or, if that is full or closed, to the administrator's."""
        login = self._admin | await authenticate(await self._where(), username, password, names.database)
        seconds, reason = SESSION_SECONDS if testing else ENDING_SECONDS, ""
        async with AsyncExitStack() as stack:
            for turn, database in enumerate((names.database, self._admin.get("dbname"), names.database)):
                try:
                    server = await stack.enter_async_context(self._connected(login | {"dbname": database}, seconds))
                except ServerAwayError as away:
                    reason = reason or str(away)
                else:
                    if turn == _AFTER_OPENING:
                        await self._set_limit(names)
                    yield Session(names, server)
                    return
                async with self._session(names) as session:
                    shut_out, full = await cannot_enter(session, username), await is_full(session)
                    if turn == _AFTER_OPENING - 1:  # the administrator's database is closed to tenants
                        await open_to(session, names.database or "", username, full=full)
                if testing and shut_out:
                    raise LoginRefusedError(reason)
                if testing and not full:
                    break
        raise ServerAwayError(reason)

    async def _set_limit(self, names: Names) -> None:
        """Limit the connections to the tenant's database again. If a lock prevents it, the next ``give`` does it."""
        with suppress(BlockedError):
            async with self._session(names) as session:
                await take(session, await lacking(session, (), self._limit))

    async def _where(self) -> Address:
        if self._address is None:
            await self.check()
        assert self._address is not None
        return self._address

    async def _open(self, options: dict[str, Any], seconds: float = SESSION_SECONDS) -> AsyncConnection[Any]:
        try:
            server = await connect(options, self._ca, self._version, seconds)
        except psycopg.OperationalError as error:
            reason = one_line(error)
        else:
            self._version, info = server.info.server_version, server.info
            context = (self._context or context_of(self._admin)) if server.pgconn.ssl_in_use else None
            self._address = Address(info.host or info.hostaddr, info.port, context)
            return server
        raise ServerAwayError(reason)

    async def _close(self, server: AsyncConnection[Any]) -> None:
        await server.close()  # it awaits nothing

    @asynccontextmanager
    async def _connected(
        self, options: dict[str, Any], seconds: float = SESSION_SECONDS
    ) -> AsyncGenerator[AsyncConnection[Any]]:
        server = await self._open(options, seconds)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    yield server
                return
        finally:  # not ``async with server``: it leaks the connection if it is cancelled at its end
            await self._close(server)
        raise ServerAwayError(f"it did not answer within {seconds:.0f} s")


def _problems(steps: Sequence[Step]) -> frozenset[Problem]:
    return frozenset(step.problem for step in steps)
