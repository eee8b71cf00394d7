"""The life of a tenant's PostgreSQL database: it is found, created or adopted, locked, frozen, and dropped."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier, Literal

from ....errors import ConflictError
from ..._naming import OF_A_GROUP, Names
from ..._outcomes import ProblemKind
from .. import ServerState
from .connection import BlockedError, DeniedError, Session, StatementTimeoutError, end_sessions
from .ownership import excess
from .rights import (
    ALL,
    Database,
    apply,
    apply_database_rights,
    check_owner,
    database_remedies,
    find_database,
    read_database,
    read_logins,
    set_on_database,
)

_EMPTY_SECONDS = 20.0

# The databases of other names in which the owner role may create.
_RENAMED = SQL("""
SELECT datname::text FROM pg_shdepend JOIN pg_database d ON d.oid = objid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %(owner)s)
  AND classid = 'pg_database'::regclass AND deptype = 'a' AND datname <> %(database)s AND datconnlimit <> -2
  AND EXISTS (SELECT FROM aclexplode(datacl) WHERE grantee = refobjid AND privilege_type = 'CREATE') ORDER BY 1
""")
_DROP = SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
_PREPARED = SQL("SELECT gid, owner FROM pg_prepared_xacts WHERE database = %s ORDER BY 1")


async def inspect(names: Names, server: AsyncConnection[Any]) -> ServerState:
    """Find what exists with the names of the tenant."""
    session = Session(names, server)
    database = await find_database(session)
    logins = await read_logins(session, [names.database])
    has = [] if database is None else [each.rstrip("*") for each in database.privileges.get(names.owner, ())]
    not_ours = database is not None and not database.is_ours
    return ServerState(
        database=database is not None,
        logins=tuple([each.name for each in logins if each.can_log_in and each.name != names.database]),
        disabled=tuple([each.name for each in logins if not each.can_log_in and each.name != names.database]),
        same_name_login=names.database in [each.name for each in logins if each.can_log_in],
        not_ours=not_ours,
        is_locked_out="CREATE" in has and "CONNECT" not in has,
        mismatch=await _mismatch(session, database) if database is None or not_ours else "",
    )


async def _mismatch(session: Session, database: Database | None) -> str:
    """Say whose the database of the tenant's name is, if there is one, and where the tenant's own is."""
    names, reasons = session.names, list[str]()
    renamed = [name for (name,) in await session.run(_RENAMED, owner=names.owner, database=names.database)]
    name, owner = [Identifier(each).as_string(None) for each in (names.database, names.owner)]
    privileges = {} if database is None else database.privileges
    creators = sorted(who for who, has in privileges.items() if who and not {"CREATE", "CREATE*"}.isdisjoint(has))
    if creators:
        reasons.append(f"the database {names.database!r} is another's: {', '.join(creators)} may create in it")
    elif database is not None:
        reasons.append(f"the database {names.database!r} is not the tenant's: {names.owner} may not create in it")
    if renamed:
        rename = f"ALTER DATABASE {Identifier(renamed[0]).as_string(None)} RENAME TO {name}"
        if database is not None:
            aside = Identifier(f"{names.database}_not_its_own").as_string(None)
            rename = f"ALTER DATABASE {name} RENAME TO {aside}; {rename}"
        reasons.append(f"the tenant's own is named {', '.join(map(repr, renamed))}: run {rename}")
    elif database is not None and not creators:  # with this right, another tenant's would be taken for this one's
        reasons.append(f"if you restored it, run GRANT CREATE ON DATABASE {name} TO {owner}, and then repair")
    return "; ".join(reasons)


async def lock_out(session: Session) -> None:
    """Revoke all rights but one, by which the database stays the tenant's, and end all sessions in it."""
    if (database := await find_database(session)) is not None:
        check_owner(session, database)
        await apply_database_rights(session, None)
        await _empty(session)


async def freeze(session: Session, logins: Collection[str]) -> None:
    """Revoke all rights on the database except those of the login that dumps it, and end all sessions in it."""
    await refuse_prepared(session)
    names, database = session.names, await read_database(session)
    check_owner(session, database)
    dumping = [login.name for login in await read_logins(session) if login.inherits and login.name not in logins]
    await apply(session, [*database_remedies(session, database, {names.owner: ALL}, dumping)])
    await _empty(session, logins)
    await refuse_prepared(session)


async def refuse_prepared(session: Session) -> None:
    """Raise GrantError if a prepared transaction is left in the database: somebody could commit it."""
    for gid, owner in await session.run(_PREPARED, session.names.database):
        who = f"of {owner!r}" if owner else "of a dropped role"
        raise session.error(
            f"the database {session.names.database!r} has the prepared transaction {gid!r} {who}: run ROLLBACK "
            "PREPARED in it as that login or as a superuser, and run this again"
        )


async def _empty(session: Session, logins: Collection[str] = ()) -> None:
    """End every session in the database, whosever it is, and all of ``logins``, and look again."""
    database = session.names.database
    if left := await end_sessions(session, _EMPTY_SECONDS, database=database, logins=logins):
        raise session.error(f"sessions in the database {database!r} do not end: {', '.join(left)}; run it again")


async def drop(session: Session) -> None:
    """Drop the database. Before, lock all out of one that is open."""
    if (database := await find_database(session)) is not None:
        check_owner(session, database)
        if not database.is_ours:
            raise session.error(f"the database {session.names.database!r} is not the tenant's, and was not dropped")
        if database.allows_connections:
            await lock_out(session)
            await refuse_prepared(session)
            closing = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false")
            await session.run(closing.format(Identifier(session.names.database)))
    # DROP DATABASE waits for each process of the server. A client that does not finish its login holds it up until the
    # server ends the connection, after ``authentication_timeout``: 60 s by default. ``statement_timeout`` is longer.
    try:
        await session.run(_DROP.format(Identifier(session.names.database)))
    except DeniedError as error:  # to end the session of a superuser, which may be about to end by itself
        raise BlockedError(error.args[0], tenant=error.tenant, statement=error.statement) from None
    except StatementTimeoutError as error:
        raise session.error(
            f"{error}: it waits for each process of the server, also for a statement that cannot be ended and for "
            "one that begins a login; the logins are disabled: run it again"
        ) from None


async def create(session: Session, source: str = "template0") -> bool:
    """Create the database, closed to all, as a copy of ``source``. Return whether it is new."""
    if await find_database(session) is not None:
        return False
    await session.run(_DROP.format(Identifier(session.names.database)))  # what is left of an interrupted one
    copy = SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false")
    await session.run(copy.format(Identifier(session.names.database), Identifier(source)))
    return True


async def open_new(session: Session) -> bool:
    """Give a database that no login may enter yet its rights and settings. Return whether it is the tenant's."""
    database = await read_database(session)
    may_enter = database.allows_connections and database.privileges.keys() - {session.names.owner}
    if database.is_ours and database.owner == session.admin and not may_enter:
        await apply_database_rights(session, {})
    return database.is_ours


async def copy_settings(session: Session, limit: int, settings: Sequence[tuple[str, str]]) -> None:
    """Give the database a limit of connections, and settings, of which ``pg_db_role_setting`` has these values."""
    database = Identifier(session.names.database)
    limited = SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, Literal(limit))
    await session.run_with([], limited, *(set_on_database(session, name, value) for name, value in settings))


# Adoption.

# The roles that the administrator may not alter. Before 16, CREATEROLE suffices.
_UNALTERABLE = SQL("""
SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) AND current_setting('server_version_num')::int >= 160000
  AND NOT pg_has_role(oid, 'MEMBER WITH ADMIN OPTION')
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
    """Return the login that goes on. Raise ConflictError if it or the database is not the tenant's to take."""
    names, database = session.names, await read_database(session)
    logins = await session.run(_GOES_ON, database=names.database, form=names.login_pattern, owner=names.owner)
    login, reasons = logins[0][0] if logins else None, list[str]()
    ours = [] if login is None else [login]
    unalterable = {role for (role,) in await session.run(_UNALTERABLE, [database.owner, *ours])}
    if database.owner in unalterable - {session.admin, names.owner}:
        reasons.append(
            f"the database {names.database!r} belongs to {database.owner!r}, whom the administrator may not alter"
        )
    for role, privileges in database.privileges.items():
        if "CREATE" in privileges and role != names.owner and re.search(OF_A_GROUP, role):
            reasons.append(f"the database {names.database!r} is another tenant's: {role!r} may create in it")
    if login in unalterable:
        reasons.append(f"the login {login!r} cannot be adopted: the administrator may not alter it")
    for problem, _ in await excess(session, {}, ours):
        if problem.kind is ProblemKind.TOO_MANY_RIGHTS:
            reasons.append(f"the login {login!r} cannot be adopted: {problem.detail}")
    if reasons:
        raise ConflictError(f"tenant {names.tenant!r}: {'; '.join(reasons)}; nothing was changed", status=409)
    return login


async def check_schema(session: Session, login: str) -> None:
    """In the database: raise ConflictError if "$user" puts a schema on the search path of the login alone."""
    names = session.names
    if await session.run(_HAS_SCHEMA, login):  # the new logins act as the owner role, whose "$user" is another
        database = Identifier(names.database).as_string(None)
        raise ConflictError(
            f"tenant {names.tenant!r}: the schema {login!r} is on the search path of the login {login!r} alone: run "
            f"ALTER DATABASE {database} SET search_path = {Identifier(login).as_string(None)}, public; nothing was "
            "changed",
            status=409,
        )
