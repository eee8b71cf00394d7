"""``PostgresServer``: what ``Server`` reads, on PostgreSQL. ``PostgresSteps`` has the steps, a method each.

========================= ==========================================================================================
``connection``            a session of the administrator, and the sessions of others that are ended
``databases``             the life of a tenant's database
``template``              makes a copy of another database the tenant's; ``extensions`` adds extensions
``logins``                the life of its logins; ``scram`` their passwords
``rights``                the rights of its database and logins; ``object_rights`` those of readers and writers
``ownership``             what roles own; what is wrong with a tenant, and its repair
========================= ==========================================================================================
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
from attrs import frozen
from psycopg import AsyncConnection
from psycopg.sql import SQL

from ...._masking import Secret
from ....engines import Engine
from ....errors import InvalidArgumentError
from ..._credential import verifying_context
from ..._libpq import one_line
from ..._naming import Names, Role, names_of
from ..._options import DatabaseOptions
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from .. import (
    DROP_LOGINS_SECONDS,
    Administrator,
    BaseTenant,
    Server,
    ServerState,
    SharedSessions,
    TenantSteps,
    of_tenant,
)
from . import databases, extensions, logins, object_rights, ownership, rights, scram, template
from .connection import (
    SESSION_SECONDS,
    BlockedError,
    CAFile,
    LockWatcher,
    Session,
    begin_session,
    clear,
    connect,
    end_stale_sessions,
    options_from,
    rows,
)

_SESSION_LIMIT = 4  # for steps and tests of logins, on one server at a time; most need one for some milliseconds
_NO_ADMINISTRATOR = "the administrator of the tenants cannot log in"
_COPY_LIMIT = 2  # of a template at a time: were all made at once, all would be ready late
ENDING_SECONDS = 30.0  # for a step that others block, and for the sessions of a login that resist
_PAUSE_SECONDS = 0.2  # before a retry, if another session held a lock. Meanwhile the work on others goes on

_ADMINISTRATOR = SQL("""
SELECT rolname, current_setting('server_version'), clock_timestamp(), ARRAY(
    SELECT datname::text FROM pg_database WHERE datallowconn AND EXISTS (
        SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))
        WHERE grantee = 0 AND privilege_type = 'CONNECT') ORDER BY 1),
    rolsuper OR rolcreaterole, rolsuper OR rolcreatedb,
    pg_has_role('pg_signal_backend', 'USAGE'), pg_has_role('pg_read_all_stats', 'USAGE')
FROM pg_roles WHERE rolname = current_user
""")
_RIGHTS = ("CREATEROLE", "CREATEDB", "pg_signal_backend", "pg_read_all_stats")
# Each database, and who may create in it.
_DATABASES = SQL("""
SELECT datname, ARRAY(SELECT pg_get_userbyid(grantee)::text FROM aclexplode(datacl) WHERE privilege_type = 'CREATE')
FROM pg_database WHERE datconnlimit <> -2
""")
_SESSIONS = SQL("SELECT count(*) FROM pg_stat_activity WHERE usename = %s")
_USAGE = SQL("""
SELECT datname, pg_database_size(d.oid), (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid)
FROM pg_database d WHERE datname = ANY (%s)
""")

T = TypeVar("T")


class PostgresServer(Server):
    """The PostgreSQL of one cluster. See ``Server``."""

    def __init__(
        self,
        admin: str,
        ca: str | None,
        *,
        connection_limit: int | None = None,
        options: DatabaseOptions = DatabaseOptions(),
    ) -> None:
        self._admin = options_from(admin)
        self._ca = None if ca is None else CAFile(ca)  # it replaces the sslmode of the DSN
        self._tls = scram.unverified_context() if ca is None else verifying_context(ca)
        self.connection_limit = connection_limit  # of a login; None for a part of the server's
        self.options = options
        self.session_limit = asyncio.Semaphore(_SESSION_LIMIT)  # a step that holds one takes no second one
        self.copy_limit = asyncio.Semaphore(_COPY_LIMIT)
        self.sessions = SharedSessions(self.open, AsyncConnection[Any].close)

    async def administrator(self) -> Administrator:
        [(name, version, clock, opened, *has)] = await self.ask(_ADMINISTRATOR)
        lacks = tuple(right for right, there in zip(_RIGHTS, has, strict=True) if not there)
        return Administrator(name, version, lacks, clock.astimezone(UTC), tuple(opened))

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted(await self._made()))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        made = await self._made()
        return {name: (size, open_) for name, size, open_ in await self.ask(_USAGE, made)}

    async def _made(self) -> list[str]:
        """The databases that ``create`` made: the owner role of each may create in it."""
        found = list[str]()
        for name, creators in await self.ask(_DATABASES):
            with suppress(InvalidArgumentError):
                if names_of(name, Engine.PG).owner in creators:
                    found.append(name)
        return found

    async def inspect(self, names: Names) -> ServerState:
        return await self.sessions.read(partial(databases.inspect, names))

    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        address = self._admin["host"], int(self._admin.get("port", 5432))
        async with self.session_limit:
            return await scram.log_in(address, self._tls, names, login, password)

    async def count_sessions(self, login: str) -> int:
        [(number,)] = await self.ask(_SESSIONS, login)
        return int(number)

    async def problems(self, names: Names, wanted: Mapping[str, Role] | None) -> frozenset[Problem]:
        found = await self.sessions.read(
            lambda server: ownership.problems_outside(
                Session(names, server, self.connection_limit, self.options), wanted
            )
        )
        looks_inside = wanted is not None and (self.options.extensions or {*wanted.values()} - {Role.OWNER})
        if wanted is not None and looks_inside and Problem(ProblemKind.RIGHTS_MISSING) not in found:
            async with self.session_limit, self.steps(BaseTenant(names)).connected_to(names.database) as session:
                found |= await ownership.problems_inside(session, wanted)
        return frozenset(found)

    def steps(self, tenant: BaseTenant) -> PostgresSteps:
        return PostgresSteps(self, tenant)

    async def ask(self, statement: SQL, *values: Any, **named: Any) -> list[Any]:
        """The rows of one statement that only reads."""
        return await self.sessions.read(partial(rows, statement=statement, values=named or values or None))

    async def open(self, database: str | None = None) -> AsyncConnection[Any]:
        """Connect to ``database``, or to the administrator's own. If locks keep all logins out of that, to another."""
        choices, reasons = [{}, {"dbname": "template1"}] if database is None else [{"dbname": database}], list[str]()
        for choice in choices:
            try:
                return await connect(self._admin | choice, self._ca, "aiodbclient")
            except psycopg.OperationalError as error:
                reasons.append(one_line(error))
                clear(error)
                if not isinstance(error, psycopg.errors.ConnectionTimeout):
                    break
        raise GrantError(f"{_NO_ADMINISTRATOR}: {reasons[0]}")


@frozen
class PostgresSteps(TenantSteps):
    """The steps for one tenant. See ``TenantSteps``."""

    _server: PostgresServer
    _tenant: BaseTenant

    async def end_stale_sessions(self) -> None:
        await self._step(end_stale_sessions)

    async def create(self, source: Names | None = None) -> bool:
        if source is None:
            is_new = await self._step(databases.create)
            # A step of its own: repeated, the first one would find that the database is not new.
            if await self._step(databases.open_new):
                await self._step(partial(object_rights.apply_object_rights, wanted={}), inside=True)
            return is_new
        async with self._server.copy_limit:
            await self._step(partial(template.refuse_sessions, source=source))
            if is_new := await self._step(partial(databases.create, source=source.database)):
                await self._step(databases.open_new)
                await self._step(partial(template.take_over, source=source), inside=True)
            return is_new

    async def add_login(self, login: str, password: Secret, role: Role) -> None:
        stored, names = await scram.verifier(password), self._tenant.names
        if role is not Role.OWNER and await self._step(partial(logins.prepare_group, role=role)):
            group = {names.group(role): role}
            await self._step(partial(object_rights.apply_object_rights, wanted=group), inside=True)
        await self._step(partial(logins.create_login, login=login, stored=stored, role=role))
        await self._server.test_login(names, login, password)

    async def add_dump_login(self, login: str, password: Secret) -> None:
        stored = await scram.verifier(password)
        await self._step(partial(logins.create_login, login=login, stored=stored, role=Role.OWNER, dumps=True))

    async def end_logins(self, ending: Collection[str], /) -> None:
        await self._step(partial(logins.end, logins=ending, until=monotonic() + ENDING_SECONDS))

    async def drop_logins(self, ended: Collection[str], /) -> tuple[str, ...]:
        left = sorted(ended, key=self._tenant.names.number, reverse=True)  # first the one that was ended last
        async with self._server.session_limit:
            with suppress(TimeoutError):
                async with asyncio.timeout(DROP_LOGINS_SECONDS):
                    for login in [*left]:
                        with suppress(GrantError):  # a lock of others, or what they granted to it
                            if not await ownership.drop(self.connected_to, login):
                                left.remove(login)
        return tuple(sorted(left))

    async def repair(self, wanted: Mapping[str, Role], /) -> None:
        refused = await self._apply_all(wanted)
        await self._step(partial(ownership.refuse_problems, wanted=wanted, refused=refused))

    async def _apply_all(self, wanted: Mapping[str, Role]) -> list[str]:
        """Give the tenant and its logins what is theirs, lock all others out, and return what was refused."""
        await self._step(partial(rights.apply_database_rights, wanted=wanted))
        refused = await self._step(partial(ownership.revoke_excess, wanted=wanted))
        return refused + await self._step(partial(ownership.reassign_all, wanted=wanted), inside=True)

    async def lock_out(self) -> None:
        await self._step(databases.lock_out)

    async def freeze(self, ending: Collection[str], /) -> None:
        await self._step(partial(databases.freeze, logins=ending))

    async def unfreeze(self, wanted: Mapping[str, Role], /) -> None:
        await self._step(partial(rights.apply_database_rights, wanted=wanted))

    async def adopt(self) -> str | None:
        login = await self._step(databases.login_to_adopt)
        if login is not None and login == self._tenant.names.database:
            await self._step(partial(databases.check_schema, login=login), inside=True)
        found = await self._server.inspect(self._tenant.names)
        await self.end_logins([each for each in found.logins if each != login])  # somebody may know their passwords
        await self._apply_all({} if login is None else {login: Role.OWNER})  # ``problems`` reports what was refused
        return login

    async def drop_database(self) -> None:
        await self._step(databases.drop)

    async def drop_roles(self, role: Role | None = None) -> tuple[str, ...]:
        names, left = self._tenant.names, list[str]()
        if role is None:
            found = await self._server.inspect(names)
            if found.database and not found.not_ours:
                raise of_tenant(names, f"its database {names.database!r} still exists: run it again")
        roles = [names.owner, *names.groups] if role is None else [names.group(role)]
        for (present,) in await self._server.ask(logins.PRESENT, roles):
            left += await ownership.drop_or_rename(self.connected_to, present)
        return tuple(sorted({*left}))

    async def copy_settings(self, limit: int, settings: Sequence[tuple[str, str]]) -> None:
        await self._step(partial(databases.copy_settings, limit=limit, settings=settings))

    async def add_extensions(self, wanted: Sequence[tuple[str, str]]) -> None:
        await self._step(partial(extensions.add, extensions=wanted), inside=True)

    async def restore_extensions(self, *, is_new: bool) -> None:
        if self._server.options.extensions:
            await self._step(partial(extensions.restore, is_new=is_new), inside=True)

    @asynccontextmanager
    async def connected_to(self, database: str | None = None) -> AsyncGenerator[Session]:
        """Yield a session for the work on the tenant, in the administrator's database or in ``database``."""
        begin = partial(begin_session, label=self._tenant.names.owner)  # by which ``end_stale_sessions`` finds it
        try:
            async with asyncio.timeout(SESSION_SECONDS), AsyncExitStack() as ending:  # closes it, even if cancelled
                if database is None:
                    connection, _ = await ending.enter_async_context(self._server.sessions.session(begin))
                else:
                    connection = await self._server.open(database)
                    ending.push_async_callback(connection.close)
                    await begin(connection)
                server, tenant = self._server, self._tenant
                yield Session(tenant.names, connection, server.connection_limit, server.options, tenant.check_lease)
            return
        except TimeoutError:
            pass
        raise GrantError(f"{_NO_ADMINISTRATOR}, or was cut off: the server did not answer in time")

    async def _step(self, do: Callable[[Session], Awaitable[T]], *, inside: bool = False) -> T:
        """Do a step, ``inside`` the tenant's database. If a lock blocks it, retry, and end the tenants that hold it."""
        database = self._tenant.names.database if inside else None
        watch, until = LockWatcher(self._tenant, self.connected_to), monotonic() + ENDING_SECONDS
        while True:
            try:
                async with self._server.session_limit, self.connected_to(database) as session, watch.over(session):
                    return await do(session)
            except BlockedError as error:
                blocked = error
            if monotonic() > until:
                if watch.seen:
                    raise of_tenant(self._tenant.names, f"{watch.seen}, so it was not finished: {blocked}")
                raise blocked
            await asyncio.sleep(_PAUSE_SECONDS)
