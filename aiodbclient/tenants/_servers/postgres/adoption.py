"""Adoption on PostgreSQL: a database and what is in it become the tenant's, and the login that was there goes on.

``REASSIGN OWNED`` of the administrator or of a login would take the other databases with it. So the owner of each
object is changed by a statement of its own, from what ``pg_shdepend`` lists for this database.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ....errors import ConflictError
from ..._naming import Role
from .closing import end_sessions
from .databases import complete, need_database, read_logins
from .objects_of_others import ATTRIBUTES
from .sessions import Session

# Whether the administrator may not alter a role. Before 16, CREATEROLE suffices.
_BEYOND: LiteralString = """
current_setting('server_version_num')::int >= 160000 AND NOT pg_has_role(oid, 'MEMBER WITH ADMIN OPTION')
"""
_OWNER_BEYOND = SQL(f"SELECT FROM pg_roles WHERE rolname = %s AND {_BEYOND}")
_CANNOT_ADOPT = SQL(f"""
SELECT 'it has ' || attribute FROM ({ATTRIBUTES}) AS attributes
UNION ALL SELECT 'it has the rights of ' || quote_literal(p.rolname) FROM pg_roles r, pg_roles p
WHERE r.rolname = ANY (%(ours)s) AND NOT p.rolsuper AND pg_has_role(r.oid, p.oid, 'MEMBER')
  AND (p.rolname = current_user OR p.rolname ~ '^pg_' AND p.rolname <> 'pg_database_owner')
UNION ALL SELECT 'the administrator may not alter it' FROM pg_roles WHERE rolname = ANY (%(ours)s) AND {_BEYOND}
""")
# The login that goes on: the newest one that may act as the owner role, or the one that has the database's name. The
# login of a dump inherits.
_GOES_ON = SQL("""
SELECT rolname::text FROM pg_roles r WHERE rolcanlogin AND (rolname = %(database)s OR rolname ~ %(form)s
    AND NOT rolinherit AND pg_has_role(r.oid, to_regrole(quote_ident(%(owner)s)), 'MEMBER'))
ORDER BY rolname = %(database)s, rolname DESC LIMIT 1
""")
_HAS_SCHEMA = SQL("""
SELECT FROM pg_namespace WHERE nspname = %s AND NOT EXISTS (
    SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
    WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND starts_with(setting, 'search_path='))
""")


async def login_to_adopt(session: Session) -> str | None:
    names = session.names
    rows = await session.run(_GOES_ON, database=names.database, form=names.login_pattern, owner=names.owner)
    return str(rows[0][0]) if rows else None


async def check_adoption(session: Session, login: str | None) -> None:
    """Raise ConflictError if the database or the login is not the tenant's to take."""
    names, database = session.names, await need_database(session)
    reasons = list[str]()
    if database.owner not in {session.admin, names.owner} and await session.run(_OWNER_BEYOND, database.owner):
        reasons.append(
            f"the database {names.database!r} belongs to {database.owner!r}, whom the administrator may not alter"
        )
    for (reason,) in await session.run(_CANNOT_ADOPT, ours=[] if login is None else [login]):
        reasons.append(f"the login {login!r} cannot be adopted: {reason}")
    if reasons:
        raise ConflictError(f"tenant {names.tenant!r}: {'; '.join(reasons)}; nothing was changed", status=409)


async def check_schema(session: Session, login: str) -> None:
    """In the database: raise ConflictError if the login's search path, with "$user", has a schema that others' has not.

    The new logins act as the owner role, so "$user" is another schema for them.
    """
    names = session.names
    if await session.run(_HAS_SCHEMA, login):
        database = Identifier(names.database).as_string(None)
        raise ConflictError(
            f"tenant {names.tenant!r}: the schema {login!r} is on the search path of the login {login!r} alone: run "
            f"ALTER DATABASE {database} SET search_path = {Identifier(login).as_string(None)}, public; nothing was "
            "changed",
            status=409,
        )


async def take_database(session: Session, login: str | None) -> None:
    """Make the owner role the owner, shut all others out, and make the login a member that inherits."""
    logins = {} if login is None else {login: Role.OWNER}
    await complete(session, logins)
    await end_sessions(session, keep=[*(each.name for each in await read_logins(session, logins)), session.admin])
