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
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from ..._credential import Secret, verifying_context
from ..._naming import Names, Role
from ..._outcomes import Problem
from ...errors import GrantError
from .. import Administrator, Found, LoginRefusedError, Server, ServerAwayError, SharedSessions, Work, of_tenant
from . import reading, rights
from .leftovers import read_programs
from .session import PasswordAcceptedError, Schema, Session, opened, options_of, program_of
from .steps import MySQLSession

_TURNS = 8  # sessions of the administrator at a time
_LONG_TURNS = 4  # for work that a tenant can delay, so that it blocks no one else

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
        return await self.sessions.read(rights.administrator)

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted((await self.sessions.read(reading.stems)).values()))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        return await self.sessions.read(reading.usage)

    async def find(self, names: Names) -> Found:
        return await self._read(names, reading.find)

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
        [(number,)] = await self.sessions.read(lambda session: session.rows(query, login))
        return int(number)

    async def problems(self, names: Names, on_record: Mapping[str, Role] | None) -> frozenset[Problem]:
        return await self._read(names, partial(reading.problems, logins=on_record))

    async def other_grantees(self, names: Names) -> tuple[str, ...]:
        return await self._read(names, rights.other_grantees)

    async def programs(self, names: Names) -> tuple[str, str]:
        return await self._read(names, read_programs)

    def steps(self, work: Work) -> MySQLSession:
        return MySQLSession(self, work)

    # Sessions of the administrator, and of logins.

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
