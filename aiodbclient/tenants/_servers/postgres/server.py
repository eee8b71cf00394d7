"""``PostgresServer``: the steps of ``Server`` on PostgreSQL, and the sessions that they run in.

``sessions`` connects. ``databases`` has a tenant's database and what it lacks, ``roles`` the rights of its readers and
writers, ``logins`` their life. ``leaving`` shuts and drops a database, ``adoption`` takes one over, ``moving`` copies
one. ``objects`` knows who owns what, ``strangers`` what others own. ``entering`` opens a database, ``blockers`` ends
who is in the way. ``scram`` makes and tests passwords.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL

from ...._libpq import one_line
from ....errors import ConflictError, GrantError
from ..._credential import Secret, verifying_context
from ..._naming import Names, Role
from ..._outcomes import Problem
from ..server import Administrator, Found, LoginRefusedError, Server, ServerAwayError, Work, of_tenant
from ..shared_sessions import SessionLostError, SharedSessions
from . import adoption, databases, leaving, logins, moving, roles, scram
from .blockers import Watch
from .entering import Opener, entered
from .sessions import STEP_SECONDS, BlockedError, CAFile, ExistsError, Session, admin_options, clear, connect
from .strangers import reclaim, strangers

ENDING_SECONDS = 30.0  # for a step that others block, and for the sessions of a login that resist
_CONNECTIONS = 4  # to one server at a time; each step needs one for some milliseconds
_TESTS = 4  # how many logins of tenants to test at a time
_PAUSE_SECONDS = 0.2  # before a retry, if another session held a lock. Meanwhile the turn is free for others
_LOGIN_SECONDS = 90.0  # the server ends a connection that does not log in after its authentication_timeout, 60 s
_NO_ADMINISTRATOR = "the administrator of the tenants cannot log in"

_ADMINISTRATOR = SQL("""
SELECT rolname, current_setting('server_version'), clock_timestamp(),
       rolsuper OR rolcreaterole, rolsuper OR rolcreatedb,
       pg_has_role('pg_signal_backend', 'USAGE'), pg_has_role('pg_read_all_stats', 'USAGE')
FROM pg_roles WHERE rolname = current_user
""")
_RIGHTS = ("CREATEROLE", "CREATEDB", "pg_signal_backend", "pg_read_all_stats")
_OPEN_DATABASES = SQL("""
SELECT datname FROM pg_database WHERE datallowconn AND EXISTS (
    SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0 AND privilege_type = 'CONNECT')
ORDER BY datname
""")
_FOUND = SQL("""
SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s AND datconnlimit <> -2),
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%s) AND rolcanlogin),
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%s) AND NOT rolcanlogin)
""")
# What a process that lost its claim still does: its sessions have the name of the role.
_END_WORK = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = current_user AND application_name = %s AND pid <> pg_backend_pid()
""")

T = TypeVar("T")


class PostgresServer(Server):
    """The PostgreSQL of one cluster. See ``Server``."""

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        self._admin = admin_options(admin)
        self._ca = None if ca is None or "sslmode" in self._admin else CAFile(ca)
        self._context = None if self._ca is None or ca is None else verifying_context(ca)
        self._limit = connection_limit
        self._version = 0  # of the server; 0 until it is known
        self._address: scram.Address | None = None  # None until the administrator has logged in
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._tests = asyncio.Semaphore(_TESTS)
        self._sessions = SharedSessions(self._log_in, self._close)

    # The cluster.

    async def administrator(self) -> Administrator:
        [(name, version, clock, *has)] = await self._ask(_ADMINISTRATOR)
        [(connections,)] = await self._ask(databases.CONNECTIONS)
        lacks = tuple(right for right, there in zip(_RIGHTS, has, strict=True) if not there)
        return Administrator(name, version, lacks, int(connections), clock.astimezone(UTC))

    async def open_databases(self) -> tuple[str, ...]:
        return tuple(name for (name,) in await self._ask(_OPEN_DATABASES))

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted(moving.made(await self._ask(moving.OWNERS))))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        made = moving.made(await self._ask(moving.OWNERS))
        return {name: (size, open_) for name, size, open_ in await self._ask(moving.USAGE, list(made))}

    def shared(self) -> AbstractAsyncContextManager[None]:
        return self._sessions.shared()

    # Looking at a tenant.

    async def find(self, names: Names) -> Found:
        wanted = list(names.logins)
        [(database, may, ended)] = await self._ask(_FOUND, names.database, wanted, wanted)
        return Found(database, *(tuple(each for each in wanted if each in there) for there in (may, ended)))

    async def why_no_roles(self, names: Names) -> str:
        if not (await self.find(names)).database:
            return ""
        async with entered(partial(self._session, names), names.database) as session:
            return await roles.why_no_roles(session)

    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        address = await self._where()
        try:
            async with self._tests:
                await scram.log_in(address, login, password, names.database)
                return None
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = str(away)
        raise of_tenant(names, f"the login {login!r} could not be tested: {reason}")

    async def problems(self, names: Names, logins: Sequence[str]) -> frozenset[Problem]:
        async def outside(session: Session) -> frozenset[Problem]:
            steps = await databases.lacking(session, logins, self._limit)
            return frozenset({step.problem for step in steps} | {problem for problem, _ in await strangers(session)})

        found = await self._read(names, outside)
        if names.role is Role.OWNER or Problem.RIGHTS_MISSING in found:
            return found
        async with self._session(names, names.database) as session:
            return found | {step.problem for step in await roles.lacking_inside(session)}

    # Steps of the verbs.

    async def end_work(self, work: Work) -> None:
        async with self._session(work.names, check=work.check) as session:
            until = monotonic() + ENDING_SECONDS
            while await session.run(_END_WORK, _label(work.names)) != [(0,)]:
                if monotonic() > until:
                    raise session.error("the sessions of an earlier process do not end: run it again")
                await asyncio.sleep(_PAUSE_SECONDS / 10)

    async def create(self, work: Work) -> bool:
        is_new = await self._step(work, databases.create)
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        return is_new

    async def set_login(self, work: Work, login: str, password: Secret, *, may_exist: bool = True) -> None:
        names, stored = work.names, await scram.verifier(password)
        existed = may_exist and await self._read(names, partial(logins.exists, role=login))
        if existed:
            await self.end_login(work, login)
            await self.drop_login(work, login)
        await self._wait_for_logins(names, login, existed)
        create = partial(self._create_login, login=login, stored=stored, may_exist=may_exist)
        with suppress(ExistsError):
            await self._step(work, create)
            return
        raise ConflictError(f"the login {login!r} exists, and was not changed", status=409)

    async def _create_login(self, session: Session, login: str, stored: Secret, may_exist: bool) -> None:
        limit = self._limit or await databases.default_limit(session)
        await logins.create_login(session, login, stored, limit, session.names.group, may_exist=may_exist)

    async def _wait_for_logins(self, names: Names, login: str, existed: bool) -> None:
        """Wait for connections that may still enter with an earlier password of ``login``."""
        begun, until = await self._read(names, partial(logins.begun, existed=existed)), monotonic() + _LOGIN_SECONDS
        while begun:
            if monotonic() > until:
                raise of_tenant(names, f"a connection that began to log in before {login!r} was ended does not end")
            await asyncio.sleep(_PAUSE_SECONDS / 10)
            begun &= await self._read(names, partial(logins.begun, existed=True))

    async def end_login(self, work: Work, login: str) -> None:
        until = monotonic() + ENDING_SECONDS
        await self._step(work, partial(logins.end, self._opener(work, turns=False), login=login, until=until))

    async def drop_login(self, work: Work, login: str) -> bool:
        return await logins.drop(self._opener(work), login)

    async def mend(self, work: Work, logins: Sequence[str]) -> None:
        async def outside(session: Session) -> None:
            await databases.take(session, await databases.lacking(session, logins, self._limit))

        await self._step(work, outside)
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        if left := await reclaim(self._opener(work)):
            raise of_tenant(
                work.names,
                f"the administrator cannot change all that is others' in the database {work.names.database!r}: "
                f"{'; '.join(left)}: a superuser has to, or the owner of these objects",
            )

    async def shut(self, work: Work) -> None:
        if await self._step(work, leaving.close):
            await self._step(work, partial(leaving.empty, self._opener(work, turns=False)))

    async def adopt(self, work: Work, login: str | None) -> None:
        names = work.names
        await self._read(names, partial(adoption.check, login=login))
        for other in sorted(names.all_logins - {login}):  # somebody may know its password
            await self.end_login(work, other)
        await self._step(work, partial(adoption.take_database, login=login))
        await adoption.take_objects(self._opener(work), login)

    async def drop_database(self, work: Work) -> None:
        if await self._read(work.names, leaving.is_open):
            await self.shut(work)
        await self._step(work, leaving.drop)

    async def release(self, work: Work) -> None:
        await self.shut(work)
        await self._step(work, leaving.release)
        await self._forget(work, work.names.everything - {work.names.owner})

    async def forget(self, work: Work) -> None:
        names = work.names
        if names.role is not Role.OWNER:
            await self._forget(work, {*names.logins, names.group})
        elif (await self.find(names)).database:
            raise of_tenant(names, f"its database {names.database!r} still exists: run it again")
        else:
            await self._forget(work, names.everything)

    async def _forget(self, work: Work, gone: Collection[str]) -> None:
        for role, enters in await self._read(work.names, partial(leaving.present, roles=gone)):
            if enters:
                await self.end_login(work, role)
            await leaving.forget(self._opener(work), role)

    # Moving and dumping.

    async def guests(self, names: Names) -> tuple[str, ...]:
        async with self._session(names) as session:
            return await moving.guests(session)

    async def unknown(self, names: Names, guests: Sequence[str]) -> tuple[str, ...]:
        async with self._session(names) as session:
            return await moving.unknown(session, guests)

    async def reopen(self, work: Work, guests: Sequence[str]) -> None:
        await self._step(work, partial(moving.reopen, guests=guests))

    async def temporary_login(self, work: Work, password: Secret) -> str:
        await self.drop_temporary(work)
        stored = await scram.verifier(password)
        await self._step(work, partial(moving.create_temporary, stored=stored))
        return work.names.temporary

    async def drop_temporary(self, work: Work) -> None:
        await self.end_login(work, work.names.temporary)
        await logins.drop(self._opener(work), work.names.temporary)

    async def programs(self, names: Names) -> tuple[str, str]:
        return "", ""

    async def add_extensions(self, work: Work, extensions: Sequence[tuple[str, str]]) -> None:
        async with self._session(work.names, work.names.database, check=work.check) as session:
            await moving.add_extensions(session, extensions)

    # Sessions.

    async def _mend_inside(self, work: Work) -> None:
        async with entered(self._opener(work), work.names.database):
            pass

        async def inside(session: Session) -> None:
            await databases.take(session, await roles.lacking_inside(session))

        await self._step(work, inside, work.names.database)

    async def _step(self, work: Work, do: Callable[[Session], Awaitable[T]], database: str | None = None) -> T:
        """Do a step in a session of the administrator. If a lock blocks it, retry, and end the tenants that hold it."""
        watch, until = Watch(work, self._opener(work, turns=False)), monotonic() + ENDING_SECONDS
        while True:
            try:
                async with self._session(work.names, database, check=work.check) as session, watch.over(session):
                    return await do(session)
            except BlockedError as error:
                blocked = error
            if monotonic() > until:
                raise (
                    of_tenant(work.names, f"{watch.seen}, so it was not finished: {blocked}") if watch.seen else blocked
                )
            await asyncio.sleep(_PAUSE_SECONDS)

    def _opener(self, work: Work, *, turns: bool = True) -> Opener:
        def opened(database: str | None = None) -> AbstractAsyncContextManager[Session]:
            return self._session(work.names, database, check=work.check, turns=turns)

        return opened

    @asynccontextmanager
    async def _session(
        self,
        names: Names,
        database: str | None = None,
        *,
        check: Callable[[], object] = lambda: None,
        turns: bool = True,
    ) -> AsyncGenerator[Session]:
        """Log in as the administrator, for one tenant."""
        async with self._administrator(_label(names), database, turns=turns) as server:
            yield Session(names, server, check)

    async def _read(self, names: Names, do: Callable[[Session], Awaitable[T]]) -> T:
        """Do what only reads in a session that others share."""
        return await self._sessions.read(lambda server: do(Session(names, server)))

    async def _ask(self, statement: SQL, *values: Any) -> list[Any]:
        """The rows of one statement of the administrator that only reads."""

        async def read(server: AsyncConnection[Any]) -> list[Any]:
            try:
                return await (await server.execute(statement, values or None)).fetchall()
            except psycopg.Error as error:
                reason = one_line(error)
            kind = SessionLostError if server.closed else GrantError
            raise kind(f"PostgreSQL refused a statement: {reason}")

        return await self._sessions.read(read)

    @asynccontextmanager
    async def _administrator(
        self, label: str, database: str | None = None, *, turns: bool = True
    ) -> AsyncGenerator[AsyncConnection[Any]]:
        try:
            async with self._turns if turns else nullcontext():
                server = await self._open(label, database)
                try:
                    async with asyncio.timeout(STEP_SECONDS + 60):
                        yield server
                    return
                finally:  # not ``async with server``: it leaks the connection if it is cancelled at its end
                    await self._close(server)
        except ServerAwayError as away:
            reason = str(away)
        except TimeoutError:
            reason = "the server did not answer in time"
        raise GrantError(f"{_NO_ADMINISTRATOR}, or was cut off: {reason}")

    async def _log_in(self) -> AsyncConnection[Any]:
        try:
            return await self._open("aiodbclient")
        except ServerAwayError as away:
            reason = str(away)
        raise GrantError(f"{_NO_ADMINISTRATOR}: {reason}")

    async def _open(self, label: str, database: str | None = None) -> AsyncConnection[Any]:
        """Connect, again if the server has another version than is known: it may know other settings."""
        options = self._admin | ({} if database is None else {"dbname": database})
        reason = ""
        try:
            server = await connect(options, self._ca, self._version, label)
            info, known = server.info, self._version
            self._version = info.server_version
            context = (self._context or scram.context_of(self._admin)) if server.pgconn.ssl_in_use else None
            self._address = scram.Address(info.host or info.hostaddr, info.port, context)
            if known == self._version:
                return server
            await self._close(server)
            return await connect(options, self._ca, self._version, label)
        except psycopg.OperationalError as error:
            reason = one_line(error)
            clear(error)
        raise ServerAwayError(reason)

    async def _close(self, server: AsyncConnection[Any]) -> None:
        await server.close()  # it awaits nothing

    async def _where(self) -> scram.Address:
        if self._address is None:
            await self._ask(SQL("SELECT 1"))
        assert self._address is not None
        return self._address


def _label(names: Names) -> str:
    """The ``application_name`` of the sessions that work on a tenant's role under its claim."""
    return names.group
