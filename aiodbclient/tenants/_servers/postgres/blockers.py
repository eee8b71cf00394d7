"""Who blocks the administrator: the sessions of tenants that hold a lock for long lose it.

While the administrator ends a login, creates, shuts or drops, ``Watch`` looks who it waits for. A session of a tenant
whose transaction is older than ``PATIENCE_SECONDS`` is ended, and a prepared transaction rolled back. Nobody else's is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from attrs import define
from psycopg.sql import SQL

from ....errors import DatabaseClientError
from ..._naming import OF_A_GROUP
from ..server import Work
from .entering import Opener, roll_back_these
from .sessions import Session

PATIENCE_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 0.3  # most steps are done by then
_LOOK_SECONDS = 0.2

# Whether the role ``r`` is a tenant's: an owner role, a group, or a member of one. Never an administrator.
_OF_A_TENANT = """
coalesce(NOT r.rolsuper AND NOT r.rolcreaterole AND (r.rolname ~ %(form)s OR r.rolname = ANY (%(own)s) OR EXISTS (
    SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname ~ %(form)s)),
false)
"""
# Who the session with this process id waits for.
_SESSIONS = SQL(f"""
SELECT a.usename, a.datname, b.pid, {_OF_A_TENANT} AND a.backend_type = 'client backend'
       AND a.xact_start < clock_timestamp() - make_interval(secs => %(patience)s)
FROM unnest(pg_blocking_pids(%(pid)s)) AS b (pid)
JOIN pg_stat_activity a USING (pid) LEFT JOIN pg_roles r ON r.oid = a.usesysid
""")
_PREPARED = SQL(f"""
SELECT p.database, p.gid, p.owner,
       {_OF_A_TENANT} AND p.prepared < clock_timestamp() - make_interval(secs => %(patience)s)
FROM pg_locks w JOIN pg_locks h ON h.granted AND h.pid IS NULL
    AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
        IS NOT DISTINCT FROM
        (w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
JOIN pg_locks x ON x.pid IS NULL AND x.virtualtransaction = h.virtualtransaction AND x.locktype = 'transactionid'
JOIN pg_prepared_xacts p ON p.transaction = x.transactionid LEFT JOIN pg_roles r ON r.rolname = p.owner
WHERE w.pid = %(pid)s AND NOT w.granted
""")
_TERMINATE = SQL("SELECT pg_terminate_backend(%s)")


@define
class Watch:
    """Watches over the steps of a work, and ends who blocks them."""

    work: Work
    opened: Opener
    seen: str = ""  # who was in the way last

    @asynccontextmanager
    async def over(self, session: Session) -> AsyncGenerator[None]:
        """End who blocks ``session``, with a second one."""
        watcher = asyncio.create_task(self._watch(session.server.info.backend_pid))
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])

    async def _watch(self, pid: int) -> None:
        await asyncio.sleep(_FIRST_LOOK_SECONDS)
        with suppress(DatabaseClientError):  # the watched session reports what is wrong
            async with self.opened() as session:
                while True:
                    await self._look(session, pid)
                    await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, session: Session, pid: int) -> None:
        values: dict[str, Any] = {
            "pid": pid,
            "form": OF_A_GROUP,
            "own": sorted(self.work.names.everything),
            "patience": PATIENCE_SECONDS,
        }
        for login, database, blocker, is_to_end in await session.run(_SESSIONS, **values):
            self.seen = f"an open transaction of the login {login!r} in the database {database!r} holds a lock"
            if is_to_end:
                await session.run(_TERMINATE, blocker)
                self._ended(login)
        for database, gid, owner, is_to_end in await session.run(_PREPARED, **values):
            self.seen = f"the prepared transaction {gid!r} of {owner!r} in the database {database!r} holds a lock"
            if is_to_end:
                await roll_back_these(self.opened, [(database, gid, owner)])
                self._ended(owner)

    def _ended(self, whose: str) -> None:
        if whose not in self.work.names.everything:
            self.work.ended.add(whose)
