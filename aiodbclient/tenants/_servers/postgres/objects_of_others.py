"""Find and take back what others own in a tenant's PostgreSQL database, and what its logins may beyond their role.

A function runs with the rights of its owner if that says so, a view always does. So an object of the administrator in a
tenant's database, where the tenant may call it, is a way out of the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ..._naming import Role
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from .closing import end_sessions
from .databases import read_logins
from .logins import revoke_memberships
from .objects import HARMLESS, drop_owned, hand_over, owners
from .sessions import Opener, Session, entered, verbatim

# Who can become a login of the tenant. Whoever made the login has ADMIN alone. The index of ``roleid`` finds it: a
# server has some memberships for each of its tenants.
_BECOMES_LOGIN: LiteralString = """
roleid IN (SELECT oid FROM pg_roles WHERE rolname = ANY (%(present)s)) AND pg_get_userbyid(member) <> current_user
AND coalesce((to_jsonb(a) ->> 'inherit_option')::bool OR (to_jsonb(a) ->> 'set_option')::bool, true)
"""
# The server's roles ("pg_...") with rights everywhere, and the administrator: a member of one has them too. Bounds cost
# less than a regular expression, which is compared with each role of the server.
_POWERFUL: LiteralString = """
(p.rolname = current_user OR p.rolname >= 'pg_' AND p.rolname < 'pg`' AND p.rolname NOT IN
    ('pg_database_owner', 'pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables'))
"""
# What of that the administrator may be able to revoke.
_MEMBERSHIPS = SQL(f"""
SELECT p.rolname, pg_get_userbyid(member), pg_get_userbyid(grantor)
FROM pg_auth_members a JOIN pg_roles p ON p.oid = roleid
WHERE {_BECOMES_LOGIN} OR pg_get_userbyid(member) = ANY (%(ours)s) AND {_POWERFUL}
""")
# What no login of a tenant has.
ATTRIBUTES: LiteralString = """
SELECT rolname, attribute FROM pg_roles, LATERAL (VALUES (rolsuper, 'SUPERUSER'), (rolcreaterole, 'CREATEROLE'),
    (rolcreatedb, 'CREATEDB'), (rolbypassrls, 'BYPASSRLS'), (rolreplication, 'REPLICATION')) AS of (has, attribute)
WHERE rolname = ANY (%(ours)s) AND has
"""
# Where else the owner role owns more than large objects. Another tenant could call a function there, with its rights.
_ELSEWHERE: LiteralString = f"""
SELECT DISTINCT datname FROM pg_shdepend JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %(owner)s)
  AND deptype = 'o' AND datname <> %(database)s AND datconnlimit <> -2
  AND classid <> 'pg_largeobject'::regclass AND classid NOT IN {HARMLESS}
"""
_PROBLEMS = SQL(f"""
SELECT 'open_to_others', pg_get_userbyid(member)::text FROM pg_auth_members a WHERE {_BECOMES_LOGIN}
UNION ALL SELECT 'open_to_others', usename FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid
WHERE datname = %(database)s AND NOT rolsuper AND usename <> current_user AND usename <> ALL (%(ours)s)
UNION ALL SELECT 'too_many_rights', format('%%s has the rights of %%s', r.rolname, p.rolname)
FROM pg_roles r, pg_roles p WHERE r.rolname = ANY (%(ours)s) AND r.rolname <> current_user
  AND NOT r.rolsuper AND NOT p.rolsuper AND {_POWERFUL} AND pg_has_role(r.oid, p.oid, 'MEMBER')
UNION ALL SELECT 'too_many_rights', format('%%s has the attribute %%s', rolname, attribute)
FROM ({ATTRIBUTES}) AS attributes
UNION ALL SELECT 'owned_by_others', format('the tenant''s own objects in the database %%s', datname)
FROM ({_ELSEWHERE}) AS elsewhere
""")


async def problems(session: Session, logins: Mapping[str, Role]) -> list[Problem]:
    """Return what is others' in the tenant's database, and what its logins have beyond their role."""
    names, present = session.names, [login.name for login in await read_logins(session, logins)]
    ours = [names.owner, *names.groups, *present]
    found = [
        Problem(ProblemKind.OWNED_BY_OTHERS, name)
        for name in await owners(session)
        if name not in (names.owner, *present) or logins.get(name, Role.OWNER) is not Role.OWNER
    ]
    rest = await session.run(_PROBLEMS, present=present, ours=ours, owner=names.owner, database=names.database)
    return sorted({*found, *(Problem(ProblemKind(kind), detail) for kind, detail in rest)}, key=str)


async def reclaim(opened: Opener, logins: Mapping[str, Role]) -> list[str]:
    """Give the owner role all that is in the database, and revoke what is too much. Return what is left."""
    refused = list[str]()
    async with opened() as session:
        names, present = session.names, [login.name for login in await read_logins(session, logins)]
        if found := await problems(session, logins):
            ours = [names.owner, *names.groups, *present]
            await revoke_memberships(session, await session.run(_MEMBERSHIPS, present=present, ours=ours))
            refused = await _revoke_attributes(session, ours)
            await end_sessions(session, keep=[*present, session.admin])
    reasons = await take_objects(opened)
    if not found:
        return []
    await _drop_elsewhere(opened)
    async with opened() as session:
        left = [str(each) for each in await problems(session, logins)]
    return left + refused + reasons if left else []


async def _revoke_attributes(session: Session, roles: Sequence[str]) -> list[str]:
    """Take attributes such as CREATEDB from the tenant's roles. Return the statements that need a superuser."""
    refused = list[str]()
    for role, attribute in await session.run(SQL(ATTRIBUTES), ours=roles):
        change = verbatim(f"ALTER ROLE {{}} NO{attribute}").format(Identifier(role))
        try:
            await session.run(change)
        except GrantError:
            refused.append(f"run {change.as_string(None)} as a superuser")
    return refused


async def _drop_elsewhere(opened: Opener) -> None:
    """Drop what the owner role owns in other databases, such as a function that an intruder left with a neighbour."""
    async with opened() as session:
        names = session.names
        databases = await session.run(SQL(_ELSEWHERE), owner=names.owner, database=names.database)
    for (database,) in databases:
        with suppress(GrantError):  # a neighbour may hold it up
            async with entered(opened, database) as session:
                await drop_owned(session, names.owner)


async def take_objects(opened: Opener) -> list[str]:
    """Give the owner role what others own in the tenant's database. Return why some of it was refused."""
    reasons = list[str]()
    async with opened() as session:
        names = session.names
        others = [name for name in await owners(session) if name != names.owner]
    if not others:
        return reasons
    async with entered(opened, names.database) as session:
        for other in others:
            try:
                await hand_over(session, other)
            except GrantError as refused:
                reasons.append(str(refused))
    return reasons
