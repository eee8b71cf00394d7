r"""The rights of a tenant on MySQL or MariaDB: those of its role on its own schema, and no others.

As the administrator (the cluster's primary user: the usual rights WITH GRANT OPTION, no SUPER)::

    REVOKE ... FROM login                           what it has beyond its role, by SHOW GRANTS
    REVOKE ALL PRIVILEGES ON `d`.* FROM other       for all others with rights on a schema of that name
    GRANT ALL PRIVILEGES ON `d`.* TO login          with ``_``, ``%`` and ``\`` escaped where GRANT takes a pattern
    ALTER USER login ACCOUNT UNLOCK
    ALTER USER login WITH MAX_USER_CONNECTIONS n    for each login of the tenant: its share of the limit

GRANT takes a pattern on MariaDB, and on MySQL unless it runs with ``partial_revokes=ON``.

What a tenant can still do: run events and views as a retired login, and commit or roll back another user's prepared
transaction if it knows its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC
from typing import Any

from .._credential import Secret, verifying_context
from .._naming import Names, Role
from .._outcomes import Problem
from . import Administrator, Grants, LoginRefusedError, ServerAwayError, of_tenant
from .mysql_accounts import (
    account,
    check_hosts,
    drop_helpers,
    hosts,
    kept_password,
    limit,
    lock,
    share_connections,
    unlocked,
)
from .mysql_leftovers import check_code, check_events, roll_back_prepared
from .mysql_rights import access, access_of_others, has_exactly, revoke, revoke_all, revoke_others, set_rights
from .mysql_server import (
    NO_ACCESS,
    MySQLSession,
    PasswordAcceptedError,
    Work,
    opened,
    options_of,
)
from .mysql_sessions import end_on_mariadb, end_on_mysql, has_sessions, to_its_end

_LONG_TURNS = 4  # for work that a tenant can delay, so that it blocks no one else
_PART = 3  # of the server's connections that a tenant may have
_PRIVILEGES = (
    "SELECT PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES"
    " WHERE REPLACE(GRANTEE, '''', '') = CURRENT_USER()"
)
_GRANTED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "CREATE VIEW"})


class MySQLGrants(Grants[MySQLSession]):
    """The SQL of one MySQL cluster. See ``Grants`` and ``sql_grants``.

    Without a connection limit a tenant may have a third of the server's connections, and a lower limit stays.
    """

    needs_password = False  # the administrator locks the login

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        admin = Secret(admin)  # a traceback may show it
        super().__init__(options_of(admin))
        self._tls = None if ca is None else verifying_context(ca)
        self._long_turns = asyncio.Semaphore(_LONG_TURNS)
        self._limit = connection_limit

    async def connections(self) -> int:
        async with self._administrator() as server:
            [(connections,)] = await server.rows("SELECT @@max_connections")
            return int(connections)

    async def administrator(self) -> Administrator:
        async with self._administrator() as server:
            [(name, version, clock)] = await server.rows("SELECT CURRENT_USER(), VERSION(), UTC_TIMESTAMP(6)")
            privileges = dict(await server.rows(_PRIVILEGES))
            return Administrator(name, version, lacking_rights(privileges), clock.replace(tzinfo=UTC))

    async def before_creation(self, names: Names, username: str) -> None:
        async with self._work(names) as work:
            if "%" not in await hosts(work, username):
                await check_code(work, username)

    async def give(self, names: Names, username: str) -> None:
        async with self._work(names) as work:
            await drop_helpers(work, username)
            await check_hosts(work, username)
            if username not in await unlocked(work):
                await self._check_locked(work, username)
            await set_rights(work, username)
            await revoke_others(work)
            # MySQL may keep the password of before the last one too, also when the API resets the login.
            discard = "" if work.server.is_mariadb else "DISCARD OLD PASSWORD "
            await work.rows(f"ALTER USER %s@'%%' {discard}ACCOUNT UNLOCK", username)
            await self._share(work)

    async def log_in(self, names: Names, username: str, password: str) -> str | None:
        password = Secret(password)
        return await self._test(names, username, password, access=True)

    async def accepts(self, names: Names, username: str, password: str) -> str | None:
        password = Secret(password)
        return await self._test(names, username, password, access=False)

    async def end_login(self, names: Names, username: str, password: str | None) -> str | None:
        """Lock the account and kill its sessions. Do not delete it, because its events and views must keep working."""
        del password  # not needed, and a traceback would show it
        async with self._work(names, self._long_turns) as work:
            await to_its_end(self._end(work, username))
            await self._share(work)
        return None

    async def end_sessions(self, names: Names, username: str, password: str) -> str | None:
        del password  # not needed, and a traceback would show it
        async with self._work(names, self._long_turns) as work:
            # A locked login has none but those of its events, which ``give`` ends.
            if username in await unlocked(work) and await has_sessions(work, username):
                await to_its_end(self._end_old_sessions(work, username))
        return None

    async def problems(self, names: Names, usernames: Sequence[str]) -> frozenset[Problem]:
        return await self._sessions.read(lambda server: self._problems(Work(server, names), usernames))

    async def shut_out(self, names: Names, keep: Collection[str]) -> tuple[str, ...]:
        async with self._work(names) as work:
            return tuple(sorted({str(one.grantee) for one in await access_of_others(work)}))

    async def take_over(self, names: Names, username: str, adopted: Collection[str] = ()) -> None:
        """End the open sessions of the login. They still have its old rights, and could grant them again.

        Which rights were intended is unknown, because the API gives each login all rights in every schema. A tenant
        that was rotated keeps its sessions, which have its rights alone.
        """
        async with self._work(names, self._long_turns) as work:
            if adopted and await hosts(work, names.other(username)):
                return
            await drop_helpers(work, username)
            await check_hosts(work, username)
            await to_its_end(self._end_old_sessions(work, username))

    async def before_removal(self, names: Names) -> None:
        async with self._work(names, self._long_turns) as work:
            if names.role is Role.OWNER:  # first, so that no event of the schema begins, which would lock its tables
                await revoke_all(work)
            for username in names.logins:
                await to_its_end(self._end(work, username))
            if names.role is Role.OWNER:
                await roll_back_prepared(work, before_removal=True)

    async def shut(self, names: Names) -> None:
        if names.role is Role.OWNER:
            async with self._work(names, self._long_turns) as work:
                await revoke_others(work)
                await roll_back_prepared(work)

    async def release(self, names: Names) -> None:
        """Revoke all rights on the schema. The administrator has rights on every schema."""
        async with self._work(names) as work:
            others = {one.grantee for one in await access_of_others(work)}
            for one in await access(work):
                if not (one.wide and one.grantee in others):
                    await revoke(work, one)
        await self.forget(names)

    async def forget(self, names: Names) -> None:
        """End sessions of deleted logins, and revoke all rights on a schema of that name."""
        async with self._work(names, self._long_turns) as work:
            for username in names.logins:
                await to_its_end(self._end(work, username))
                if work.server.is_mariadb:  # left by a dead process
                    await work.rows("DROP USER IF EXISTS %s@'%%'", username)
            if names.role is Role.OWNER:
                await revoke_all(work)
            await self._share(work)

    async def _test(self, names: Names, username: str, password: Secret, *, access: bool) -> str | None:
        """Test a login. A missing schema or a reached limit does not mean that the password is wrong."""
        options = self._admin | {"user": username, "password": password, "db": names.database}
        try:
            async with self._turns, self._connected(options, prepared=False):
                return None
        except PasswordAcceptedError as accepted:
            if not (access and accepted.code == NO_ACCESS):
                return None
            reason = f"is accepted with its password, but its rights do not open the schema {names.database!r}: "
            reason += str(accepted)
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = f"could not be tested: {away}"
        raise of_tenant(names, f"the login {username!r} {reason}")

    @asynccontextmanager
    async def _work(self, names: Names, turns: asyncio.Semaphore | None = None) -> AsyncGenerator[Work]:
        """Log in as the administrator for the work on one tenant."""
        async with self._administrator(turns) as server:
            yield Work(server, names)

    async def _open(self, options: dict[str, Any], *, prepared: bool = True) -> MySQLSession:
        return await opened(options, self._tls, prepared=prepared)

    async def _close(self, server: MySQLSession) -> None:
        await server.close()

    @asynccontextmanager
    async def _connected(self, options: dict[str, Any], *, prepared: bool = True) -> AsyncGenerator[MySQLSession]:
        server = await self._open(options, prepared=prepared)
        try:
            yield server
        finally:
            await self._close(server)

    async def _problems(self, work: Work, usernames: Sequence[str]) -> frozenset[Problem]:
        found, most, limits = set[Problem](), await self._most(work), await unlocked(work)
        for username in usernames:
            if await hosts(work, username) - {"%"}:
                found.add(Problem.OPEN_TO_OTHERS)
            if not await has_exactly(work, username) or not 0 < limits.get(username, 1) <= most:
                found.add(Problem.RIGHTS_MISSING)
        if await access_of_others(work):
            found.add(Problem.OPEN_TO_OTHERS)
        return frozenset(found)

    async def _check_locked(self, work: Work, username: str) -> None:
        """Before a locked login is used again: make sure that no event of it runs, or could, that sets its password."""
        await check_events(work, username)
        if await has_sessions(work, username):  # those of events, which may have dropped themselves
            await to_its_end(self._end_old_sessions(work, username))
            await lock(work, username)
            await check_events(work, username)

    async def _end_old_sessions(self, work: Work, username: str) -> None:
        """Revoke what a login has beyond its role, and end its sessions. It keeps its password, and may be unlocked."""
        await set_rights(work, username)
        if work.server.is_mariadb:
            async with kept_password(work, username) as kept, self._limited(work, username):
                await end_on_mariadb(work, self._own, username, kept=kept)
        else:
            async with self._limited(work, username):
                await end_on_mysql(work, self._own, username, later=False)

    async def _end(self, work: Work, username: str) -> None:
        """End the sessions of a login, and lock it if it exists."""
        if "%" in await hosts(work, username):
            async with self._limited(work, username):
                if work.server.is_mariadb:
                    await end_on_mariadb(work, self._own, username)
                else:
                    await lock(work, username)
                    await end_on_mysql(work, self._own, username)
        elif await has_sessions(work, username):
            if work.server.is_mariadb:
                async with account(work, username):
                    await end_on_mariadb(work, self._own, username)
            else:
                await end_on_mysql(work, self._own, username)

    @asynccontextmanager
    async def _limited(self, work: Work, username: str) -> AsyncGenerator[None]:
        """Meanwhile, let the open sessions of a login run no statement."""
        most = await self._most(work)
        await limit(work, username, queries=1, connections=most)
        try:
            yield
        finally:
            await limit(work, username, queries=0, connections=most)

    async def _share(self, work: Work) -> None:
        """Divide the tenant's connections among its logins."""
        await share_connections(work, await self._most(work), raises=self._limit is not None)

    async def _most(self, work: Work) -> int:
        """How many connections a tenant may have. With 0, MySQL would not count them, so no limit could stop them."""
        if self._limit is not None:
            return self._limit
        ((of_the_server,),) = await work.rows("SELECT @@max_connections")
        return max(1, int(of_the_server) // _PART)

    def _own(self, username: str, password: Secret) -> AbstractAsyncContextManager[MySQLSession]:
        """Log in as a tenant's login, without a schema and without a statement."""
        return self._connected(self._admin | {"user": username, "password": password}, prepared=False)


def lacking_rights(privileges: Mapping[str, str]) -> tuple[str, ...]:
    """Return the rights that the administrator lacks, by the rows of ``_PRIVILEGES``."""
    lacks = [] if "CREATE USER" in privileges else ["CREATE USER"]
    return (*lacks, *sorted(f"{right} WITH GRANT OPTION" for right in _GRANTED if privileges.get(right) != "YES"))
