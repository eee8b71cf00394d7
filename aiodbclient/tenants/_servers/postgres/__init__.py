"""``PostgresServer``: the steps of ``Server`` on PostgreSQL.

``sessions`` has what a session of the administrator is, how it enters a database, and ends who is in its way.
``databases`` has a tenant's database, what it lacks and its end, ``logins`` the life of logins, and ``rights`` those of
readers and writers. ``objects`` knows what a role owns, and drops it. ``objects_of_others`` finds what others own, and
adopts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
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
from ..._naming import OF_A_GROUP, Names, Role, names_of
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
from . import databases, logins, objects, objects_of_others, rights
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
_DROPS = 2  # how many ended logins to drop at a time
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
# Those of suspended tenants belong to the administrator.
_DATABASES = SQL("SELECT datname, pg_get_userbyid(datdba), current_user FROM pg_database WHERE datconnlimit <> -2")
_OWNERS = SQL("SELECT rolname FROM pg_roles WHERE NOT rolcanlogin AND rolname ~ %s")
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
        self._drops = asyncio.Semaphore(_DROPS)
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
        return tuple(sorted(await self._made()))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        made = await self._made()
        return {name: (size, open_) for name, size, open_ in await self._ask(_USAGE, made)}

    async def _made(self) -> list[str]:
        """The databases that ``create`` made: each has an owner role, which owns it unless it is shut."""
        async with self.sessions.shared():
            databases = await self._ask(_DATABASES)
            owners, found = {role for (role,) in await self._ask(_OWNERS, OF_A_GROUP)}, list[str]()
        for name, belongs_to, admin in databases:
            with suppress(InvalidArgumentError):
                owner = names_of(name, Engine.PG).owner
                if owner in owners and belongs_to in (admin, owner):
                    found.append(name)
        return found

    # Looking at a tenant.

    async def find(self, names: Names) -> Found:
        wanted = list(names.logins)
        [(database, may, ended)] = await self._ask(_FOUND, names.database, wanted, wanted)
        return Found(database, *(tuple(each for each in wanted if each in there) for there in (may, ended)))

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

    async def problems(self, names: Names, logins: Sequence[str] | None) -> frozenset[Problem]:
        async def outside(session: Session) -> frozenset[Problem]:
            steps = await databases.missing_grants(session, logins, self._limit)
            return frozenset([*(step.problem for step in steps), *await objects_of_others.problems(session)])

        found = await self._read(names, outside)
        if names.role is Role.OWNER or logins is None or Problem(ProblemKind.RIGHTS_MISSING) in found:
            return found
        async with self._turn(Work(names), names.database) as session:
            return found | {step.problem for step in await rights.missing_grants_inside(session)}

    # Steps of the verbs.

    async def end_work(self, work: Work) -> None:
        await self._step(work, logins.end_work)

    async def create(self, work: Work) -> bool:
        try:
            is_new = await self._step(work, databases.create)
        except ExistsError:  # it was made a moment ago, or is left of a DROP DATABASE that was interrupted
            await self._step(work, partial(databases.drop_remains, seconds=_ENDING_SECONDS))
            is_new = await self._step(work, databases.create)
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        return is_new

    async def set_login(self, work: Work, login: str, password: Secret, *, may_exist: bool = True) -> None:
        names, stored = work.names, await logins.verifier(password)
        await self._step(work, databases.open_again)
        existed = may_exist and await self._read(names, partial(logins.exists, role=login))
        is_new = True
        if existed:
            await self.end_logins(work, [login])
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

    async def end_logins(self, work: Work, logins_: Collection[str]) -> None:
        until = monotonic() + _ENDING_SECONDS
        await self._step(work, partial(logins.end, logins=logins_, until=until))

    async def drop_login(self, work: Work, login: str) -> bool:
        async with self._drops:  # beside the turns: what others granted to the login can take long
            return await objects.drop(partial(self._session, work), login)

    async def repair(self, work: Work, logins: Sequence[str]) -> None:
        await self._step(work, partial(databases.complete, usernames=logins, limit=self._limit))
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        if left := await objects_of_others.reclaim(partial(self._turn, work)):
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
        await self._step(work, partial(databases.shut, belongs_to_admin=not still))
        if still:
            await self._step(work, databases.refuse_prepared)

    async def adopt(self, work: Work, login: str | None) -> None:
        names = work.names
        await self._read(names, partial(objects_of_others.check_adoption, login=login))
        await self.end_logins(work, names.all_logins - {login})  # somebody may know their passwords
        await self._step(work, partial(objects_of_others.take_database, login=login))
        await objects_of_others.take_objects(partial(self._turn, work), login)

    async def drop_database(self, work: Work) -> None:
        await self._step(work, partial(databases.drop, seconds=_ENDING_SECONDS))

    async def forget(self, work: Work) -> None:
        names = work.names
        if names.role is not Role.OWNER:
            await self._forget(work, {*names.logins, names.group})
        elif (await self.find(names)).database:
            raise of_tenant(names, f"its database {names.database!r} still exists: run it again")
        else:
            await self._forget(work, names.everything)

    async def _forget(self, work: Work, gone: Collection[str]) -> None:
        present = await self._ask(_PRESENT, sorted(gone))
        await self.end_logins(work, [role for role, enters in present if enters])
        for role, _ in present:
            await objects.forget(partial(self._session, work), role)

    # Moving and dumping.

    async def other_grantees(self, names: Names) -> tuple[str, ...]:
        return tuple(await self._read(names, databases.other_grantees))

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
