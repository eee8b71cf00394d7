r"""``MySQLServer``: what MySQL does for the tenants of one cluster, as the administrator.

The administrator is the cluster's primary user. It has the usual rights WITH GRANT OPTION and CREATE USER, and may
neither KILL the sessions of others nor change who code runs as::

    CREATE DATABASE `d`
    CREATE USER login IDENTIFIED BY ... WITH MAX_USER_CONNECTIONS n PASSWORD REQUIRE CURRENT
    GRANT ALL PRIVILEGES ON `d`.* TO login          with ``_``, ``%`` and ``\`` escaped where GRANT takes a pattern

GRANT takes a pattern unless the server runs with ``partial_revokes=ON``.

An ended login as which events, routines, views or triggers still run stays, locked, with its rights in the schema. A
suspended tenant has no rights at all, so its events fail.

What a tenant can still do: commit or roll back another user's prepared transaction if it knows its name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC
from functools import partial
from typing import Any, TypeVar

from ....engines import Engine
from ....errors import InvalidArgumentError
from ..._credential import Secret, verifying_context
from ..._naming import Names, Role, names_of
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from .. import Administrator, Found, LoginRefusedError, Server, ServerAwayError, SharedSessions, Work, of_tenant
from .logins import accounts, intruders
from .rights import RIGHTS, access_of_others, missing_grants, refuse_wide
from .schemas import exists, read_programs, rights_of_ended
from .session import PasswordAcceptedError, Schema, Session, opened, options_of, program_of
from .steps import MySQLSession

_TURNS = 8  # sessions of the administrator at a time
_LONG_TURNS = 4  # for work that a tenant can delay, so that it blocks no one else
_NUMBER = 8  # digits at the end of a login's name

_PRIVILEGES = """
SELECT PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES
WHERE REPLACE(GRANTEE, '''', '') = CURRENT_USER()
"""
_GRANTED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "CREATE VIEW"})
_CONTENT = """
SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s
UNION ALL SELECT 1 FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s
UNION ALL SELECT 1 FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s LIMIT 1
"""
# SHOW PROCESSLIST hangs while a session changes its user.
_SESSIONS = "SELECT PROCESSLIST_USER, PROCESSLIST_DB FROM performance_schema.threads WHERE PROCESSLIST_USER IS NOT NULL"
_SIZES = "SELECT NAME, FILE_SIZE FROM information_schema.INNODB_TABLESPACES WHERE NAME LIKE '%%/%%'"

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

    async def administrator(self) -> Administrator:
        query = "SELECT CURRENT_USER(), VERSION(), @@max_connections, UTC_TIMESTAMP(6)"
        async with self.sessions.shared():
            [(name, version, connections, clock)] = await self._ask(query)
            privileges = dict(await self._ask(_PRIVILEGES))
        lacks = [right for right in ("CREATE USER", "PROCESS") if right not in privileges]
        lacks += sorted(f"{right} WITH GRANT OPTION" for right in _GRANTED if privileges.get(right) != "YES")
        return Administrator(name, version, tuple(lacks), int(connections), clock.replace(tzinfo=UTC))

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted((await self._made()).values()))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        async with self.sessions.shared():
            made, sessions, sizes = await self._made(), await self._ask(_SESSIONS), await self._ask(_SIZES)
        used, connections = dict.fromkeys(made.values(), 0), dict.fromkeys(made.values(), 0)
        for user, schema_in_use in sessions:
            schema = made.get(user[:-_NUMBER]) or schema_in_use
            if schema in connections:
                connections[schema] += 1
        for name, size in sizes:
            schema = re.sub("@([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), str(name).partition("/")[0])
            if schema in used:
                used[schema] += int(size)
        return {schema: (used[schema], connections[schema]) for schema in used}

    async def _made(self) -> dict[str, str]:
        """The schemas of tenants, by the beginning of their logins' names. Nobody else's accounts have a limit."""
        async with self.sessions.shared():
            users = await self._ask("SELECT User FROM mysql.user WHERE Host = '%%' AND max_user_connections > 0")
            schemas = await self._ask("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA")
        stems, made = {str(user)[:-_NUMBER] for (user,) in users}, dict[str, str]()
        for (schema,) in schemas:
            with suppress(InvalidArgumentError):
                if (stem := names_of(schema, Engine.MYSQL).stem) in stems:
                    made[stem] = schema
        return made

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
        query = "SELECT COUNT(PROCESSLIST_ID) FROM performance_schema.threads WHERE PROCESSLIST_USER = %s"
        [(number,)] = await self._ask(query, login)
        return int(number)

    async def problems(self, names: Names, on_record: Mapping[str, Role] | None) -> frozenset[Problem]:
        return await self._read(names, partial(_problems, logins=on_record))

    async def other_grantees(self, names: Names) -> tuple[str, ...]:
        return await self._read(names, _other_grantees)

    async def programs(self, names: Names) -> tuple[str, str]:
        return await self._read(names, read_programs)

    def steps(self, work: Work) -> MySQLSession:
        return MySQLSession(self, work)

    # Sessions of the administrator, and of logins.

    async def _ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement that only reads."""
        return await self.sessions.read(lambda session: session.rows(statement, *values))

    async def _read(self, names: Names, do: Callable[[Schema], Awaitable[T]]) -> T:
        """Do what only reads in a session that others share."""
        return await self.sessions.read(lambda session: do(Schema(session, Work(names), self._own, self._limit)))

    @asynccontextmanager
    async def schema(self, work: Work, *, is_long: bool = False) -> AsyncGenerator[Schema]:
        """Log in as the administrator for the work on one tenant. A tenant can delay what ``is_long``."""
        turns = self._long_turns if is_long else self._turns
        async with turns, aclosing(await self._log_in(program_name=program_of(work.names))) as session:
            yield Schema(session, work, self._own, self._limit)

    async def _log_in(self, **options: Any) -> Session:
        try:
            return await opened(self._admin | options, self._tls, prepared=True)
        except (LoginRefusedError, ServerAwayError) as refused:
            reason = str(refused)
        raise GrantError(f"the administrator who makes the tenants' logins cannot log in: {reason}")

    @asynccontextmanager
    async def _own(self, login: str, password: Secret) -> AsyncGenerator[Session]:
        """Log in as a tenant's login, without a schema and without a statement."""
        options = self._admin | {"user": login, "password": password}
        async with aclosing(await opened(options, self._tls, prepared=False)) as session:
            yield session


async def _find(schema: Schema) -> Found:
    existing = await accounts(schema, [schema.name])
    others, is_there = existing.pop(schema.name, None), await exists(schema)
    return Found(
        database=is_there,
        # A tenant's schema has a login of the tenant, perhaps an ended one, before anybody can make something in it.
        is_foreign=is_there and not existing and bool(await schema.run(_CONTENT, *[schema.name] * 3)),
        logins=tuple(each.login for each in existing.values() if not each.is_locked),
        ended=tuple(each.login for each in existing.values() if each.is_locked),
        namesake=others is not None and not others.is_locked,
    )


async def _problems(schema: Schema, logins: Mapping[str, Role] | None) -> frozenset[Problem]:
    """See ``Server``. An ended login has rights only while code runs as it, and the tenant is not suspended."""
    existing, on_record = await accounts(schema, [schema.name, *(logins or ())]), logins or {}
    if (namesake := existing.get(schema.name)) and schema.name not in on_record and not namesake.is_locked:
        del existing[schema.name]  # that of others
    ended = {each.login for each in existing.values() if each.is_locked}
    found = {Problem(ProblemKind.OPEN_TO_OTHERS, one.user) for one in await access_of_others(schema, existing)}
    found |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in {*existing} - ended - {*on_record}}
    found |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in await intruders(schema)}
    wanted = dict.fromkeys(ended - {*on_record}, frozenset[str]())
    if wanted and on_record:
        wanted |= await rights_of_ended(schema, wanted)
    for account in existing.values():
        if account.login in on_record and account.is_ours:
            wanted[account.login] = RIGHTS[on_record[account.login]]
            if not (0 < account.connections <= schema.most and account.keeps_password):
                found.add(Problem(ProblemKind.RIGHTS_MISSING))
    for login, rights in wanted.items():
        found |= {problem for *_, problem in await missing_grants(schema, login, rights)}
    return frozenset(found)


async def _other_grantees(schema: Schema) -> tuple[str, ...]:
    """See ``Server``. Refuses a pattern for other schemas, as ``shut`` does."""
    others = await access_of_others(schema, await accounts(schema))
    refuse_wide(schema, others)
    return tuple(sorted({one.user for one in others}))
