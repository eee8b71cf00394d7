"""The life of a tenant's PostgreSQL database: it is created, shut, frozen for a move, opened again, and dropped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from time import monotonic
from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ..._naming import Role
from ...errors import GrantError
from .grants import closing_steps, complete, group_steps, need_database, read_database, read_logins, role_steps, take
from .sessions import BlockedError, DeniedError, ExistsError, Session, StatementTimeoutError, end_all, end_opening

# For DROP DATABASE, which waits for each process of the server. A client that does not finish its login holds it up
# until the server ends the connection, after ``authentication_timeout``: 60 s by default.
REMOVAL_SECONDS = 70.0
_EMPTY_SECONDS = 20.0

# Who owns it, whether it is left of an interrupted DROP DATABASE, and whether it allows connections.
_STATE = SQL("SELECT pg_get_userbyid(datdba), datconnlimit = -2, datallowconn FROM pg_database WHERE datname = %s")
# Whosever they are, also of a role that was dropped. Superusers' are the provider's, and cannot be ended.
_END_OTHERS = SQL("""
SELECT pid, coalesce(usename, 'a dropped role')
FROM pg_stat_activity LEFT JOIN pg_roles r ON r.oid = usesysid, pg_terminate_backend(pid)
WHERE (datname = %s OR usename = ANY (%s)) AND backend_type = 'client backend' AND rolsuper IS DISTINCT FROM true
  AND pid <> pg_backend_pid() AND coalesce(usename, '') <> ALL (%s)
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
    """End the sessions in the tenant's database and those of the logins ``also`` in others, except those of ``keep``.

    Return whose they are, with their pids.
    """
    await end_opening(session)
    found = await session.run(_END_OTHERS, session.names.database, [*also], [*keep])
    return [f"process {pid} of {login!r}" for pid, login in found]


async def shut(session: Session) -> None:
    """Revoke the rights of others on the database, and end all sessions in it.

    It belongs to the administrator until ``open_again``: code of the owner role, such as a function in another database
    of the same customer, could let somebody in.
    """
    if await read_database(session) is not None:
        await complete(session, None)
        await _empty(session)


async def freeze(session: Session, logins: Collection[str]) -> None:
    """Revoke all rights on the database, but of the login that dumps it, and end all sessions in it.

    Logins lose their membership too, and their sessions in other databases: as the owner role they could grant
    themselves CONNECT.
    """
    await refuse_prepared(session)
    names, database = session.names, await need_database(session)
    readers = {login.name for login in await read_logins(session) if login.inherits and login.name not in logins}
    steps = await role_steps(session, names.owner, (), readers)
    await take(session, [*steps, *closing_steps(session, database, readers)])
    await _empty(session, logins)
    await refuse_prepared(session)


async def open_again(session: Session) -> None:
    """After ``shut``: give the database back to its owner role. Does nothing if it was not shut."""
    for owner, is_left, _ in await session.run(_STATE, session.names.database):
        if owner == session.admin and not is_left:
            await complete(session, {})


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
    """Create the database, closed to all. Return whether it is new. One that is open already is left as it is.

    What an interrupted DROP DATABASE left is dropped first.
    """
    names = session.names
    database = await read_database(session)
    if database is None:
        for _, is_left, _ in await session.run(_STATE, names.database):
            if is_left:  # of an interrupted DROP DATABASE: nobody can enter it, and it can only be dropped
                await drop(session)
        name = Identifier(names.database)
        await session.run(SQL("CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false").format(name))
    elif database.connections or database.owner not in (names.owner, session.admin):
        return False
    await complete(session, {})
    return database is None


async def create_group(session: Session, role: Role) -> None:
    """Create the group of the readers or writers, who may connect."""
    present = [login.name for login in await read_logins(session)]  # they stay members
    await take(session, await group_steps(session, await need_database(session), role, (), present))


async def other_grantees(session: Session) -> list[str]:
    """Return who else has rights on the database."""
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
