r"""The rights of a tenant on MySQL or MariaDB: those of its role on its own schema, and no others.

As the administrator (the cluster's primary user: the usual rights WITH GRANT OPTION, no SUPER)::

    REVOKE ALL PRIVILEGES, GRANT OPTION FROM login
    REVOKE ALL PRIVILEGES ON `d`.* FROM other       for all others with rights on a schema of that name
    GRANT ALL PRIVILEGES ON `d`.* TO login          with ``_``, ``%`` and ``\`` escaped: GRANT takes a pattern
    ALTER USER login WITH MAX_USER_CONNECTIONS n ACCOUNT UNLOCK

What a tenant can still do: use this number of connections with each of its logins, run events and views as a retired
login, and commit or roll back another user's prepared transaction if it knows its name (MariaDB).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from ...errors import GrantError
from .._credential import verifying_context
from .._naming import Names, mysql_logins
from .._problems import Problem
from .._roles import Role
from . import Grants, LoginRefusedError, ServerAwayError
from .administrator import MYSQL_PRIVILEGES, MYSQL_STATEMENT, Administrator, on_mysql
from .mariadb_sessions import account, end_on_mariadb, kept_password
from .mysql_events import check_events
from .mysql_rights import RIGHTS, access, has_exactly, hosts, revoke, revoke_all, revoke_others
from .mysql_server import (
    NO_ACCESS,
    MySQLSession,
    PasswordAcceptedError,
    connected,
    opened,
    options_of,
    pattern,
    quoted,
)
from .mysql_sessions import drop_helpers, end_on_mysql, has_sessions, limit, to_its_end
from .mysql_transactions import roll_back_prepared

_LONG_TURNS = 4  # for work that a tenant can delay, so that it blocks no one else
_PART = 3  # of the server's connections that one login may have: two logins of a tenant leave some to others


class MySQLGrants(Grants[MySQLSession]):
    """The SQL of one MySQL cluster. See ``Grants``.

    Args:
        admin: The DSN of an administrator. Logins are tested on its server.
        ca: The cluster's CA certificate as PEM, to verify the server; None: no TLS.
        connection_limit: How many connections a login may have at a time; None for a third of the server's limit. A
            tenant cannot raise it.

    Raises:
        ConfigurationError: ``admin`` is not a DSN.
    """

    needs_password = False  # the administrator locks it

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        super().__init__(options_of(admin))
        self._tls = None if ca is None else verifying_context(ca)
        self._long_turns = asyncio.Semaphore(_LONG_TURNS)
        self._limit = connection_limit

    async def connections(self) -> int:
        async with self._administrator() as server:
            [(connections,)] = await server.rows("", "SELECT @@max_connections")
            return int(connections)

    async def administrator(self) -> Administrator:
        async with self._administrator() as server:
            [(name, version, clock)] = await server.rows("", MYSQL_STATEMENT)
            privileges = await server.rows("", MYSQL_PRIVILEGES)
            return on_mysql(name, version, clock, dict(privileges))

    async def give(self, names: Names, username: str) -> None:
        tenant, schema = names.tenant, _schema(names)
        async with self._administrator() as server:
            await drop_helpers(server, tenant, username)
            await _check_hosts(server, tenant, username)
            await check_events(server, tenant, schema, username)
            if not await has_exactly(server, tenant, username, names.role, schema):  # it may be in use
                await revoke_all(server, tenant, username)
            await revoke_others(server, tenant, schema, mysql_logins(names))
            rights = ", ".join(RIGHTS[names.role])
            await server.rows(tenant, f"GRANT {rights} ON {quoted(pattern(schema))}.* TO %s@'%%'", username)
            await server.rows(tenant, "ALTER USER %s@'%%' ACCOUNT UNLOCK", username)
            await limit(server, tenant, username, queries=0, connections=await self._most(server, tenant))

    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        return await self._test(names, username, password, access=True)

    async def accepts(self, names: Names, username: str, password: str) -> str | None:
        """Like ``log_in``, but only test the password: the rights of the login may be missing."""
        return await self._test(names, username, password, access=False)

    async def end_login(
        self, names: Names, username: str, password: str | None, delete: Callable[[], Awaitable[None]]
    ) -> str | None:
        """Lock the account and kill its sessions. Do not delete it, because its events and views must keep working."""
        async with self._administrator(self._long_turns) as server:
            await to_its_end(self._end(server, names.tenant, username))
        return None

    async def problems(self, names: Names, usernames: Sequence[str]) -> frozenset[Problem]:
        return await self._readers.read(lambda server: _problems(names, server, usernames))

    async def shut_out(self, names: Names) -> tuple[str, ...]:
        logins = mysql_logins(names)
        async with self._administrator() as server:
            found = await access(server, names.tenant, _schema(names))
        return tuple(sorted({str(one.grantee) for one in found if one.grantee.user not in logins}))

    async def take_over(self, names: Names, username: str) -> None:
        """End the open sessions of the login. They still have its old rights, and could grant them again.

        Afterwards the login has all rights in its own schema. ``give`` revokes its rights in other schemas: the API
        gives each login all rights in every schema, so it is unknown which of them were intended.
        """
        tenant = names.tenant
        async with self._administrator(self._long_turns) as server:
            await drop_helpers(server, tenant, username)
            await _check_hosts(server, tenant, username)
            await to_its_end(self._end_old_sessions(server, tenant, username))

    async def before_removal(self, names: Names) -> None:
        async with self._administrator(self._long_turns) as server:
            for username in names.logins:
                await to_its_end(self._end(server, names.tenant, username))
            if names.role is Role.OWNER:
                await roll_back_prepared(server, names.tenant, _schema(names))

    async def shut(self, names: Names) -> None:
        if names.role is Role.OWNER:
            async with self._administrator(self._long_turns) as server:
                await revoke_others(server, names.tenant, _schema(names), mysql_logins(names))
                await roll_back_prepared(server, names.tenant, _schema(names))

    async def release(self, names: Names) -> None:
        """Revoke all rights on the schema. The administrator has rights on every schema."""
        async with self._administrator() as server:
            for one in await access(server, names.tenant, _schema(names)):
                if one.grantee.user in mysql_logins(names) or not one.wide:
                    await revoke(server, names.tenant, one)

    async def forget(self, names: Names) -> None:
        """End sessions of deleted logins, and revoke all rights on a schema of that name."""
        tenant = names.tenant
        async with self._administrator(self._long_turns) as server:
            for username in names.logins:
                await to_its_end(self._end(server, tenant, username))
                await server.rows(tenant, "DROP USER IF EXISTS %s@'%%'", username)  # left by a dead process
            if names.role is Role.OWNER:
                for one in await access(server, tenant, _schema(names)):
                    if not one.wide:
                        await revoke(server, tenant, one)

    async def _test(self, names: Names, username: str, password: str, *, access: bool) -> str | None:
        """Test a login. A missing schema or a reached limit does not mean that the password is wrong."""
        options = self._admin | {"user": username, "password": password, "db": names.database}
        try:
            async with self._turns, connected(options, self._tls, prepared=False):
                return None
        except PasswordAcceptedError as accepted:
            return str(accepted) if access and accepted.code == NO_ACCESS else None
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = str(away)
        raise GrantError(
            f"tenant {names.tenant!r}: the login {username!r} could not be tested: {reason}", tenant=names.tenant
        )

    async def _open(self, options: dict[str, Any]) -> MySQLSession:
        return await opened(options, self._tls)

    async def _close(self, server: MySQLSession) -> None:
        await server.close()

    def _connected(self, options: dict[str, Any]) -> AbstractAsyncContextManager[MySQLSession]:
        return connected(options, self._tls)

    async def _end_old_sessions(self, server: MySQLSession, tenant: str, username: str) -> None:
        """Revoke all rights of a login and end its sessions. It keeps its password and stays unlocked."""
        await revoke_all(server, tenant, username)
        if server.is_mariadb:
            async with kept_password(server, tenant, username) as kept, self._limited(server, tenant, username):
                await end_on_mariadb(server, self._own, tenant, username, kept=kept)
        else:
            async with self._limited(server, tenant, username):
                await end_on_mysql(server, self._own, tenant, username, later=False)

    async def _end(self, server: MySQLSession, tenant: str, username: str) -> None:
        """End the sessions of a login, and lock it if it exists."""
        if "%" in await hosts(server, tenant, username):
            await self._lock(server, tenant, username)
        elif await has_sessions(server, tenant, username):
            if server.is_mariadb:
                async with account(server, tenant, username):
                    await end_on_mariadb(server, self._own, tenant, username)
            else:
                await end_on_mysql(server, self._own, tenant, username)

    async def _lock(self, server: MySQLSession, tenant: str, username: str) -> None:
        async with self._limited(server, tenant, username):
            if server.is_mariadb:
                await end_on_mariadb(server, self._own, tenant, username)
            else:
                await server.rows(tenant, "ALTER USER %s@'%%' ACCOUNT LOCK", username)
                await end_on_mysql(server, self._own, tenant, username)

    @asynccontextmanager
    async def _limited(self, server: MySQLSession, tenant: str, username: str) -> AsyncGenerator[None]:
        """Meanwhile, let the open sessions of a login run no statement."""
        most = await self._most(server, tenant)
        await limit(server, tenant, username, queries=1, connections=most)
        try:
            yield
        finally:
            await limit(server, tenant, username, queries=0, connections=most)

    async def _most(self, server: MySQLSession, tenant: str) -> int:
        """How many connections a login may have. With 0, MySQL would not count them, so no limit could stop them."""
        if self._limit is not None:
            return self._limit
        ((of_the_server,),) = await server.rows(tenant, "SELECT @@max_connections")
        return max(1, int(of_the_server) // _PART)

    def _own(self, username: str, password: str) -> AbstractAsyncContextManager[MySQLSession]:
        """Log in as a tenant's login, without a schema and without a statement."""
        return connected(self._admin | {"user": username, "password": password}, self._tls, prepared=False)


def _schema(names: Names) -> str:
    assert names.database is not None
    return names.database


async def _problems(names: Names, server: MySQLSession, usernames: Sequence[str]) -> frozenset[Problem]:
    tenant, schema, found = names.tenant, _schema(names), set[Problem]()
    for username in usernames:
        if await hosts(server, tenant, username) - {"%"}:
            found.add(Problem.OPEN_TO_OTHERS)
        if not await has_exactly(server, tenant, username, names.role, schema):
            found.add(Problem.RIGHTS_MISSING)
    logins = mysql_logins(names)
    if any(one.grantee.user not in logins for one in await access(server, tenant, schema)):
        found.add(Problem.OPEN_TO_OTHERS)
    return frozenset(found)


async def _check_hosts(server: MySQLSession, tenant: str, username: str) -> None:
    """Refuse a login that also has accounts for single hosts. The API neither lists nor resets those.

    Raises:
        GrantError: The login has such accounts.
    """
    others = sorted(await hosts(server, tenant, username) - {"%"})
    if others:
        accounts = " and ".join(f"{username!r}@{host!r}" for host in others)
        raise GrantError(
            f"tenant {tenant!r}: there is also the account {accounts}, and the client cannot reset its password: "
            f"drop it (DROP USER {accounts.replace(' and ', ', ')}) and run it again",
            tenant=tenant,
        )
