r"""``MySQLServer``: what MySQL does for the tenants of one cluster, as the administrator.

The administrator is the cluster's primary user. It has the usual rights WITH GRANT OPTION and CREATE USER, and may
neither KILL the sessions of others nor change who code runs as::

    CREATE DATABASE `d`
    CREATE USER login IDENTIFIED BY ... WITH MAX_USER_CONNECTIONS n PASSWORD REQUIRE CURRENT
    GRANT ALL PRIVILEGES ON `d`.* TO login          with ``_``, ``%`` and ``\`` escaped where GRANT takes a pattern

GRANT takes a pattern unless the server runs with ``partial_revokes=ON``.

A revoked login whose events, routines, views or triggers are still there stays, locked, and keeps its rights: they run
with them. A suspended tenant has no rights at all, so its events fail.

What a tenant can still do: commit or roll back another user's prepared transaction if it knows its name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from ....engines import Engine
from ....errors import InvalidArgumentError
from ..._credential import Secret, verifying_context
from ..._naming import Names, Role, names_of
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from ..server import (
    TEMPORARY_CONNECTIONS,
    Administrator,
    Found,
    LoginRefusedError,
    Server,
    ServerAwayError,
    SharedSessions,
    Work,
    of_tenant,
)
from . import rights
from .accounts import (
    accounts,
    check_adoption,
    check_hosts,
    drop_account,
    drop_helpers,
    exists,
    hosts,
    repair_account,
    set_account,
)
from .ending import end, end_in_schema, wait_for_pending
from .leftovers import make_writable, read_programs, refuse_prepared
from .session import PasswordAcceptedError, Schema, Session, identifier, opened, options_of

_TURNS = 8  # sessions of the administrator at a time
_LONG_TURNS = 4  # for work that a tenant can delay, so that it blocks no one else
_DROP_SECONDS = 60.0  # for a schema of many tables
_NO_ADMINISTRATOR = "the administrator who makes the tenants' logins cannot log in"
_NO_SUCH_THREAD = (1094,)

T = TypeVar("T")


class MySQLServer(Server):
    """The MySQL of one cluster. Without a connection limit, a login may have a quarter of the server's connections."""

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        admin = Secret(admin)  # a traceback may show it
        self._admin = options_of(admin)
        self._tls = None if ca is None else verifying_context(ca)
        self._limit = connection_limit
        self._turns = asyncio.Semaphore(_TURNS)
        self._long_turns = asyncio.Semaphore(_LONG_TURNS)
        self.sessions: SharedSessions[Session] = SharedSessions(self._log_in, Session.aclose)

    # The cluster.

    async def administrator(self) -> Administrator:
        return await self.sessions.read(rights.administrator)

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted(await self.sessions.read(_families)))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        return await self.sessions.read(_usage)

    # Looking at a tenant.

    async def find(self, names: Names) -> Found:
        return await self._read(names, _find)

    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        options = self._admin | {"user": login, "password": Secret(password), "db": names.database}
        try:
            async with self._turns:
                await (await opened(options, self._tls, prepared=False)).aclose()
                return None
        except PasswordAcceptedError:  # but there is no such schema, the rights do not open it, or the login is full
            return None
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = f"could not be tested: {away}"
        raise of_tenant(names, f"the login {login!r} {reason}")

    async def count_sessions(self, login: str) -> int:
        query = (
            "SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_ID IS NOT NULL AND PROCESSLIST_USER = %s"
        )
        [(number,)] = await self.sessions.read(lambda session: session.rows(query, login))
        return int(number)

    async def problems(self, names: Names, logins: Sequence[str] | None) -> frozenset[Problem]:
        return await self._read(names, partial(_problems, logins=logins or ()))

    # Steps of the verbs.

    async def end_work(self, work: Work) -> None:
        async with self._schema(work, self._long_turns, name="") as schema:
            for login in (*work.names.logins, work.names.temporary):
                await drop_helpers(schema, login)
            query = (
                "SELECT DISTINCT PROCESSLIST_ID FROM performance_schema.session_account_connect_attrs "
                "WHERE ATTR_NAME = 'program_name' AND ATTR_VALUE = %s"
            )
            while found := await schema.read(query, _program(work.names)):
                for (number,) in found:
                    await schema.session.rows("KILL %s", number, fine=_NO_SUCH_THREAD)
                await asyncio.sleep(0.02)

    async def create(self, work: Work) -> bool:
        async with self._schema(work) as schema:
            found = await _find(schema)
            if work.names.role is not Role.OWNER:
                return not (found.logins or found.ended)
            if not found.database:
                rights.check_name(schema)
                await rights.revoke_others(schema)  # before it exists: a next try would find it, and leave them
                await schema.change(f"CREATE DATABASE {identifier(schema.name)}")
            return not found.database

    async def set_login(self, work: Work, login: str, password: Secret, *, may_exist: bool = True) -> None:
        """See ``Server``. Without SHOW_ROUTINE, MySQL shows ``names.temporary`` no routine of another definer."""
        async with self._schema(work, self._long_turns) as schema:
            if not may_exist and "%" in await hosts(schema, login):
                raise exists(schema, login)
            if login == work.names.temporary:
                await _set_login(schema, login, password, TEMPORARY_CONNECTIONS, rights.TEMPORARY)
                return
            if work.names.role is Role.OWNER:
                await make_writable(schema)
            await _set_login(schema, login, password, await schema.most())
            for other in (await accounts(schema, work.names.logins)).values():
                if other.is_locked:  # what runs as it needs its rights
                    await rights.set_rights(schema, other.login)

    async def end_logins(self, work: Work, logins: Collection[str]) -> None:
        async with self._schema(work, self._long_turns) as schema:
            await end(schema, logins)

    async def drop_login(self, work: Work, login: str) -> bool:
        async with self._schema(work) as schema:
            if await drop_account(schema, login):
                return True
            await rights.set_rights(schema, login)  # that of others had all rights in every schema
            return False

    async def repair(self, work: Work, logins: Sequence[str]) -> None:
        async with self._schema(work, self._long_turns) as schema:
            if work.names.role is Role.OWNER:
                await make_writable(schema)
            await end_in_schema(schema, await rights.revoke_others(schema))
            most = await schema.most()
            for account in (await accounts(schema, work.names.logins)).values():
                await check_hosts(schema, account.login)
                if not account.is_ours:
                    continue
                if account.login in logins and not account.is_locked:
                    await repair_account(schema, account, most)
                if logins:
                    await rights.set_rights(schema, account.login)

    async def shut(self, work: Work, *, still: bool = False) -> None:
        async with self._schema(work, self._long_turns) as schema:
            await _shut(schema, still=still)

    async def adopt(self, work: Work, login: str | None) -> None:
        async with self._schema(work, self._long_turns) as schema:
            rights.check_name(schema)
            if login is not None:
                await check_adoption(schema, login)
            await make_writable(schema)
            await end_in_schema(schema, await rights.revoke_others(schema))

    async def drop_database(self, work: Work) -> None:
        async with self._schema(work, self._long_turns) as schema:
            await _shut(schema, still=True)  # for whose locks DROP DATABASE would wait
            await schema.change(f"DROP DATABASE IF EXISTS {identifier(schema.name)}", seconds=_DROP_SECONDS)

    async def forget(self, work: Work) -> None:
        async with self._schema(work, self._long_turns) as schema:
            logins: tuple[str, ...] = work.names.logins
            if work.names.role is Role.OWNER:
                await rights.revoke_all(schema)
                logins = (*logins, work.names.temporary)
            await end(schema, logins)
            for login in logins:
                await drop_account(schema, login)

    # Moving and dumping.

    async def other_grantees(self, names: Names) -> tuple[str, ...]:
        return tuple(await self._read(names, rights.other_grantees))

    async def programs(self, names: Names) -> tuple[str, str]:
        return await self._read(names, read_programs)

    # Sessions.

    async def _read(self, names: Names, do: Callable[[Schema], Awaitable[T]]) -> T:
        """Do what only reads in a session that others share."""
        return await self.sessions.read(lambda session: do(Schema(session, Work(names), self._own, self._limit)))

    @asynccontextmanager
    async def _schema(
        self, work: Work, turns: asyncio.Semaphore | None = None, name: str | None = None
    ) -> AsyncGenerator[Schema]:
        """Log in as the administrator for the work on one tenant, so that ``end_work`` finds the session."""
        name = _program(work.names) if name is None else name
        try:
            async with turns or self._turns, aclosing(await self._log_in(program_name=name)) as session:
                yield Schema(session, work, self._own, self._limit)
                return
        except (LoginRefusedError, ServerAwayError) as refused:  # by a login of the tenant
            reason = str(refused)
        raise of_tenant(work.names, reason)

    async def _log_in(self, **options: Any) -> Session:
        try:
            return await opened(self._admin | options, self._tls, prepared=True)
        except (LoginRefusedError, ServerAwayError) as refused:
            reason = str(refused)
        raise GrantError(f"{_NO_ADMINISTRATOR}: {reason}")

    @asynccontextmanager
    async def _own(self, login: str, password: Secret) -> AsyncGenerator[Session]:
        """Log in as a tenant's login, without a schema and without a statement."""
        options = self._admin | {"user": login, "password": password}
        async with aclosing(await opened(options, self._tls, prepared=False)) as session:
            yield session


def _program(names: Names) -> str:
    """Return the name of the sessions that work on a tenant."""
    return f"aiodbclient {names.database} {names.role}"


async def _find(schema: Schema) -> Found:
    databases = await schema.read(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", schema.name
    )
    found = await accounts(schema, schema.names.logins)
    existing = [found[login] for login in schema.names.logins if login in found]
    return Found(
        any(name == schema.name for (name,) in databases),
        tuple(each.login for each in existing if not each.is_locked),
        tuple(each.login for each in existing if each.is_locked),
    )


async def _set_login(
    schema: Schema, login: str, password: Secret, connections: int, wanted: frozenset[str] | None = None
) -> None:
    await check_hosts(schema, login)
    was_there = await end(schema, [login])
    if was_there:
        await wait_for_pending(schema)
    is_new = not was_there or await drop_account(schema, login)
    await set_account(schema, login, password, connections, is_new=is_new)
    await rights.set_rights(schema, login, wanted)


async def _shut(schema: Schema, *, still: bool) -> None:
    names = schema.names
    await rights.revoke_others(schema)
    await rights.revoke_all(schema, names.all_logins if names.role is Role.OWNER else names.logins)
    if names.role is Role.OWNER:
        await end_in_schema(schema)
        if still:
            await refuse_prepared(schema)


async def _problems(schema: Schema, logins: Sequence[str]) -> frozenset[Problem]:
    found, most = set[Problem](), await schema.most()
    existing = await accounts(schema, schema.names.logins)
    for account in existing.values():
        if await hosts(schema, account.login) - {"%"}:
            found.add(Problem(ProblemKind.OPEN_TO_OTHERS, account.login))
        if account.login not in logins and not account.is_locked:
            found.add(Problem(ProblemKind.UNKNOWN_LOGIN, account.login))
        if not account.is_ours:
            continue
        if account.login in logins and not (0 < account.connections <= most and account.keeps_password):
            found.add(Problem(ProblemKind.RIGHTS_MISSING))
        if account.login in logins:  # another one has none, unless code runs as it
            wanted = rights.RIGHTS[schema.names.role]
            found |= {problem for *_, problem in await rights.missing_grants(schema, account.login, wanted)}
    found |= {Problem(ProblemKind.OPEN_TO_OTHERS, one.grantee.user) for one in await rights.access_of_others(schema)}
    return frozenset(found)


async def _families(session: Session) -> dict[str, frozenset[str]]:
    """Return the logins of each tenant's schema. Nobody else's accounts have a limit."""
    users = await session.rows("SELECT User FROM mysql.user WHERE Host = '%%' AND max_user_connections > 0")
    existing, found = {str(user) for (user,) in users}, dict[str, frozenset[str]]()
    for (schema,) in await session.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA"):
        try:
            names = names_of(schema, Engine.MYSQL)
        except InvalidArgumentError:
            continue
        if not existing.isdisjoint(names.owner_logins):
            found[schema] = names.all_logins | {names.temporary}
    return found


async def _sessions(session: Session) -> list[tuple[str, str | None]]:
    """Return the user and the schema of each session. SHOW PROCESSLIST hangs while a session changes its user."""
    if await session.rows("SELECT @@performance_schema") == [(1,)]:
        table = "performance_schema.threads WHERE PROCESSLIST_ID IS NOT NULL"
        query = f"SELECT PROCESSLIST_USER, PROCESSLIST_DB FROM {table}"
        return [(str(user), schema) for user, schema in await session.rows(query)]
    return [(thread.user, thread.schema) for thread in await session.threads()]


async def _usage(session: Session) -> Mapping[str, tuple[int, int]]:
    families = await _families(session)
    of_login = {login: schema for schema, logins in families.items() for login in logins}
    connections = dict.fromkeys(families, 0)
    for user, schema_in_use in await _sessions(session):
        schema = of_login.get(user) or schema_in_use
        if schema in connections:
            connections[schema] += 1
    used = dict.fromkeys(families, 0)
    for name, size in await session.rows(
        "SELECT NAME, FILE_SIZE FROM information_schema.INNODB_TABLESPACES WHERE NAME LIKE '%%/%%'"
    ):
        schema = re.sub("@([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), str(name).partition("/")[0])
        if schema in used:
            used[schema] += int(size)
    return {schema: (used[schema], connections[schema]) for schema in families}
