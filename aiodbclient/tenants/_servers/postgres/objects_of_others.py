"""Find and take what others own in a tenant's PostgreSQL database, and the rights of its logins beyond their role.

A function runs with the rights of its owner if that says so, a view always does. So an object of the administrator in a
tenant's database, where the tenant may call it, is a way out of the database.

Adoption takes a database with what is in it, and its login goes on. ``REASSIGN OWNED`` of the administrator or of a
login would take the other databases with it. So the owner of each object is changed by a statement of its own, from
what ``pg_shdepend`` lists for this database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ....errors import ConflictError
from ..._naming import Role
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from .databases import end_sessions
from .grants import complete, need_database, read_logins
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


async def problems(session: Session, logins: Mapping[str, Role], present: Sequence[str]) -> list[Problem]:
    """Return what is others' in the tenant's database, and what the ``present`` logins have beyond their role."""
    names = session.names
    ours = [names.owner, *names.groups, *present]
    found = [
        Problem(ProblemKind.OWNED_BY_OTHERS, name)
        for name in await owners(session)
        if name not in (names.owner, *present) or logins.get(name, Role.OWNER) is not Role.OWNER
    ]
    rest = await session.run(_PROBLEMS, present=present, ours=ours, owner=names.owner, database=names.database)
    return sorted({*found, *(Problem(ProblemKind(kind), detail) for kind, detail in rest)}, key=str)


async def reclaim(opened: Opener, logins: Mapping[str, Role]) -> None:
    """Give the owner role all that is in the database, and revoke what is too much. Raise GrantError if any is left."""
    refused = list[str]()
    async with opened() as session:
        names, present = session.names, [login.name for login in await read_logins(session, logins)]
        if found := await problems(session, logins, present):
            ours = [names.owner, *names.groups, *present]
            await revoke_memberships(session, await session.run(_MEMBERSHIPS, present=present, ours=ours))
            refused = await _revoke_attributes(session, ours)
            await end_sessions(session, keep=[*present, session.admin])
    refused += await take_objects(opened)
    if not found:
        return
    await _drop_elsewhere(opened)
    async with opened() as session:
        if left := [str(each) for each in await problems(session, logins, present)]:
            raise session.error(
                f"the administrator cannot change all that is others' in the database {names.database!r}: "
                f"{'; '.join(left + refused)}: a superuser has to, or the owner of these objects"
            )


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
    """In the database: raise ConflictError if the login's search path, with "$user", has a schema that others' has not.

    The new logins act as the owner role, so "$user" is another schema for them.
    """
    names = session.names
    if await session.run(_HAS_SCHEMA, login):
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
