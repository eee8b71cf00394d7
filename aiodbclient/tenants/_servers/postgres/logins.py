"""The logins of a tenant on PostgreSQL: create, end, drop.

An ended login has NOLOGIN, no password, no membership and no session. The server looks at NOLOGIN after the password,
so a connection that began to log in before gains nothing, until the login is in use again: ``begun`` are the
connections to wait for before that.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

from psycopg.sql import SQL, Composed, Identifier, Literal

from ....errors import GrantError
from ..._credential import Secret
from .objects import drop_owned, hand_over
from .sessions import BlockedError, Opener, Session, entered, roll_back

_LOOK_SECONDS = 0.02
_FIGHT_MILLISECONDS = 200  # for which a change of a login waits for a session of the login
_ENTERING_SECONDS = 1.0  # in which a connection with a right password becomes a session

CONNECTIONS = SQL("""
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
""")
_EXISTS = SQL("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s")
_END_SESSIONS = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()
""")
# The transactions in which connections log in. The server read the password at their start, and the client may take
# its time to answer. Those connections are no sessions yet: 18 lists them without a user, older servers do not.
_BEGUN = SQL("""
SELECT virtualtransaction FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE locktype = 'virtualxid' AND l.pid IS NOT NULL AND usesysid IS NULL AND datid IS NULL
""")
# Whether somebody besides the owner role and the administrator may enter: the tenant had a login before.
_IS_IN_USE = SQL("""
SELECT FROM pg_database, aclexplode(datacl) WHERE datname = %s AND privilege_type = 'CONNECT'
   AND grantee NOT IN (datdba, (SELECT oid FROM pg_roles WHERE rolname = current_user))
""")
_SETTINGS = SQL("""
SELECT datname FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase
WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = %s)
""")
# The administrator keeps ADMIN, which it needs.
_MEMBERSHIPS = SQL("""
SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), pg_get_userbyid(grantor)
FROM pg_auth_members, pg_roles me WHERE rolname = %s AND (member = me.oid OR roleid = me.oid AND NOT admin_option)
""")
# The databases in which a role owns something or has rights. "": the server, such as CONNECT on a database. One with a
# limit of -2 is left of an interrupted DROP DATABASE, and nobody can enter it.
_WHERE = SQL("""
SELECT DISTINCT coalesce(datname, '') FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
  AND datconnlimit IS DISTINCT FROM -2 ORDER BY 1
""")


async def default_limit(session: Session) -> int:
    """A quarter of the server's connections: three logins, as of a rotation and a reader, leave some."""
    [(connections,)] = await session.run(CONNECTIONS)
    return max(1, int(connections) // 4)


async def exists(session: Session, role: str) -> bool:
    """Whether there is such a role."""
    return bool(await session.run(_EXISTS, role))


def revoke_membership(session: Session, role: str, member: str, grantor: str) -> Composed:
    by = SQL(" GRANTED BY {}").format(Identifier(grantor)) if session.knows_options else SQL("")
    return SQL("REVOKE {} FROM {}{}").format(Identifier(role), Identifier(member), by)


def grant_membership(session: Session, role: str, login: str, inherits: bool, sets: bool) -> Composed:
    """Make a login a member: the owner's logins act as their role after SET ROLE, others inherit."""
    options = SQL(" WITH INHERIT {}, SET {}").format(Literal(inherits), Literal(sets))
    return SQL("GRANT {} TO {}{}").format(
        Identifier(role), Identifier(login), options if session.knows_options else SQL("")
    )


def allow_connect(session: Session, grantee: str) -> Composed:
    database = Identifier(session.names.database)
    return SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, Identifier(grantee))


def start_as_owner(session: Session, login: str) -> Composed:
    return SQL("ALTER ROLE {} SET role = {}").format(Identifier(login), Literal(session.names.owner))


async def create_login(
    session: Session, login: str, stored: Secret, limit: int | None, role: str, *, may_exist: bool = True
) -> None:
    """Create a login as a member of ``role``, or reset one that was ended, in one transaction."""
    limit = limit or await default_limit(session)
    names, name = session.names, Identifier(login)
    is_new = not may_exist or not await exists(session, login)
    is_owner = login in names.owner_logins
    options = SQL("LOGIN {} CONNECTION LIMIT {} PASSWORD {} VALID UNTIL 'infinity'").format(
        SQL("NOINHERIT" if is_owner else "INHERIT"), Literal(limit), Literal(stored)
    )
    first: list[Composed] = [SQL("{} {} {}").format(SQL("CREATE ROLE" if is_new else "ALTER ROLE"), name, options)]
    first += [] if is_new else await _resets(session, login)
    if not is_owner:
        first.append(grant_membership(session, role, login, True, login == names.temporary))
    elif session.knows_options:  # before the next change of memberships, which makes the server look at all of them
        first.append(start_as_owner(session, login))
    async with session.member_of(names.owner, inherits=False, first=first, also=login if is_owner else ""):
        if is_owner and not session.knows_options:  # the administrator has to be a member
            await session.run(start_as_owner(session, login))
        if role == names.owner:  # a group has CONNECT itself
            await session.run_all(
                SQL("SET LOCAL ROLE {}").format(Identifier(names.owner)),
                allow_connect(session, login),
                SQL("SET LOCAL ROLE NONE"),
            )


async def _resets(session: Session, login: str) -> list[Composed]:
    found = {database for (database,) in await session.run(_SETTINGS, login)}
    places = [SQL("") if each is None else SQL("IN DATABASE {} ").format(Identifier(each)) for each in found]
    return [SQL("ALTER ROLE {} {}RESET ALL").format(Identifier(login), place) for place in places]


async def begun(session: Session, *, existed: bool = True) -> set[str]:
    """Return the connections that may still enter with an earlier password, if there was one."""
    if existed or await session.run(_IS_IN_USE, session.names.database):
        return {transaction for (transaction,) in await session.run(_BEGUN)}
    return set()


async def end(opened: Opener, session: Session, login: str, until: float) -> None:
    """End a login: nobody can enter as it, or act as it."""
    if not await exists(session, login):
        return
    await _lock_out(opened, session, login, until)
    await _leave(session, login)
    await roll_back(opened, owner=login)
    began, entering = await begun(session), monotonic() + _ENTERING_SECONDS
    while True:
        ((ended,),) = await session.run(_END_SESSIONS, login)
        began &= await begun(session) if began else set()
        if not ended and (not began or monotonic() > entering):
            return
        if monotonic() > until:
            raise session.error(f"sessions of the login {login!r} do not end, though it may no longer log in")
        await asyncio.sleep(_LOOK_SECONDS)


async def _lock_out(opened: Opener, session: Session, login: str, until: float) -> None:
    """Take the password and LOGIN, though sessions of the login hold its row all the time."""
    while True:
        await session.run(_END_SESSIONS, login)
        try:
            await session.run_all(
                SQL("BEGIN"),
                SQL("SET LOCAL lock_timeout = {}").format(Literal(_FIGHT_MILLISECONDS)),
                SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(Identifier(login)),
                SQL("COMMIT"),
            )
        except BlockedError:
            if monotonic() > until:
                raise
            await session.run(SQL("ROLLBACK"))
            await roll_back(opened, owner=login)
        else:
            return


async def _leave(session: Session, login: str) -> None:
    for role, member, grantor in await session.run(_MEMBERSHIPS, login):
        revoke = revoke_membership(session, role, member, grantor)
        if role in {session.names.owner, *session.names.groups}:
            await session.run(revoke)
        else:  # of others: they may be ours to revoke or not
            with suppress(GrantError):
                await session.run(revoke)


async def drop(opened: Opener, role: str) -> bool:
    """Give what an ended login owns in the tenant's database to the tenant, drop the rest, and drop the login.

    Returns whether it is gone. Others can hold that up, for example by a lock.
    """
    try:
        await clear(opened, role)
        async with opened() as session:
            if await exists(session, role):
                await session.run(SQL("DROP ROLE {}").format(Identifier(role)))
    except GrantError:
        return False
    return True


async def clear(opened: Opener, role: str) -> None:
    """Let a role own nothing, and have no rights, in any database."""
    async with opened() as session:
        places = [place for (place,) in await session.run(_WHERE, role)]
        names = session.names
    for place in places:
        async with entered(opened, place) if place else opened() as session:
            if place == names.database and role in names.all_logins:
                await hand_over(session, role)
            await drop_owned(session, role)
