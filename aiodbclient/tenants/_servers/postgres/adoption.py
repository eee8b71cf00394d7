"""Adopt a database on PostgreSQL: it and what is in it become the tenant's, and the login that was there goes on.

``REASSIGN OWNED`` of the administrator or of a login would take the other databases with it. So the owner of each
object is changed by a statement of its own, from what ``pg_shdepend`` lists for this database.
"""

from __future__ import annotations

from contextlib import suppress

from psycopg.sql import SQL

from ....errors import ConflictError, GrantError
from .databases import lacking, need_database, take
from .entering import Opener, entered
from .objects import hand_over, owners
from .sessions import Session
from .strangers import end_sessions

_ATTRIBUTES = SQL("""
SELECT name FROM pg_roles, LATERAL (
    VALUES ('SUPERUSER', rolsuper), ('CREATEDB', rolcreatedb), ('CREATEROLE', rolcreaterole),
           ('REPLICATION', rolreplication), ('BYPASSRLS', rolbypassrls)) AS attributes (name, has)
WHERE rolname = %s AND has
""")
# Before 16, CREATEROLE suffices.
_MAY_ALTER = SQL("""
SELECT current_setting('server_version_num')::int < 160000 OR pg_has_role(oid, 'MEMBER WITH ADMIN OPTION')
FROM pg_roles WHERE rolname = %s
""")
_POWERS = SQL("""
SELECT p.rolname FROM pg_roles r, pg_roles p WHERE r.rolname = %s AND NOT p.rolsuper
  AND (p.rolname = current_user OR p.rolname ~ '^pg_' AND p.rolname <> 'pg_database_owner')
  AND pg_has_role(r.oid, p.oid, 'MEMBER') ORDER BY 1
""")
# The other databases in which the login owns something, and what it owns of the server.
_ELSEWHERE = SQL("""
SELECT DISTINCT coalesce(here.datname, shared.datname) FROM pg_shdepend s
LEFT JOIN pg_database here ON here.oid = dbid
LEFT JOIN pg_database shared ON s.classid = 'pg_database'::regclass AND shared.oid = s.objid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
  AND deptype = 'o' AND coalesce(here.datname, shared.datname) <> %s ORDER BY 1
""")


async def check(session: Session, login: str | None) -> None:
    """Raise ConflictError if the database or the login is not the tenant's to take."""
    names, database = session.names, await need_database(session)
    reasons = list[str]()
    if database.owner not in {session.admin, names.owner} and not await _may_alter(session, database.owner):
        reasons.append(
            f"the database {names.database!r} belongs to {database.owner!r}, whom the administrator may not alter"
        )
    if login is not None:
        of_login = [f"it has {attribute}" for (attribute,) in await session.run(_ATTRIBUTES, login)]
        of_login += [f"it has the rights of {power!r}" for (power,) in await session.run(_POWERS, login)]
        elsewhere = await session.run(_ELSEWHERE, login, names.database)
        of_login += [f"it owns something in the database {database!r}" for (database,) in elsewhere]
        if not await _may_alter(session, login):
            of_login.append("the administrator may not alter it")
        reasons += [f"the login {login!r} cannot be adopted: {reason}" for reason in of_login]
    if reasons:
        raise ConflictError(f"tenant {names.tenant!r}: {'; '.join(reasons)}; nothing was changed", status=409)


async def _may_alter(session: Session, role: str) -> bool:
    return await session.run(_MAY_ALTER, role) == [(True,)]


async def take_database(session: Session, login: str | None) -> None:
    """Make the owner role the owner, shut all others out, and make the login a member that inherits."""
    await take(session, await lacking(session, () if login is None else (login,), None))
    await end_sessions(session, session.names.everything | ({login} if login else set()))


async def take_objects(opened: Opener, login: str | None) -> None:
    """Give the tenant what anybody owns in the database. ``problems`` reports what the administrator may not give."""
    async with opened() as session:
        names, others = session.names, await owners(session)
    ours = names.everything - {login}
    async with entered(opened, names.database) as session:
        for other in others:
            if other not in ours:
                with suppress(GrantError):
                    await hand_over(session, other)
