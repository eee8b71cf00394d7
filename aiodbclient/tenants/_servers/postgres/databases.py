"""The life of a tenant's PostgreSQL database: it is created or adopted, locked, frozen, and dropped."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial
from time import monotonic
from typing import LiteralString

from psycopg.sql import SQL, Identifier, Literal

from ....errors import ConflictError
from ..._naming import OF_A_GROUP, Role
from .connection import (
    CLIENTS,
    BlockedError,
    DeniedError,
    Session,
    StatementTimeoutError,
    end_all,
    end_opening,
)
from .rights import (
    ALL,
    ATTRIBUTES,
    CONNECT,
    GrantStep,
    apply,
    apply_database_rights,
    database_steps,
    grant_on_database,
    need_database,
    read_database,
    read_logins,
    role_steps,
    set_on_database,
)

_EMPTY_SECONDS = 20.0

# Sessions of any login, and of roles that were dropped. A superuser's is the provider's, and cannot be ended.
# MATERIALIZED: otherwise the planner may call pg_terminate_backend before it checks the conditions.
_END_OTHERS = SQL(f"""
WITH found AS MATERIALIZED (
    SELECT pid, coalesce(usename, 'a dropped role') AS login
    FROM pg_stat_activity LEFT JOIN pg_roles r ON r.oid = usesysid
    WHERE (datname = %s OR usename = ANY (%s)) AND {CLIENTS} AND rolsuper IS DISTINCT FROM true
      AND pid <> pg_backend_pid() AND coalesce(usename, '') <> ALL (%s))
SELECT pid, login FROM found, pg_terminate_backend(pid)
""")
_PREPARED = SQL("SELECT gid, owner FROM pg_prepared_xacts WHERE database = %s ORDER BY 1")


async def end_sessions(session: Session, *, also: Collection[str] = (), keep: Collection[str] = ()) -> list[str]:
    """End the sessions in the tenant's database and those of ``also`` in others, except of ``keep``, and list them."""
    await end_opening(session, None if also else session.names.database)
    found = await session.run(_END_OTHERS, session.names.database, [*also], [*keep])
    return [f"process {pid} of {login!r}" for pid, login in found]


async def lock_out(session: Session) -> None:
    """Revoke all rights but one, by which the database stays the tenant's, and end all sessions in it."""
    if await read_database(session) is not None:
        await need_database(session)
        await apply_database_rights(session, None)
        await _empty(session)


async def freeze(session: Session, logins: Collection[str]) -> None:
    """Revoke all rights on the database except those of the login that dumps it, and end all sessions in it."""
    await refuse_prepared(session)
    names, database = session.names, await need_database(session)
    dumping = [login.name for login in await read_logins(session) if login.inherits and login.name not in logins]
    await apply(session, [*database_steps(session, database, {names.owner: ALL}, dumping)])
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
    if left := await end_all(partial(end_sessions, session, also=logins), monotonic() + _EMPTY_SECONDS):
        raise session.error(
            f"sessions in the database {session.names.database!r} do not end: {', '.join(left)}; run it again"
        )


async def drop(session: Session) -> None:
    """Lock all out of a database that is open, and drop it."""
    # DROP DATABASE waits for each process of the server. A client that does not finish its login holds it up until the
    # server ends the connection, after ``authentication_timeout``: 60 s by default. ``statement_timeout`` is longer.
    names, name = session.names, Identifier(session.names.database)
    if await read_database(session) is not None:  # one that is left of an interrupted DROP DATABASE is dropped too
        database = await need_database(session)
        if not database.is_of(names):
            raise session.error(f"the database {names.database!r} is not the tenant's, and was not dropped")
        if database.connections:
            await lock_out(session)
            await refuse_prepared(session)
            await session.run(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
    try:
        await session.run(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
    except DeniedError as error:  # to end the session of a superuser, which may be about to end by itself
        raise BlockedError(error.args[0], tenant=error.tenant, statement=error.statement) from None
    except StatementTimeoutError as error:
        raise session.error(
            f"{error}: it waits for each process of the server, also for a statement that cannot be ended and for "
            "one that begins a login; the logins are disabled: run it again"
        ) from None


async def create(session: Session, source: str = "template0") -> bool:
    """Create the database, closed to all, as a copy of ``source``. Return whether it is new."""
    if await read_database(session) is not None:
        return False
    await drop(session)  # what is left of an interrupted DROP DATABASE: nobody can enter it
    copy = SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false")
    await session.run(copy.format(Identifier(session.names.database), Identifier(source)))
    return True


async def open_new(session: Session) -> bool:
    """Give a closed database of the administrator its owner role, and open it. Return whether it is the tenant's."""
    database = await read_database(session) or await need_database(session)
    is_ours = database.is_of(session.names)
    if is_ours and database.owner == session.admin and not database.connections:
        await apply_database_rights(session, {})
    return is_ours


async def create_group(session: Session, role: Role) -> None:
    """Create the group of the readers or writers, who may connect."""
    group, database = session.names.group(role), await need_database(session)
    present = [login.name for login in await read_logins(session)]  # they stay members
    steps = await role_steps(session, group, (), present)
    if "CONNECT" not in database.privileges.get(group, ()):
        steps.append(GrantStep(grant_on_database(session, group, CONNECT)))
    await apply(session, steps)


async def copy_settings(session: Session, limit: int, settings: Sequence[tuple[str, str]]) -> None:
    """Give the database a limit of connections, and settings, of which ``pg_db_role_setting`` has these values."""
    database = Identifier(session.names.database)
    limited = SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, Literal(limit))
    await session.run_with([], limited, *(set_on_database(session, name, value) for name, value in settings))


# Adoption.

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
    """Return the login that goes on. Raise ConflictError if it or the database is not the tenant's to take."""
    names, database = session.names, await read_database(session) or await need_database(session)
    logins = await session.run(_GOES_ON, database=names.database, form=names.login_pattern, owner=names.owner)
    login, reasons = logins[0][0] if logins else None, list[str]()
    if database.owner not in {session.admin, names.owner} and await session.run(_OWNER_BEYOND, database.owner):
        reasons.append(
            f"the database {names.database!r} belongs to {database.owner!r}, whom the administrator may not alter"
        )
    for role, privileges in database.privileges.items():
        if "CREATE" in privileges and role != names.owner and re.search(OF_A_GROUP, role):
            reasons.append(f"the database {names.database!r} is another tenant's: {role!r} may create in it")
    for (reason,) in await session.run(_CANNOT_ADOPT, ours=[login] if login else []):
        reasons.append(f"the login {login!r} cannot be adopted: {reason}")
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


async def take_database(session: Session, login: str | None) -> None:
    """Make the owner role the owner, lock all others out, and make the login a member that inherits."""
    logins = {} if login is None else {login: Role.OWNER}
    await apply_database_rights(session, logins)
    await end_sessions(session, keep=[*(each.name for each in await read_logins(session, logins)), session.admin])
