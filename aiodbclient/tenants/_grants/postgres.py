"""Give tenants their rights on PostgreSQL, with the limited rights of a managed cluster's administrator.

``postgres_owner`` and ``postgres_members`` return the missing statements of a tenant: ``give`` runs them, and
``problems`` reports them. ``postgres_logins`` has the statements that a login itself runs. ``postgres_leaving`` removes
databases and roles. ``postgres_adoption`` transfers the rights of an adopted login. ``postgres_sessions`` connects.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection

from ..._libpq import one_line
from ...errors import GrantError
from .._naming import Names
from .._problems import Problem
from .._roles import Role
from . import Grants, LoginRefusedError, ServerAwayError
from .administrator import POSTGRESQL_STATEMENT, Administrator, on_postgresql
from .postgres_adoption import carry_over, shut_out
from .postgres_leaving import forget_role, make_removable, release
from .postgres_logins import LoginEnd, Prepared, cannot_enter, is_full, prepare, present_logins
from .postgres_members import lacking_inside, lacking_outside
from .postgres_owner import Step, has_database, inherit_step, lacking, take
from .postgres_sessions import ENDING_SECONDS, SESSION_SECONDS, BlockedError, CAFile, admin_options, connect

# s to wait before a retry, if another session held a lock. Meanwhile the turn is free for others.
_PAUSES = (0.1, 0.5, 1.0)
_PRIVATE_PUBLIC = 150_000  # the first version in which only the owner of a database may create objects in ``public``
_ENDING = 4  # how many logins to end at a time; these do not use the turns


class PostgresGrants(Grants[AsyncConnection[Any]]):
    """The SQL of one PostgreSQL cluster. See ``Grants``.

    Args:
        admin: The DSN of an administrator. Logins are tested on its server.
        ca: The cluster's CA certificate as PEM, to verify the server, unless ``admin`` has an ``sslmode``. None: use
            the default of libpq.
        connection_limit: How many connections a tenant's database may have; None for half of the server's limit. The
            tenant can raise it, and the next ``give`` sets it again.

    Raises:
        ConfigurationError: ``admin`` is not a DSN.
    """

    needs_password = True

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        super().__init__(admin_options(admin))
        self._ca = None if ca is None or "sslmode" in self._admin else CAFile(ca)
        self._limit = connection_limit
        self._version = 0  # of the server; 0 until it is known
        self._ending = asyncio.Semaphore(_ENDING)

    def why_no_roles(self) -> str:
        if self._version >= _PRIVATE_PUBLIC:
            return ""
        # With a function there, a reader could trick the owner (CVE-2018-1058), and only the server's superuser can
        # revoke the right: https://www.postgresql.org/about/news/1834/
        return f"PostgreSQL {self._version // 10_000} lets every login create objects in the schema public"

    async def administrator(self) -> Administrator:
        async with self._administrator() as server:
            cursor = await server.execute(POSTGRESQL_STATEMENT)
            [row] = await cursor.fetchall()
            return on_postgresql(*row)

    async def give(self, names: Names, username: str) -> None:
        if names.role is Role.OWNER:
            await self._give_owner(names, username)
            return

        async def outside(server: AsyncConnection[Any]) -> None:
            await take(names, server, await lacking(names, server, (), self._limit))
            await take(names, server, await lacking_outside(names, server, [username]))

        async def inside(server: AsyncConnection[Any]) -> None:
            await take(names, server, await lacking_inside(names, server))

        await self._as_administrator(outside)
        await self._as_administrator(inside, dbname=names.database)

    async def _give_owner(self, names: Names, username: str) -> None:
        async def work(server: AsyncConnection[Any]) -> None:
            await take(names, server, await lacking(names, server, [username], self._limit))

        try:
            await self._as_administrator(work)
        except BlockedError:
            # A session of another login may hold a lock on the database forever. It can be ended only after this login
            # has replaced that one. Until then, this login inherits the owner's rights to enter.
            async with self._administrator() as server:
                await take(names, server, [inherit_step(names, server, username)])
                if not all(step.of_login for step in await lacking(names, server, [username], self._limit)):
                    raise

    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        reason = ""
        for database in (names.database, self._admin.get("dbname")):
            options = self._admin | {"user": username, "password": password, "dbname": database}
            try:
                await self._prepare(names, username, options)
            except LoginRefusedError as refused:
                return str(refused)
            except ServerAwayError as away:
                reason = str(away)
            else:
                return None
            async with self._administrator() as server:
                if await cannot_enter(names, server, username):
                    return reason
                # A full database does not matter: the next one can test the password.
                if not await is_full(names, server):
                    break
        raise GrantError(
            f"tenant {names.tenant!r}: the login {username!r} could not be tested: {reason}", tenant=names.tenant
        )

    async def accepts(self, names: Names, username: str, password: str) -> str | None:
        reason = ""
        for database in (names.database, self._admin.get("dbname")):  # the tenant's database may be closed or full
            options = self._admin | {"user": username, "password": password, "dbname": database}
            try:
                async with self._turns, self._connected(options):
                    return None
            except LoginRefusedError as refused:
                return str(refused)
            except ServerAwayError as away:
                reason = reason or str(away)
        raise GrantError(
            f"the database server is unreachable, so the login could not be tested: {reason}", tenant=names.tenant
        )

    async def _prepare(self, names: Names, username: str, options: dict[str, Any]) -> None:
        """Log in with ``options``. A login of the owner then runs its own statements."""
        async with self._turns, self._connected(options) as server:
            prepared = await prepare(names, server) if names.role is Role.OWNER else Prepared.DONE
        if prepared is Prepared.HAS_TO_INHERIT:
            async with self._administrator() as server:
                await take(names, server, [inherit_step(names, server, username)])
            async with self._turns, self._connected(options) as server:
                await prepare(names, server)
        if prepared is not Prepared.DONE:
            await self.give(names, username)

    async def problems(self, names: Names, usernames: Sequence[str]) -> frozenset[Problem]:
        if names.role is Role.OWNER:
            return await self._readers.read(lambda server: self._of_owner(names, server, usernames))
        found = await self._readers.read(lambda server: _of_group(names, server, usernames))
        if Problem.RIGHTS_MISSING in found:
            return found
        async with self._administrator(dbname=names.database) as server:
            return found | _problems(await lacking_inside(names, server))

    async def _of_owner(
        self, names: Names, server: AsyncConnection[Any], usernames: Sequence[str]
    ) -> frozenset[Problem]:
        return _problems(await lacking(names, server, usernames, self._limit))

    async def end_login(
        self, names: Names, username: str, password: str | None, delete: Callable[[], Awaitable[None]]
    ) -> str | None:
        ending, reason = LoginEnd(delete), ""
        async with self._ending:
            try:
                if password is None:
                    async with self._connected(self._admin, ENDING_SECONDS) as server:
                        await ending.run_as_administrator(names, server, username)
                else:
                    async with self._login(names, username, password) as server:
                        await ending.run(names, server)
            except LoginRefusedError as refused:
                return str(refused)
            except (GrantError, ServerAwayError) as error:
                # Another session of the login ended ours, or the API did by deleting the login.
                reason = str(error)
        if not ending.deleted:
            return reason or None
        async with self._administrator() as server:
            await ending.verify(names, server)
            if names.role is Role.OWNER and await has_database(names, server):
                with suppress(BlockedError):  # by another session on the database; the next ``give`` does it
                    others = await present_logins(names, server)
                    await take(names, server, await lacking(names, server, others, self._limit))
        return None

    async def take_over(self, names: Names, username: str) -> None:
        async with self._administrator(dbname=names.database) as server:
            await carry_over(names, username, server)

    async def shut_out(self, names: Names) -> tuple[str, ...]:
        async with self._administrator() as server:
            return await shut_out(names, server)

    async def before_removal(self, names: Names) -> None:
        await make_removable(names, self._administrator)

    async def release(self, names: Names) -> None:
        await release(names, self._administrator)

    async def forget(self, names: Names) -> None:
        await forget_role(names, self._administrator, names.group)

    async def _as_administrator(self, work: Callable[[AsyncConnection[Any]], Awaitable[None]], **options: Any) -> None:
        """Do ``work`` in a session of the administrator. If a lock blocks it, retry, and leave the turn to others."""
        for pause in _PAUSES:
            with suppress(BlockedError):
                async with self._administrator(**options) as server:
                    await work(server)
                return
            await asyncio.sleep(pause)
        async with self._administrator(**options) as server:
            await work(server)

    @asynccontextmanager
    async def _login(self, names: Names, username: str, password: str) -> AsyncGenerator[AsyncConnection[Any]]:
        """Connect as a login of the tenant: to the tenant's database or, if that fails, to the administrator's."""
        reason = ""
        async with AsyncExitStack() as stack:
            for database in (names.database, self._admin.get("dbname")):
                options = self._admin | {"user": username, "password": password, "dbname": database}
                try:
                    server = await stack.enter_async_context(self._connected(options, ENDING_SECONDS))
                except ServerAwayError as away:
                    reason = str(away)
                else:
                    yield server
                    return
        raise GrantError(f"tenant {names.tenant!r}: the login {username!r} cannot log in: {reason}")

    async def _open(self, options: dict[str, Any], seconds: float = SESSION_SECONDS) -> AsyncConnection[Any]:
        try:
            server = await connect(options, self._ca, self._version, seconds)
        except psycopg.OperationalError as error:
            reason = one_line(error)
            asked = error.pgconn is not None and error.pgconn.used_password
        else:
            self._version = server.info.server_version
            return server
        if asked and await self._refuses_passwords(options, reason):
            raise LoginRefusedError(reason)
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

    async def _refuses_passwords(self, options: dict[str, Any], reason: str) -> bool:
        """Whether the server returns ``reason`` for a wrong password too.

        libpq has no error code for a failed login, and the server may write its messages in any language.
        """
        try:
            server = await connect(options | {"password": secrets.token_urlsafe(16)}, self._ca, self._version)
        except psycopg.OperationalError as error:
            return one_line(error) == reason
        await server.close()
        return False


async def _of_group(names: Names, server: AsyncConnection[Any], usernames: Sequence[str]) -> frozenset[Problem]:
    """The problems of readers or writers, as far as the administrator's database shows them."""
    found = _problems(await lacking_outside(names, server, usernames))
    if await cannot_enter(names, server, server.info.user):
        return found | {Problem.RIGHTS_MISSING}
    return found


def _problems(steps: Sequence[Step]) -> frozenset[Problem]:
    return frozenset(step.problem for step in steps if step.problem is not None)
