"""The logins of a tenant on PostgreSQL: create and end them.

Each login has a new name, and an ended login is never enabled again. To end a login: revoke its memberships, revoke
CONNECT, set NOLOGIN, remove the password, terminate the sessions. A prepared transaction can lock the login's row. It
then blocks NOLOGIN, but the rights are revoked already. PostgreSQL checks NOLOGIN after the password, so it also
refuses a connection that sent the password before.

The server gets the verifier of a new password, so no statement, no log and no ``pg_stat_activity`` has the password.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import monotonic

from psycopg.sql import SQL, Composed, Identifier, Literal

from ...._masking import Secret
from ..._naming import Role
from ...errors import GrantError
from .connection import BlockedError, Session, Statement, end_sessions, verbatim
from .rights import (
    ALL,
    CONNECT,
    REVOKE,
    START_AS,
    find_database,
    grant_membership,
    grant_on_database,
    limit_of,
)

_DUMP_CONNECTIONS = 4  # of the login that dumps a database
PRESENT = SQL("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1")
# The administrator keeps ADMIN, which it needs.
_MEMBERSHIPS = SQL(f"""
SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), {REVOKE}
FROM pg_auth_members, pg_roles me WHERE rolname = ANY (%s) AND (member = me.oid OR roleid = me.oid AND NOT admin_option)
""")
_BRIEFLY = SQL("SET LOCAL lock_timeout = '200ms'")  # before the end of a login ends the sessions of this login


async def prepare_group(session: Session, role: Role) -> bool:
    """Let the readers or writers connect if they have no login yet, and return whether this is so."""
    names, group = session.names, session.names.group(role)
    members = [member for of, member, _ in await session.run(_MEMBERSHIPS, [group]) if of == group]
    if any(map(names.is_login, members)):
        return False
    create = [] if await session.run(PRESENT, [group]) else [SQL("CREATE ROLE {} NOLOGIN").format(Identifier(group))]
    await session.run_with([], *create, grant_on_database(session, group, CONNECT))
    return True


async def create_login(session: Session, login: str, stored: Secret, role: Role, *, dumps: bool = False) -> None:
    """Create a login as a member of its role, and open a locked database. One that ``dumps`` it inherits."""
    names, inherits = session.names, dumps or role is not Role.OWNER
    inherit = SQL("INHERIT" if inherits else "NOINHERIT")
    create = SQL("CREATE ROLE {} LOGIN {} CONNECTION LIMIT {} PASSWORD {}")
    most = Literal(_DUMP_CONNECTIONS if dumps else await limit_of(session))
    statements: list[Statement] = [create.format(Identifier(login), inherit, most, Literal(stored))]
    if not inherits:
        # First, because a change of memberships makes the server look at all of them for the next statement.
        statements.append(START_AS.format(Identifier(login), Literal(names.owner)))
    is_owner = role is Role.OWNER
    group = names.owner if is_owner else names.group(role)
    statements.append(grant_membership(session, group, login, inherits, is_owner))
    if is_owner:  # other groups have CONNECT. The first grant opens the database of a tenant that was suspended
        statements += [grant_on_database(session, names.owner, ALL), grant_on_database(session, login, CONNECT)]
    # A server without the options of memberships wants the administrator to be a member, for ``SET role``.
    joins = [] if session.knows_options or inherits else [names.owner]
    await session.run_with(joins, *statements)


async def end(session: Session, logins: Collection[str], until: float) -> None:
    """End logins: nobody can enter as one of them, or act as it."""
    present = [login for (login,) in await session.run(PRESENT, sorted(logins))]
    ours = {session.names.owner, *session.names.groups}
    # Of all, before it waits for a session: one can resist ``pg_terminate_backend``.
    await revoke_memberships(session, present, ours)
    lock = SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL")
    changes = [lock.format(Identifier(login)) for login in present]
    database = await find_database(session)
    rights = {} if database is None or database.owner != session.admin else database.privileges
    if connecting := [Identifier(login) for login in present if login in rights]:
        revoke, of = SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE"), SQL(", ").join(connecting)
        changes.insert(0, revoke.format(Identifier(session.names.database), of))
    while True:
        blocked = list[tuple[Composed, BlockedError]]()
        for change in changes:
            try:
                await session.run_with([], _BRIEFLY, change)
            except BlockedError as error:
                blocked.append((change, error))
        if not blocked or monotonic() > until:
            break
        await end_sessions(session, logins=present)  # they hold the rows
        changes = [change for change, _ in blocked]
    if left := await end_sessions(session, until - monotonic(), logins=present):
        raise session.error(
            f"sessions do not end, though their logins may no longer enter: {', '.join(left)}; the server ends them "
            "when their statement does: run it again"
        )
    for _, blocking in blocked:
        raise blocking


async def revoke_memberships(session: Session, roles: Sequence[str], ours: Collection[str] = ()) -> None:
    """Revoke the memberships of ``roles``: all in those that are ``ours``, and in others that the administrator may."""
    for role, _, revoke in await session.run(_MEMBERSHIPS, roles):
        try:
            await session.run(verbatim(revoke))
        except GrantError:
            if role in ours:
                raise
