r"""``MySQLServer``: what ``Server`` reads, on MySQL. ``MySQLSteps`` has the steps, a method each.

The administrator is the cluster's primary user. It has the usual rights WITH GRANT OPTION and CREATE USER, and may
neither KILL the sessions of others nor make a view that runs as another login::

    CREATE DATABASE `d`
    CREATE USER login IDENTIFIED BY ... WITH MAX_USER_CONNECTIONS n PASSWORD REQUIRE CURRENT
    GRANT SELECT, INSERT, ... ON `d`.* TO login     with ``_``, ``%`` and ``\`` escaped where GRANT takes a pattern

GRANT takes a pattern unless the server runs with ``partial_revokes=ON``.

No login may store a program. An ended login has no rights: the views that it made run with those of who uses them.

What a tenant can still do: commit or roll back another user's prepared transaction if it knows its name.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC
from functools import partial
from typing import Any, TypeVar

from attrs import frozen

from ...._masking import Secret
from ....engines import Engine
from ....errors import ConflictError, InvalidArgumentError
from ..._credential import verifying_context
from ..._naming import Names, Role, names_of
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from .. import (
    DROP_LOGINS_SECONDS,
    Administrator,
    BaseTenant,
    LoginRefusedError,
    Server,
    ServerState,
    ServerUnreachableError,
    SharedSessions,
    TenantSteps,
    of_tenant,
)
from . import accounts, kill, rights, schemas
from .connection import DefinerError, PasswordAcceptedError, Schema, Session, connect, identifier, options_of

_ADMIN_SESSIONS = 8  # sessions of the administrator at a time
_NUMBER = 8  # digits at the end of a login's name
_DROP_SCHEMA_SECONDS = 60.0  # for a schema of many tables

_PRIVILEGES = """
SELECT PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES
WHERE REPLACE(GRANTEE, '''', '') = CURRENT_USER()
"""
# SHOW PROCESSLIST hangs while a session changes its user.
_SESSIONS = "SELECT PROCESSLIST_USER, PROCESSLIST_DB FROM performance_schema.threads WHERE PROCESSLIST_USER IS NOT NULL"
_SIZES = "SELECT NAME, FILE_SIZE FROM information_schema.INNODB_TABLESPACES WHERE NAME LIKE '%%/%%'"
# The schemas of tables without a file of their own: in the system's tablespace, or of another storage engine.
_WITHOUT_FILE = """
SELECT DISTINCT SUBSTRING_INDEX(NAME, '/', 1) FROM information_schema.INNODB_TABLES WHERE SPACE_TYPE <> 'Single'
UNION SELECT DISTINCT TABLE_SCHEMA FROM information_schema.TABLES WHERE ENGINE <> 'InnoDB'
"""
_SIZE = "SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"

T = TypeVar("T")


class MySQLServer(Server):
    """The MySQL of one cluster. Without a connection limit, a login may have a tenth of the server's connections."""

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        admin = Secret(admin)  # a traceback may show it
        self._admin = options_of(admin)
        self._tls = None if ca is None else verifying_context(ca)
        self._limit = connection_limit
        self._session_limit = asyncio.Semaphore(_ADMIN_SESSIONS)
        self.sessions: SharedSessions[Session] = SharedSessions(self._log_in, Session.aclose)

    async def administrator(self) -> Administrator:
        query = "SELECT CURRENT_USER(), VERSION(), UTC_TIMESTAMP(6)"
        async with self.sessions.shared():
            [(name, version, clock)] = await self._ask(query)
            privileges = dict(await self._ask(_PRIVILEGES))
        lacks = [right for right in ("CREATE USER", "PROCESS") if right not in privileges]
        granted = sorted(rights.RIGHTS[Role.OWNER])
        lacks += [f"{right} WITH GRANT OPTION" for right in granted if privileges.get(right) != "YES"]
        return Administrator(name, version, tuple(lacks), clock.replace(tzinfo=UTC))

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted((await self._made()).values()))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        async with self.sessions.shared():
            made, sessions = await self._made(), await self._ask(_SESSIONS)
            used = Counter[str]()
            for name, size in await self._ask(_SIZES):
                used[_decoded(name)] += int(size)
            for schema in {_decoded(name) for (name,) in await self._ask(_WITHOUT_FILE)} & {*made.values()}:
                with suppress(GrantError):  # a tenant has more tables than can be counted in time
                    [(size,)] = await self._ask(_SIZE, schema)
                    used[schema] = max(used[schema], int(size))
        connections = Counter(made.get(user[:-_NUMBER]) or schema_in_use for user, schema_in_use in sessions)
        return {schema: (used[schema], connections[schema]) for schema in made.values()}

    async def _made(self) -> dict[str, str]:
        """The schemas of tenants, by the stem of their logins' names. Accounts of others have no limit."""
        async with self.sessions.shared():
            users = await self._ask("SELECT User FROM mysql.user WHERE Host = '%%' AND max_user_connections > 0")
            schemas = await self._ask("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA")
        stems, made = {str(user)[:-_NUMBER] for (user,) in users}, dict[str, str]()
        for (schema,) in schemas:
            with suppress(InvalidArgumentError):
                if (stem := names_of(schema, Engine.MYSQL).stem) in stems:
                    made[stem] = schema
        return made

    async def inspect(self, names: Names) -> ServerState:
        return await self._read(names, _state)

    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        try:
            async with self._session_limit:
                await (await self._log_in_as(login, password, db=names.database)).aclose()
                return None
        except PasswordAcceptedError:  # but there is no such schema, the rights do not open it, or the login is full
            return None
        except LoginRefusedError as refused:
            return str(refused)
        except ServerUnreachableError as unreachable:
            reason = f"could not be tested: {unreachable}"
        raise of_tenant(names, f"the login {login!r} {reason}")

    async def count_sessions(self, login: str) -> int:
        query = "SELECT COUNT(PROCESSLIST_ID) FROM performance_schema.threads WHERE PROCESSLIST_USER = %s"
        [(number,)] = await self._ask(query, login)
        return int(number)

    async def problems(self, names: Names, wanted: Mapping[str, Role] | None) -> frozenset[Problem]:
        return await self._read(names, partial(_problems, wanted=wanted or {}))

    def steps(self, tenant: BaseTenant) -> MySQLSteps:
        return MySQLSteps(self, tenant)

    # Sessions of the administrator, and of logins.

    async def _ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement that only reads."""
        return await self.sessions.read(lambda session: session.rows(statement, *values))

    async def _read(self, names: Names, do: Callable[[Schema], Awaitable[T]]) -> T:
        """Do what only reads in a session that others share."""
        tenant = BaseTenant(names)
        return await self.sessions.read(lambda session: do(Schema(session, tenant, self._log_in_as, self._limit)))

    @asynccontextmanager
    async def schema(self, tenant: BaseTenant) -> AsyncGenerator[Schema]:
        """Log in as the administrator for the work on one tenant."""
        program = f"aiodbclient {tenant.names.database}"
        async with self._session_limit, aclosing(await self._log_in(program_name=program)) as session:
            yield Schema(session, tenant, self._log_in_as, self._limit)

    async def _log_in(self, **options: Any) -> Session:
        try:
            return await connect(self._admin | options, self._tls, prepared=True)
        except (LoginRefusedError, ServerUnreachableError) as refused:
            reason = str(refused)
        raise GrantError(f"the administrator who makes the tenants' logins cannot log in: {reason}")

    async def _log_in_as(self, login: str, password: Secret, **options: Any) -> Session:
        """Log in as a tenant's login, without a statement."""
        login_options = self._admin | {"user": login, "password": Secret(password)}
        return await connect(login_options | options, self._tls, prepared=False)


@frozen
class MySQLSteps(TenantSteps):
    """The steps for one tenant. Each has its own session of the administrator, whose program names the tenant."""

    _server: MySQLServer
    _tenant: BaseTenant

    async def end_stale_sessions(self) -> None:
        async with self._server.schema(self._tenant) as schema:
            await kill.end_stale_sessions(schema)

    async def create(self, source: Names | None = None) -> bool:
        async with self._server.schema(self._tenant) as schema:
            if await schemas.exists(schema):
                return False
            await _end_access(schema)  # to an earlier one of this name. A next try would find this one, and leave it
            await schema.run(f"CREATE DATABASE {identifier(schema.name)}")
            return True

    async def add_login(self, login: str, password: Secret, role: Role) -> None:
        async with self._server.schema(self._tenant) as schema:
            if not await schemas.exists(schema):  # GRANT takes any name
                raise schema.error(f"the database {schema.name!r} does not exist")
            limits = accounts.LIMITS.format(schema.most)
            await schema.run(f"CREATE USER %s@'%%' IDENTIFIED BY %s {limits}", login, password)
            await rights.set_rights(schema, login, rights.RIGHTS[role])
        await self._server.test_login(self._tenant.names, login, password)

    async def end_logins(self, ending: Collection[str], /) -> None:
        await self._release_views(ending)  # before, so that they work all the time
        async with self._server.schema(self._tenant) as schema:
            await kill.end(schema, ending)

    async def drop_logins(self, ended: Collection[str], /) -> tuple[str, ...]:
        """See ``TenantSteps``. The newest of a suspended tenant stays: it shows that the database is a tenant's."""
        await self._release_views(ended)
        left = {*ended}
        async with self._server.schema(self._tenant) as schema:
            with suppress(TimeoutError):
                async with asyncio.timeout(DROP_LOGINS_SECONDS):
                    existing = await accounts.accounts(schema)
                    if left.issuperset(existing) and await schemas.exists(schema):
                        left -= {*[*existing][-1:]}
                    for login in sorted(left):
                        with suppress(DefinerError):
                            await schema.run("DROP USER IF EXISTS %s@'%%'", login)
                            left.remove(login)
        return tuple(sorted(left))

    async def _release_views(self, definers: Collection[str]) -> None:
        """Let the views of logins go on without them, as far as no session holds them up."""
        with suppress(TimeoutError):
            async with self._server.schema(self._tenant) as schema, asyncio.timeout(DROP_LOGINS_SECONDS):
                await schemas.release_views(schema, definers)

    async def repair(self, wanted: Mapping[str, Role], /) -> None:
        async with self._server.schema(self._tenant) as schema:
            existing = await accounts.accounts(schema, wanted)
            ours = [each.login for each in existing.values() if each.is_ours and not each.is_locked]
            working = [login for login in ours if login in wanted]
            for login in working:
                await rights.set_rights(schema, login, rights.RIGHTS[wanted[login]])
                limits = accounts.LIMITS.format(schema.most)
                await schema.run(f"ALTER USER %s@'%%' {limits} ACCOUNT UNLOCK", login)
            await _end_access(schema, existing)
            await kill.end_elsewhere(schema, working)
            await schemas.release_views(schema, [login for login in existing if login not in wanted])

    async def lock_out(self) -> None:
        async with self._server.schema(self._tenant) as schema:
            await _end_access(schema)

    async def adopt(self) -> str | None:
        async with self._server.schema(self._tenant) as schema:
            existing = await accounts.accounts(schema, [schema.name])
            same_name_login = existing.pop(schema.name, None)
            ours = [each.login for each in existing.values() if not each.is_locked]
            owners = await rights.owners(schema)
            goes_on = [login for login in ours if login in owners][-1:] or ours[-1:]
            if same_name_login and not same_name_login.is_locked and not ours:
                goes_on = [same_name_login.login]
            for login in {*ours, *goes_on}:
                await accounts.check_adoption(schema, login)
            if programs := await schemas.programs(schema):
                raise ConflictError(
                    f"the database {schema.name!r} has stored programs, which no tenant on MySQL may have: "
                    f"{', '.join(programs[:20])}; drop them, and run it again; nothing was changed",
                    status=409,
                )
            await kill.end(schema, {*ours} - {*goes_on})
            await _end_access(schema, goes_on)
            return goes_on[0] if goes_on else None

    async def drop_database(self) -> None:
        await self.lock_out()  # revokes all rights, which outlive their schema
        async with self._server.schema(self._tenant) as schema:
            await schema.run("SET SESSION foreign_key_checks = 0")  # somebody's table may refer to the tenant's
            await schema.run(f"DROP DATABASE IF EXISTS {identifier(schema.name)}", seconds=_DROP_SCHEMA_SECONDS)


def _decoded(name: str) -> str:
    """The schema of a table or file, as InnoDB names it."""
    return re.sub("@([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), str(name).partition("/")[0])


async def _end_access(schema: Schema, ours: Collection[str] | None = None) -> None:
    """End the rights and sessions in the schema of all but ``ours`` and who may enter every schema, or of everybody."""
    await rights.revoke_access(schema, ours or ())
    await kill.end(schema, await kill.disabled_logins_inside(schema))
    await kill.end_in_schema(schema, () if ours is None else {*ours} | await rights.may_enter_all(schema))
    await schemas.make_writable(schema)


async def _state(schema: Schema) -> ServerState:
    existing = await accounts.accounts(schema, [schema.name])
    others, is_there = existing.pop(schema.name, None), await schemas.exists(schema)
    return ServerState(
        database=is_there,
        # A tenant's schema has a login of the tenant, perhaps an ended one, before anybody can make something in it.
        not_ours=is_there and not existing and await schemas.has_content(schema),
        logins=tuple(each.login for each in existing.values() if not each.is_locked),
        disabled=tuple(each.login for each in existing.values() if each.is_locked),
        same_name_login=others is not None and not others.is_locked,
    )


async def _problems(schema: Schema, wanted: Mapping[str, Role]) -> frozenset[Problem]:
    """See ``Server``."""
    existing = await accounts.accounts(schema, [schema.name, *wanted])
    if (same_name_login := existing.get(schema.name)) and schema.name not in wanted and not same_name_login.is_locked:
        del existing[schema.name]  # it is not the tenant's
    ended = {each.login for each in existing.values() if each.is_locked}
    found = {Problem(ProblemKind.OPEN_TO_OTHERS, one.user) for one in await rights.access_of_others(schema, existing)}
    found |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in {*existing} - ended - {*wanted}}
    found |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in await kill.disabled_logins_inside(schema)}
    should_have = dict.fromkeys(ended - {*wanted}, frozenset[str]())
    for account in existing.values():
        if account.login in wanted and account.is_ours:
            should_have[account.login] = rights.RIGHTS[wanted[account.login]]
            if not (0 < account.connections <= schema.most and account.keeps_password):
                found.add(Problem(ProblemKind.RIGHTS_MISSING))
    for login, of_login in should_have.items():
        found |= {problem for *_, problem in await rights.missing_grants(schema, login, of_login)}
    return frozenset(found)
