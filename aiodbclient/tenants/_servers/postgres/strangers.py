"""Find and take back what others own in a tenant's PostgreSQL database, and what its logins may beyond their role.

A function runs with the rights of its owner if that says so, a view always does. So an object of the administrator in a
tenant's database, where the tenant may call it, is a way out of the database.
"""

from __future__ import annotations

from contextlib import suppress

from psycopg.sql import SQL

from ....errors import GrantError
from ..._outcomes import Problem
from .entering import Opener, entered
from .logins import revoke_membership
from .objects import HARMLESS, drop_owned, hand_over, owners
from .sessions import Session

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
WHERE rolname = ANY (%s) AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication)
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
_OTHERS = SQL("""
SELECT DISTINCT usename FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid
WHERE datname = %s AND NOT rolsuper AND usename <> current_user AND usename <> ALL (%s) ORDER BY 1
""")
_END_OTHERS = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid
WHERE datname = %s AND NOT rolsuper AND pid <> pg_backend_pid() AND usename <> ALL (%s)
""")


async def strangers(session: Session) -> list[tuple[Problem, str]]:
    """Return what is others' in the tenant's database, and what its logins have beyond their role: what each is."""
    names, ours = session.names, sorted(session.names.everything)
    found = [(Problem.OWNED_BY_OTHERS, f"objects of {name!r}") for name in await owners(session) if name not in ours]
    found += [
        (Problem.OPEN_TO_OTHERS, f"{member!r} is a member of {role!r}")
        for role, member, _ in await session.run(_MEMBERS_OF_LOGINS, [*names.all_logins])
    ]
    found += [
        (Problem.TOO_MANY_RIGHTS, f"{role!r} has the rights of {power!r}")
        for role, power in await session.run(_POWERS, ours, ours)
    ]
    found += [
        (Problem.OPEN_TO_OTHERS, f"{login!r} has an open session there")
        for (login,) in await session.run(_OTHERS, names.database, ours)
    ]
    found += [
        (Problem.OWNED_BY_OTHERS, f"its own objects in the database {database!r}")
        for (database,) in await session.run(_ELSEWHERE, names.owner, names.database)
    ]
    return found


async def reclaim(opened: Opener) -> list[str]:
    """Give the owner role what others own in the database, and revoke what is too much. Return what is left."""
    async with opened() as session:
        if not await strangers(session):
            return []
        names = session.names
        memberships = await session.run(_MEMBERS_OF_LOGINS, [*names.all_logins])
        memberships += await session.run(_GRANTED_POWERS, sorted(names.everything))
        for role, member, grantor in memberships:
            with suppress(GrantError):
                await session.run(revoke_membership(session, role, member, grantor))
        await session.run(_END_OTHERS, names.database, sorted({*names.everything, session.admin}))
        others = [name for name in await owners(session) if name not in names.everything]
    reasons = await _hand_over_all(opened, names.database, others) if others else []
    await drop_elsewhere(opened)
    async with opened() as session:
        left = [what for _, what in await strangers(session)]
    return left + reasons if left else []


async def drop_elsewhere(opened: Opener) -> None:
    """Drop what the owner role owns in other databases, such as a function that an intruder left with a neighbour."""
    async with opened() as session:
        names = session.names
        databases = [name for (name,) in await session.run(_ELSEWHERE, names.owner, names.database)]
    for database in databases:
        with suppress(GrantError):  # a neighbour may hold it up
            async with entered(opened, database) as session:
                await drop_owned(session, names.owner)


async def end_sessions(session: Session, keep: frozenset[str] = frozenset()) -> int:
    """End the sessions in the tenant's database, except the administrator's and those of ``keep``. Return how many."""
    [(ended,)] = await session.run(_END_OTHERS, session.names.database, sorted({*keep, session.admin}))
    return int(ended)


async def _hand_over_all(opened: Opener, database: str, others: list[str]) -> list[str]:
    """Give the owner role what these roles own in the tenant's database; the reasons why some of it was refused."""
    reasons = list[str]()
    async with entered(opened, database) as session:
        for other in others:
            try:
                await hand_over(session, other)
            except GrantError as refused:
                reasons.append(str(refused))
    return reasons
