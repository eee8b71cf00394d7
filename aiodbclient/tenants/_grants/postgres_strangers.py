"""Find and take back what others own in a tenant's PostgreSQL database, and what its logins may beyond their role.

A function runs with the rights of its owner if that says so, a view always does. So an object of the administrator in a
tenant's database, where the tenant may call it, is a way out of the database.
"""

from __future__ import annotations

from contextlib import suppress

from psycopg.sql import SQL, Identifier

from ...errors import GrantError
from .._outcomes import Problem
from .postgres_leaving import entered, sessions_of_others
from .postgres_objects import HARMLESS, hand_over, owners
from .postgres_rights import members, revoke_membership
from .postgres_sessions import Opener, Session

# Who can become a login of the tenant. Whoever made the login has ADMIN alone.
_MEMBERS_OF_LOGINS = SQL("""
SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), pg_get_userbyid(grantor)
FROM pg_auth_members a WHERE pg_get_userbyid(roleid) = ANY (%s) AND pg_get_userbyid(member) <> current_user
  AND coalesce((to_jsonb(a) ->> 'inherit_option')::bool OR (to_jsonb(a) ->> 'set_option')::bool, true)
""")
# The server's roles with rights everywhere, and the administrator: a member of one has them too.
_POWERFUL = """
(p.rolname = current_user OR p.rolname ~ '^pg_' AND p.rolname NOT IN
    ('pg_database_owner', 'pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables'))
"""
_POWERS = SQL(f"""
SELECT r.rolname, p.rolname FROM pg_roles r, pg_roles p WHERE r.rolname = ANY (%s) AND r.rolname <> current_user
  AND NOT p.rolsuper AND {_POWERFUL} AND pg_has_role(r.oid, p.oid, 'MEMBER')
UNION ALL SELECT rolname, 'an attribute' FROM pg_roles
WHERE rolname = ANY (%s) AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls)
""")
_GRANTED_POWERS = SQL(f"""
SELECT p.rolname, pg_get_userbyid(member), pg_get_userbyid(grantor)
FROM pg_auth_members JOIN pg_roles p ON p.oid = roleid WHERE pg_get_userbyid(member) = ANY (%s) AND {_POWERFUL}
""")
# Where else the owner role owns more than large objects. Another tenant could call a function there, with its rights.
_ELSEWHERE = SQL(f"""
SELECT DISTINCT datname FROM pg_shdepend JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s) AND deptype = 'o'
  AND datname <> %s AND datconnlimit <> -2 AND classid <> 'pg_largeobject'::regclass AND classid NOT IN {HARMLESS}
ORDER BY 1
""")


async def strangers(session: Session) -> list[tuple[Problem, str]]:
    """Return what is others' in the tenant's database, and what its logins have beyond their role: what each is."""
    names, ours = session.names, session.names.roles
    found = [(Problem.OWNED_BY_OTHERS, f"objects of {name!r}") for name in await owners(session) if name not in ours]
    found += [
        (Problem.OPEN_TO_OTHERS, f"{member!r} is a member of {role!r}")
        for role, member, _ in await session.run(_MEMBERS_OF_LOGINS, [*names.family])
    ]
    found += [
        (Problem.TOO_MANY_RIGHTS, f"{role!r} has the rights of {power!r}")
        for role, power in await session.run(_POWERS, [*ours], [*ours])
    ]
    found += [
        (Problem.OPEN_TO_OTHERS, f"{login!r} has an open session there: rotate and retire its tenant")
        for login in await sessions_of_others(session)
    ]
    found += [
        (Problem.OWNED_BY_OTHERS, f"its own objects in the database {database!r}")
        for (database,) in await session.run(_ELSEWHERE, names.owner, names.database)
    ]
    return found


async def reclaim(open_session: Opener) -> None:
    """Make the owner role the owner of others' objects in the tenant's database, and revoke what is too much."""
    async with open_session() as session:
        if not await strangers(session):
            return
        names, ours, database = session.names, session.names.roles, session.names.database or ""
        memberships = await session.run(_MEMBERS_OF_LOGINS, [*names.family])
        memberships += await session.run(_GRANTED_POWERS, [*ours])
        for role, member, grantor in memberships:
            with suppress(GrantError):
                await session.run(revoke_membership(session, role, member, grantor))
        has_owner = await members(session, names.owner) is not None
        others = [name for name in await owners(session) if name not in ours]
    await drop_elsewhere(open_session)
    refused = await _hand_over_all(open_session, database, others) if others and has_owner else []
    async with open_session() as session:
        left = [what for _, what in await strangers(session)]
    if left:
        raise session.error(
            f"the administrator cannot change all that is others' in the database {database!r}: "
            f"{'; '.join(left + refused)}: a superuser has to, or the owner of these objects, by REASSIGN OWNED",
        )


async def drop_elsewhere(open_session: Opener) -> None:
    """Drop what the owner role owns in other databases, such as a function that an intruder left with a neighbour."""
    async with open_session() as session:
        names = session.names
        databases = [name for (name,) in await session.run(_ELSEWHERE, names.owner, names.database)]
    for database in databases:
        async with entered(open_session, database) as session:
            await session.become(names.owner)
            await session.run(SQL("DROP OWNED BY CURRENT_USER CASCADE"))


async def _hand_over_all(open_session: Opener, database: str, others: list[str]) -> list[str]:
    """Give the owner role what these roles own in the tenant's database; the reasons why some of it was refused."""
    reasons = list[str]()
    async with entered(open_session, database) as session:
        owner, options = Identifier(session.names.owner), session.knows_options
        if options:  # whoever alters an owner needs the right to create in the schema, and here it is the owner role's
            await session.run(SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE").format(owner))
        try:
            for other in others:
                try:
                    await hand_over(session, other, session.login)
                except GrantError as refused:
                    reasons.append(str(refused))
        finally:
            if options:
                await session.run(SQL("GRANT {} TO CURRENT_USER WITH INHERIT FALSE").format(owner))
    return reasons
