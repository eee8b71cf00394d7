"""``MySQLSession``: the steps that change one tenant on MySQL."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from ..._credential import Secret
from ..._naming import Role
from .. import TEMPORARY_CONNECTIONS, TenantSession, Work
from . import rights
from .logins import (
    ENDING_SECONDS,
    accounts,
    check_adoption,
    create_login,
    drop_helpers,
    end,
    end_in_schema,
    end_threads,
    intruders,
    restore_login,
)
from .schemas import exists, make_writable, refuse_prepared, rights_of_ended
from .session import DefinerError, LockedError, Schema, Thread, identifier, program_of

if TYPE_CHECKING:
    from . import MySQLServer

_EARLIER = """
SELECT PROCESSLIST_ID, PROCESSLIST_USER, PROCESSLIST_DB, PROCESSLIST_COMMAND FROM performance_schema.threads
JOIN performance_schema.session_account_connect_attrs USING (PROCESSLIST_ID)
WHERE ATTR_NAME = 'program_name' AND ATTR_VALUE = %s
"""
_DROP_SCHEMA_SECONDS = 60.0  # for a schema of many tables
_DROP_LOGINS_SECONDS = 2.0


class MySQLSession(TenantSession):
    """The steps for one tenant. Each has its own session of the administrator, which ``end_work`` finds by its name."""

    def __init__(self, server: MySQLServer, work: Work) -> None:
        self.names = work.names
        self._server = server
        self._work = work

    async def end_work(self) -> None:
        async with self._server.schema(self._work, is_long=True) as schema:

            async def of_earlier_processes() -> list[Thread]:
                return [Thread(*row) for row in await schema.run(_EARLIER, program_of(self.names))]

            await drop_helpers(schema)
            await end_threads(schema, of_earlier_processes)

    async def create(self) -> bool:
        async with self._server.schema(self._work) as schema:
            if await exists(schema):
                return False
            rights.check_name(schema)
            await rights.revoke_access(schema)  # before it exists: a next try would find it, and leave them
            await schema.run(f"CREATE DATABASE {identifier(schema.name)}")
            return True

    async def add_login(self, login: str, password: Secret, role: Role) -> None:
        async with self._server.schema(self._work) as schema:
            await create_login(schema, login, password, rights.RIGHTS[role])
            await _restore_definers(schema)

    async def add_dump_login(self, login: str, password: Secret) -> None:
        """See ``TenantSession``. Without SHOW_ROUTINE, MySQL shows it no routine of another definer."""
        async with self._server.schema(self._work) as schema:
            await create_login(schema, login, password, rights.OF_A_DUMP, TEMPORARY_CONNECTIONS)

    async def end_logins(self, logins: Collection[str], /) -> None:
        async with self._server.schema(self._work, is_long=True) as schema:
            await end(schema, logins)

    async def drop_logins(self, logins: Collection[str], /) -> tuple[str, ...]:
        """See ``TenantSession``. The newest of a suspended tenant stays: it shows that the database is a tenant's."""
        left = {*logins}
        async with self._server.schema(self._work, is_long=True) as schema:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DROP_LOGINS_SECONDS):
                    await _restore_definers(schema)
                    existing = await accounts(schema)
                    if left.issuperset(existing) and await exists(schema):
                        left -= {*[*existing][-1:]}
                    for login in sorted(left):
                        with suppress(DefinerError):
                            await schema.run("DROP USER IF EXISTS %s@'%%'", login)
                            left.remove(login)
        return tuple(sorted(left))

    async def repair(self, logins: Mapping[str, Role], /) -> None:
        async with self._server.schema(self._work, is_long=True) as schema:
            await make_writable(schema)
            existing = await accounts(schema, logins)
            await end(schema, await intruders(schema))
            await end_in_schema(schema, await rights.revoke_access(schema, existing))
            for account in existing.values():
                if account.login in logins and account.is_ours and not account.is_locked:
                    await restore_login(schema, account.login, logins[account.login])
            await _restore_definers(schema)

    async def shut(self) -> None:
        async with self._server.schema(self._work, is_long=True) as schema:
            await rights.revoke_access(schema)
            await end(schema, await intruders(schema))
            await end_in_schema(schema)
            await make_writable(schema)

    async def freeze(self, logins: Collection[str], /) -> None:
        async with self._server.schema(self._work, is_long=True) as schema:
            existing = await accounts(schema)
            frozen = {*logins, *await rights.grantees(schema, "INSERT")}
            frozen |= {each.login for each in existing.values() if each.is_locked}
            await rights.revoke_access(schema, {*existing} - frozen)  # the login that dumps stays
            await end(schema, frozen & {*existing, *logins}, keep_passwords=True)
            until = monotonic() + ENDING_SECONDS
            while True:
                await end_in_schema(schema)
                await refuse_prepared(schema)
                try:
                    await schema.run(f"ALTER DATABASE {identifier(schema.name)} READ ONLY = 1")
                    return
                except LockedError:  # who has rights on all schemas writes here
                    if monotonic() > until:
                        raise

    async def unfreeze(self, logins: Mapping[str, Role], /) -> None:
        async with self._server.schema(self._work, is_long=True) as schema:
            await make_writable(schema)
            for login in [each for each in await accounts(schema) if each in logins]:
                await restore_login(schema, login, logins[login])
            await _restore_definers(schema)

    async def adopt(self) -> str | None:
        async with self._server.schema(self._work, is_long=True) as schema:
            rights.check_name(schema)
            existing = await accounts(schema, [schema.name])
            namesake = existing.pop(schema.name, None)
            ours = [each.login for each in existing.values() if not each.is_locked]
            owners = await rights.grantees(schema, "CREATE")
            goes_on = [login for login in ours if login in owners][-1:] or ours[-1:]
            if namesake and not namesake.is_locked and not ours:
                goes_on = [namesake.login]
            for login in {*ours, *goes_on}:
                await check_adoption(schema, login)
            await end(schema, {*ours} - {*goes_on})
            await make_writable(schema)
            await end_in_schema(schema, await rights.revoke_access(schema, goes_on))
            return goes_on[0] if goes_on else None

    async def drop_database(self) -> None:
        await self.shut()
        async with self._server.schema(self._work, is_long=True) as schema:
            await refuse_prepared(schema)  # for whose locks DROP DATABASE would wait
            await schema.run(f"DROP DATABASE IF EXISTS {identifier(schema.name)}", seconds=_DROP_SCHEMA_SECONDS)

    async def forget(self, role: Role | None = None) -> None:
        """See ``TenantSession``. On MySQL rights outlive their schema."""
        if role is None:
            async with self._server.schema(self._work) as schema:
                await rights.revoke_access(schema)


async def _restore_definers(schema: Schema) -> None:
    """Give ended logins the rights that honest code of the tenant needs, which runs as them.

    While no login of the tenant is open, it is suspended, or moves: then they have none.
    """
    existing = (await accounts(schema, [schema.name])).values()
    ended = [each.login for each in existing if each.is_locked and each.is_ours]
    if not ended or not any(schema.names.is_login(each.login) and not each.is_locked for each in existing):
        return
    for login, wanted in (await rights_of_ended(schema, ended)).items():
        await rights.set_rights(schema, login, wanted)
