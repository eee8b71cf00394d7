"""``PostgresServer``: the steps of ``Server`` on PostgreSQL.

``sessions`` has what a session of the administrator is, how it enters a database, and ends who is in its way.
``databases`` has a tenant's database, what it lacks and its end, ``logins`` the life of logins, and ``rights`` those of
readers and writers. ``objects`` knows what a role owns, and drops it. ``strangers`` knows what others own, also to
adopt it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Literal

from ....engines import Engine
from ....errors import ConflictError, InvalidArgumentError
from ..._credential import Secret, verifying_context
from ..._libpq import one_line
from ..._naming import Names, Role, names_of
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from ..server import (
    Administrator,
    Found,
    LoginRefusedError,
    Server,
    ServerAwayError,
    SharedSessions,
    Work,
    of_tenant,
)
from . import databases, logins, objects, rights, strangers
from .sessions import (
    STEP_SECONDS,
    BlockedError,
    CAFile,
    ExistsError,
    Session,
    Watch,
    admin_options,
    clear,
    connect,
    entered,
    rows,
)

_CONNECTIONS = 4  # for the steps, to one server at a time; each step needs one for some milliseconds
_ENDING_SECONDS = 30.0  # for a step that others block, and for the sessions of a login that resist
_PAUSE_SECONDS = 0.2  # before a retry, if another session held a lock. Meanwhile the turn is free for others
_NO_ADMINISTRATOR = "the administrator of the tenants cannot log in"
_TESTS = 4  # how many logins of tenants to test at a time
_LOGIN_SECONDS = 90.0  # the server ends a connection that does not log in after its authentication_timeout, 60 s

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
_PRESENT = SQL("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1")
_DATABASES = SQL("SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datconnlimit <> -2")
_SESSIONS = SQL("SELECT count(*) FROM pg_stat_activity WHERE usename = %s")
_USAGE = SQL("""
SELECT datname, pg_database_size(d.oid), (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid)
FROM pg_database d WHERE datname = ANY (%s)
""")

T = TypeVar("T")


class PostgresServer(Server):
    """The PostgreSQL of one cluster. See ``Server``."""

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        self._admin = admin_options(admin)
        self._ca = None if ca is None else CAFile(ca)  # it replaces the sslmode of the DSN
        self._context = None if self._ca is None or ca is None else verifying_context(ca)
        self._version = 0  # of the server; 0 until it is known
        self._address: logins.Address | None = None  # None until the administrator has logged in
        self._limit = connection_limit
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._tests = asyncio.Semaphore(_TESTS)
        self.sessions = SharedSessions(self._open, AsyncConnection[Any].close)

    # The cluster.

    async def administrator(self) -> Administrator:
        async with self.sessions.shared():
            [(name, version, clock, *has)] = await self._ask(_ADMINISTRATOR)
            [(connections,)] = await self._ask(logins.CONNECTIONS)
        lacks = tuple(right for right, there in zip(_RIGHTS, has, strict=True) if not there)
        return Administrator(name, version, lacks, int(connections), clock.astimezone(UTC))

    async def open_databases(self) -> tuple[str, ...]:
        return tuple(name for (name,) in await self._ask(_OPEN_DATABASES))

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted(_made(await self._ask(_DATABASES))))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        made = list(_made(await self._ask(_DATABASES)))
        return {name: (size, open_) for name, size, open_ in await self._ask(_USAGE, made)}

    # Looking at a tenant.

    async def find(self, names: Names) -> Found:
        wanted = list(names.logins)
        [(database, may, ended)] = await self._ask(_FOUND, names.database, wanted, wanted)
        return Found(database, *(tuple(each for each in wanted if each in there) for there in (may, ended)))

    async def why_no_roles(self, names: Names) -> str:
        if not (await self.find(names)).database:
            return ""
        async with entered(partial(self._turn, Work(names)), names.database) as session:
            return await rights.why_no_roles(session)

    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        if self._address is None:
            await self._ask(SQL("SELECT 1"))
        assert self._address is not None
        try:
            async with self._tests:
                await logins.log_in(self._address, login, password, names.database)
                return None
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = str(away)
        raise of_tenant(names, f"the login {login!r} could not be tested: {reason}")

    async def count_sessions(self, login: str) -> int:
        [(number,)] = await self.sessions.read(partial(rows, statement=_SESSIONS, values=(login,)))
        return int(number)

    async def problems(self, names: Names, logins: Sequence[str]) -> frozenset[Problem]:
        async def outside(session: Session) -> frozenset[Problem]:
            steps = await databases.lacking(session, logins, self._limit)
            return frozenset([*(step.problem for step in steps), *await strangers.problems(session)])

        found = await self._read(names, outside)
        if names.role is Role.OWNER or Problem(ProblemKind.RIGHTS_MISSING) in found:
            return found
        async with self._turn(Work(names), names.database) as session:
            return found | {step.problem for step in await rights.lacking_inside(session)}

    # Steps of the verbs.

    async def end_work(self, work: Work) -> None:
        await self._step(work, logins.end_work)

    async def create(self, work: Work) -> bool:
        try:
            is_new = await self._step(work, databases.create)
        except ExistsError:  # it was made a moment ago, or is left of a DROP DATABASE that was interrupted
            await self._step(work, databases.drop_remains)
            is_new = await self._step(work, databases.create)
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        return is_new

    async def set_login(self, work: Work, login: str, password: Secret, *, may_exist: bool = True) -> None:
        names, stored = work.names, await logins.verifier(password)
        existed = may_exist and await self._read(names, partial(logins.exists, role=login))
        is_new = True
        if existed:
            await self.end_login(work, login)
            is_new = await self.drop_login(work, login)
        if login != names.temporary:  # who knew a password of that one was the tenant
            await self._wait_for_logins(names, login, existed)
        with suppress(ExistsError):
            await self._step(
                work, partial(logins.create_login, login=login, stored=stored, limit=self._limit, is_new=is_new)
            )
            return
        raise ConflictError(f"the login {login!r} exists, and was not changed", status=409)

    async def _wait_for_logins(self, names: Names, login: str, existed: bool) -> None:
        """Wait for connections that may still enter with an earlier password of ``login``."""
        begun, until = await self._read(names, partial(logins.begun, existed=existed)), monotonic() + _LOGIN_SECONDS
        while begun:
            if monotonic() > until:
                raise of_tenant(names, f"a connection that began to log in before {login!r} was ended does not end")
            await asyncio.sleep(_PAUSE_SECONDS / 10)
            begun &= await self._read(names, partial(logins.begun, existed=True))

    async def end_login(self, work: Work, login: str) -> None:
        until = monotonic() + _ENDING_SECONDS
        await self._step(work, partial(logins.end, login=login, until=until))

    async def drop_login(self, work: Work, login: str) -> bool:
        return await objects.drop(partial(self._turn, work), login)

    async def mend(self, work: Work, logins: Sequence[str]) -> None:
        await self._step(work, partial(databases.complete, usernames=logins, limit=self._limit))
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        if left := await strangers.reclaim(partial(self._turn, work)):
            raise of_tenant(
                work.names,
                f"the administrator cannot change all that is others' in the database {work.names.database!r}: "
                f"{'; '.join(left)}: a superuser has to, or the owner of these objects",
            )

    async def _mend_inside(self, work: Work) -> None:
        async with entered(partial(self._turn, work), work.names.database):
            pass
        await self._step(work, rights.complete_inside, work.names.database)

    async def shut(self, work: Work, *, still: bool = False) -> None:
        """See ``Server``. No transaction is ever left."""
        await self._step(work, databases.shut)

    async def adopt(self, work: Work, login: str | None) -> None:
        names = work.names
        await self._read(names, partial(strangers.check_adoption, login=login))
        for other in sorted(names.all_logins - {login}):  # somebody may know its password
            await self.end_login(work, other)
        await self._step(work, partial(strangers.take_database, login=login))
        await strangers.take_objects(partial(self._turn, work), login)

    async def drop_database(self, work: Work) -> None:
        await self._step(work, databases.drop)

    async def release(self, work: Work) -> None:
        await self._step(work, databases.release)
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
        for role, enters in await self._ask(_PRESENT, sorted(gone)):
            if enters:
                await self.end_login(work, role)
            await objects.forget(partial(self._turn, work), role)

    # Moving and dumping.

    async def guests(self, names: Names) -> tuple[str, ...]:
        """See ``Server``: ``CONNECT neighbour``."""
        return tuple(await self._read(names, databases.guests))

    async def unknown(self, names: Names, guests: Sequence[str]) -> tuple[str, ...]:
        everybody = {guest.partition(" ")[2] for guest in guests} - {databases.PUBLIC}
        there = {name for name, _ in await self._ask(_PRESENT, sorted(everybody))}
        return tuple(sorted(everybody - there))

    async def reopen(self, work: Work, guests: Sequence[str]) -> None:
        await self._step(work, partial(databases.give_back, guests=guests))

    async def add_extensions(self, work: Work, extensions: Sequence[tuple[str, str]]) -> None:
        await self._step(work, partial(databases.add_extensions, extensions=extensions), work.names.database)

    # Sessions.

    async def _ask(self, statement: SQL, *values: Any) -> list[Any]:
        """The rows of one statement that only reads."""
        return await self.sessions.read(lambda server: rows(server, statement, values or None))

    async def _read(self, names: Names, do: Callable[[Session], Awaitable[T]]) -> T:
        """Do what only reads in a session that others share."""
        work = Work(names)
        return await self.sessions.read(
            lambda server: do(Session(names, server, partial(self._session, work), work.check_lease))
        )

    async def _step(self, work: Work, do: Callable[[Session], Awaitable[T]], database: str | None = None) -> T:
        """Do a step. If a lock blocks it, retry, and end the tenants that hold it."""
        watch, until = Watch(work), monotonic() + _ENDING_SECONDS
        while True:
            try:
                async with self._turn(work, database) as session, watch.over(session):
                    return await do(session)
            except BlockedError as error:
                blocked = error
            if monotonic() > until:
                raise (
                    of_tenant(work.names, f"{watch.seen}, so it was not finished: {blocked}") if watch.seen else blocked
                )
            await asyncio.sleep(_PAUSE_SECONDS)

    @asynccontextmanager
    async def _turn(self, work: Work, database: str | None = None) -> AsyncGenerator[Session]:
        """A session in a turn. Those that it opens need none, so nobody waits for a turn in a turn."""
        async with self._turns, self._session(work, database) as session:
            yield session

    @asynccontextmanager
    async def _session(self, work: Work, database: str | None = None) -> AsyncGenerator[Session]:
        """A session for the work on one tenant, in the administrator's database or in ``database``.

        The server lists it with the name of the tenant's role, by which ``end_work`` finds it.
        """
        label = work.names.group
        name = SQL("SET application_name = {}").format(Literal(label))  # also to see whether the server has ended it
        try:
            async with asyncio.timeout(STEP_SECONDS + 60), AsyncExitStack() as ending:  # closes it, even if cancelled
                if database is None:
                    named = self.sessions.session(partial(rows, statement=name))
                    server, _ = await ending.enter_async_context(named)
                else:
                    server = await self._open(label, database)
                    ending.push_async_callback(server.close)
                yield Session(work.names, server, partial(self._session, work), work.check_lease)
            return
        except TimeoutError:
            pass
        raise GrantError(f"{_NO_ADMINISTRATOR}, or was cut off: the server did not answer in time")

    async def _open(self, label: str = "aiodbclient", database: str | None = None) -> AsyncConnection[Any]:
        """Connect, again if the server has another version than is known: it may know other settings."""
        options = self._admin | ({} if database is None else {"dbname": database})
        reason = ""
        try:
            server = await connect(options, self._ca, self._version, label)
            info, known = server.info, self._version
            self._version = info.server_version
            context = (self._context or logins.context_of(self._admin)) if server.pgconn.ssl_in_use else None
            self._address = logins.Address(info.host or info.hostaddr, info.port, context)
            if known == self._version:
                return server
            await server.close()  # it awaits nothing
            return await connect(options, self._ca, self._version, label)
        except psycopg.OperationalError as error:
            reason = one_line(error)
            clear(error)
        raise GrantError(f"{_NO_ADMINISTRATOR}: {reason}")


def _made(databases: Sequence[Any]) -> Iterator[str]:
    """Yield the databases that ``create`` made, of their names and owners."""
    for database, owner in databases:
        with suppress(InvalidArgumentError):
            if names_of(database, Engine.PG).owner == owner:
                yield database
