"""Find and take back what others own in a tenant's PostgreSQL database, and what its logins may beyond their role.

A function runs with the rights of its owner if that says so, a view always does. So an object of the administrator in a
tenant's database, where the tenant may call it, is a way out of the database.
"""

from __future__ import annotations

from contextlib import suppress

from psycopg.sql import SQL

from ....errors import ConflictError
from ..._naming import Names
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from .databases import complete, end_sessions, need_database
from .logins import revoke_membership
from .objects import HARMLESS, drop_owned, hand_over, owners
from .sessions import Opener, Session, entered

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


async def problems(session: Session) -> list[Problem]:
    """Return what is others' in the tenant's database, and what its logins have beyond their role."""
    names, ours = session.names, sorted(session.names.everything)
    found = [Problem(ProblemKind.OWNED_BY_OTHERS, name) for name in await owners(session) if name not in _owning(names)]
    found += [
        Problem(ProblemKind.OPEN_TO_OTHERS, member)
        for _, member, _ in await session.run(_MEMBERS_OF_LOGINS, [*names.all_logins])
    ]
    found += [
        Problem(ProblemKind.TOO_MANY_RIGHTS, f"{role} has the rights of {power}")
        for role, power in await session.run(_POWERS, ours, ours)
    ]
    found += [
        Problem(ProblemKind.OPEN_TO_OTHERS, login) for (login,) in await session.run(_OTHERS, names.database, ours)
    ]
    found += [
        Problem(ProblemKind.OWNED_BY_OTHERS, f"the tenant's own objects in the database {database}")
        for (database,) in await session.run(_ELSEWHERE, names.owner, names.database)
    ]
    return found


def _owning(names: Names) -> set[str]:
    """The roles that may own something in the tenant's database. Readers and writers may not: large objects, mostly."""
    return {names.owner, names.temporary, *names.owner_logins}


async def reclaim(opened: Opener) -> list[str]:
    """Give the owner role what others own in the database, and revoke what is too much. Return what is left."""
    async with opened() as session:
        if not await problems(session):
            return []
        names = session.names
        memberships = await session.run(_MEMBERS_OF_LOGINS, [*names.all_logins])
        memberships += await session.run(_GRANTED_POWERS, sorted(names.everything))
        for role, member, grantor in memberships:
            with suppress(GrantError):
                await session.run(revoke_membership(session, role, member, grantor))
        await end_sessions(session, keep={*names.everything, session.admin})
        others = [name for name in await owners(session) if name not in _owning(names)]
    reasons = await _hand_over_all(opened, names.database, others) if others else []
    await drop_elsewhere(opened)
    async with opened() as session:
        left = [str(each) for each in await problems(session)]
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


# Adoption: a database and what is in it become the tenant's, and the login that was there goes on. ``REASSIGN OWNED``
# of the administrator or of a login would take the other databases with it. So the owner of each object is changed by a
# statement of its own, from what ``pg_shdepend`` lists for this database.

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
_POWERS_OF_ADOPTED = SQL("""
SELECT p.rolname FROM pg_roles r, pg_roles p WHERE r.rolname = %s AND NOT p.rolsuper
  AND (p.rolname = current_user OR p.rolname ~ '^pg_' AND p.rolname <> 'pg_database_owner')
  AND pg_has_role(r.oid, p.oid, 'MEMBER') ORDER BY 1
""")
# The other databases in which the login owns something, and what it owns of the server.
_OWNS_ELSEWHERE = SQL("""
SELECT DISTINCT coalesce(here.datname, shared.datname) FROM pg_shdepend s
LEFT JOIN pg_database here ON here.oid = dbid
LEFT JOIN pg_database shared ON s.classid = 'pg_database'::regclass AND shared.oid = s.objid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
  AND deptype = 'o' AND coalesce(here.datname, shared.datname) <> %s ORDER BY 1
""")


async def check_adoption(session: Session, login: str | None) -> None:
    """Raise ConflictError if the database or the login is not the tenant's to take."""
    names, database = session.names, await need_database(session)
    reasons = list[str]()
    if database.owner not in {session.admin, names.owner} and not await _may_alter(session, database.owner):
        reasons.append(
            f"the database {names.database!r} belongs to {database.owner!r}, whom the administrator may not alter"
        )
    if login is not None:
        of_login = [f"it has {attribute}" for (attribute,) in await session.run(_ATTRIBUTES, login)]
        of_login += [f"it has the rights of {power!r}" for (power,) in await session.run(_POWERS_OF_ADOPTED, login)]
        elsewhere = await session.run(_OWNS_ELSEWHERE, login, names.database)
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
    await complete(session, () if login is None else (login,))
    await end_sessions(session, {*session.names.everything, session.admin, *([login] if login else [])})


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
