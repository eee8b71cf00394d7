"""The life of a tenant's PostgreSQL database: it is created or adopted, shut, frozen, and dropped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from time import monotonic
from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ....errors import ConflictError
from ..._naming import Role
from ...errors import GrantError
from .grants import (
    ATTRIBUTES,
    closing_steps,
    complete,
    group_steps,
    need_database,
    read_database,
    read_logins,
    role_steps,
    take,
)
from .sessions import (
    CLIENTS,
    BlockedError,
    DeniedError,
    ExistsError,
    Session,
    StatementTimeoutError,
    end_all,
    end_opening,
)

# For DROP DATABASE, which waits for each process of the server. A client that does not finish its login holds it up
# until the server ends the connection, after ``authentication_timeout``: 60 s by default.
REMOVAL_SECONDS = 70.0
_EMPTY_SECONDS = 20.0

# Who owns it, whether it is left of an interrupted DROP DATABASE, and whether it allows connections.
_STATE = SQL("SELECT pg_get_userbyid(datdba), datconnlimit = -2, datallowconn FROM pg_database WHERE datname = %s")
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
_TIMEOUTS: LiteralString = "FROM pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout')"
_SET_TIMEOUTS = SQL(f"""
SELECT set_config(name, CASE name WHEN 'statement_timeout' THEN %s ELSE '0' END, false) {_TIMEOUTS}
""")
_RESET_TIMEOUTS = SQL(f"SELECT set_config(name, reset_val, false) {_TIMEOUTS}")
# DROP DATABASE waits until each process of the server has taken note of it. In the middle of some statements none does.
_LONG_STATEMENTS = SQL("""
SELECT pid, usename, datname FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend'
  AND pid <> pg_backend_pid() AND query_start < clock_timestamp() - make_interval(secs => %s) ORDER BY query_start
""")


async def end_sessions(session: Session, *, also: Collection[str] = (), keep: Collection[str] = ()) -> list[str]:
    """End the sessions in the tenant's database and those of ``also`` in others, except of ``keep``, and list them."""
    await end_opening(session, None if also else session.names.database)
    found = await session.run(_END_OTHERS, session.names.database, [*also], [*keep])
    return [f"process {pid} of {login!r}" for pid, login in found]


async def shut(session: Session) -> None:
    """Revoke the rights of others on the database, and end all sessions in it."""
    if await read_database(session) is not None:
        # The administrator's until ``create_login``: code of the owner role elsewhere could let somebody in.
        await complete(session, None)
        await _empty(session)


async def freeze(session: Session, logins: Collection[str]) -> None:
    """Revoke all rights on the database except those of the login that dumps it, and end all sessions in it."""
    await refuse_prepared(session)
    names, database = session.names, await need_database(session)
    readers = {login.name for login in await read_logins(session) if login.inherits and login.name not in logins}
    # As a member of the owner role, a login could grant itself CONNECT from another database.
    steps = await role_steps(session, names.owner, (), readers)
    await take(session, [*steps, *closing_steps(session, database, readers)])
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
    """Shut a database that is open, and drop it."""
    names, name = session.names, Identifier(session.names.database)
    for owner, is_left, allows in await session.run(_STATE, names.database):
        if owner not in {session.admin, names.owner}:
            raise session.error(f"the database {names.database!r} belongs to {owner!r}, and was not dropped")
        if allows and not is_left:
            await shut(session)
            await refuse_prepared(session)
        elif owner != session.admin:  # FORCE needs the rights of the owner and those of the administrator
            await session.run_with([names.owner], SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(name))
        if not is_left:
            text = "ALTER DATABASE {0} IS_TEMPLATE false; ALTER DATABASE {0} ALLOW_CONNECTIONS false"
            await session.run(SQL(text).format(name))
        await _drop(session)


async def _drop(session: Session) -> None:
    drop = SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(session.names.database))
    await session.run(_SET_TIMEOUTS, f"{REMOVAL_SECONDS * 1000:.0f}")
    try:
        await session.run(drop)
        return
    except DeniedError as error:  # to end the session of a superuser, which may be about to end by itself
        raise BlockedError(error.args[0], tenant=error.tenant, statement=error.statement) from None
    except StatementTimeoutError as error:
        found = await session.run(_LONG_STATEMENTS, REMOVAL_SECONDS)
        named = ", ".join(f"process {pid} of {login!r} in {database!r}" for pid, login, database in found)
        reason = f"{error}: it waits for each process of the server, and these run a statement for longer: {named}"
    finally:
        await session.run(_RESET_TIMEOUTS)
    raise session.error(f"{reason}; the logins are ended: run it again")


async def create(session: Session) -> bool:
    """Create the database, closed to all. Return whether it is new."""
    if await read_database(session) is not None:
        return False
    for _, is_left, _ in await session.run(_STATE, session.names.database):
        if is_left:  # of an interrupted DROP DATABASE: nobody can enter it, and it can only be dropped
            await drop(session)
    name = Identifier(session.names.database)
    await session.run(SQL("CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false").format(name))
    return True


async def open_new(session: Session) -> None:
    """Give a closed database its owner role, and open it. Any other database is left as it is."""
    database = await need_database(session)
    if not database.connections and database.owner in (session.names.owner, session.admin):
        await complete(session, {})


async def create_group(session: Session, role: Role) -> None:
    """Create the group of the readers or writers, who may connect."""
    present = [login.name for login in await read_logins(session)]  # they stay members
    await take(session, await group_steps(session, await need_database(session), role, (), present))


async def other_grantees(session: Session) -> list[str]:
    names, database = session.names, await need_database(session)
    others = [each for each in database.privileges if not names.is_ours(each)]
    return sorted(each or "PUBLIC" for each in others if each not in (database.owner, session.admin))


async def add_extensions(session: Session, extensions: Sequence[tuple[str, str]]) -> None:
    """In the tenant's database: make extensions, each a name and its schema."""
    create = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}")
    for name, schema in extensions:
        if not schema.startswith("pg_"):  # those of the server
            await session.run_as(session.names.owner, SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
        try:
            await session.run_with([session.names.owner], create.format(Identifier(name), Identifier(schema)))
        except ExistsError as error:  # something that it creates: no other try would help
            raise GrantError(error.args[0], tenant=error.tenant, statement=error.statement) from None


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
    names, database = session.names, await need_database(session)
    logins = await session.run(_GOES_ON, database=names.database, form=names.login_pattern, owner=names.owner)
    login, reasons = logins[0][0] if logins else None, list[str]()
    if database.owner not in {session.admin, names.owner} and await session.run(_OWNER_BEYOND, database.owner):
        reasons.append(
            f"the database {names.database!r} belongs to {database.owner!r}, whom the administrator may not alter"
        )
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
    """Make the owner role the owner, shut all others out, and make the login a member that inherits."""
    logins = {} if login is None else {login: Role.OWNER}
    await complete(session, logins)
    await end_sessions(session, keep=[*(each.name for each in await read_logins(session, logins)), session.admin])
