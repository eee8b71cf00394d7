"""``LockWatcher``: ends the sessions of tenants that hold up the administrator, and names others.

During a step, ``LockWatcher`` looks who it waits for. It ends the sessions of a tenant's login that has been in the way
for ``PATIENCE_SECONDS``, by one session or by several in turns. Nobody else's is ended. A prepared transaction is named
in the error: its owner or a superuser can roll it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from time import monotonic

from attrs import define, field
from psycopg.sql import SQL

from ....errors import DatabaseClientError
from ..._naming import OF_A_GROUP
from .. import BaseTenant
from .connection import CLIENTS, Connector, Session

PATIENCE_SECONDS = 5.0  # with a tenant's login that holds a lock
_FIRST_POLL_SECONDS = 0.3  # most steps are done by then
_POLL_SECONDS = 0.2

# Whether the role ``r`` is a tenant's: an owner role, a group, a member of one, or a login of this tenant, which may be
# ended. Never an administrator.
_OF_A_TENANT = """
coalesce(NOT r.rolsuper AND NOT r.rolcreaterole AND (r.rolname ~ %(form)s OR r.rolname ~ %(own)s OR EXISTS (
    SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname ~ %(form)s)),
false)
"""
# Who the session with this process id waits for, and whether it was ended: the sessions of ``ending`` are.
_END_BLOCKING = SQL(f"""
SELECT a.usename, a.datname, CASE WHEN a.usename = ANY (%(ending)s) AND {_OF_A_TENANT} AND a.{CLIENTS}
       THEN pg_terminate_backend(b.pid) END
FROM unnest(pg_blocking_pids(%(pid)s)) AS b (pid)
JOIN pg_stat_activity a USING (pid) LEFT JOIN pg_roles r ON r.oid = a.usesysid
""")
# PostgreSQL does not say which one. Without any of these, no prepared transaction would be in the way.
_BLOCKING_PREPARED = SQL("SELECT database, gid, owner FROM pg_prepared_xacts WHERE 0 = ANY (pg_blocking_pids(%(pid)s))")


@define
class LockWatcher:
    """Watches over a step, and ends who blocks it."""

    tenant: BaseTenant
    connected_to: Connector
    seen: str = ""  # who was in the way last
    _since: dict[str, float] = field(factory=dict[str, float])  # when a login was in the way first
    _looking: asyncio.Lock = field(factory=asyncio.Lock)  # held until it is noted who was ended

    @asynccontextmanager
    async def over(self, session: Session) -> AsyncGenerator[None]:
        """End who blocks ``session``, with a second one."""
        watching = asyncio.create_task(self._watch(session))
        try:
            yield
        finally:
            try:
                async with self._looking:
                    pass
            finally:
                watching.cancel()
                await asyncio.wait([watching])

    async def _watch(self, session: Session) -> None:
        await asyncio.sleep(_FIRST_POLL_SECONDS)
        with suppress(DatabaseClientError):  # the watched session reports what is wrong
            async with self.connected_to() as second:
                while True:
                    async with self._looking:
                        await self._look(second, session.server.info.backend_pid)
                    await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, session: Session, pid: int) -> None:
        own, now = self.tenant.names.login_pattern, monotonic()
        ending = [login for login, since in self._since.items() if now - since > PATIENCE_SECONDS]
        blocking = await session.run(_END_BLOCKING, pid=pid, form=OF_A_GROUP, own=own, ending=ending)
        for login, database, was_ended in blocking:
            self._since.setdefault(login, now)
            self.seen = f"an open transaction of the login {login!r} in the database {database!r} holds a lock"
            if was_ended is not None and not self.tenant.names.is_ours(login):
                self.tenant.others_ended.add(login)
        for database, gid, owner in await session.run(_BLOCKING_PREPARED, pid=pid):
            self.seen = f"the prepared transaction {gid!r} of {owner!r} in the database {database!r} holds a lock"
