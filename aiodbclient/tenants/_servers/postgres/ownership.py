"""What PostgreSQL's roles own, and what is wrong with a tenant.

What a role owns is given to the tenant, or dropped with the role. What is wrong is found by ``check``, and repaired.

A function runs with the rights of its owner if that says so, a view always does. So an object of the administrator in a
tenant's database, where the tenant may call it, is a way out of the database.

``REASSIGN OWNED`` gives away databases too, and locks all objects at once: 30,000 need more memory for locks than a
server has. So ``reassign_owned`` gives away each object by a statement of its own. None of these statements runs code
of a tenant.

``DROP OWNED BY`` revokes privileges only if the session has the rights of who granted them, so ``drop_owned`` runs it
as a member of the owners of the objects and of all who passed rights on.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ..._naming import Role
from ..._outcomes import Problem, ProblemKind
from ...errors import GrantError
from . import extensions
from .connection import CLIENTS, BlockedError, Connector, Session, Statement, end_sessions, verbatim
from .logins import revoke_memberships
from .object_rights import apply_object_rights, missing_object_rights
from .rights import REVOKE, missing_database_rights, read_logins

_AT_ONCE = 500  # how many objects one transaction alters
_END_SECONDS = 5.0  # for sessions of others
_UNLINKED = 1_000  # large objects at once: each takes a lock, and a server has some thousands

# What a role owns and no statement gives away, and what runs no code as its owner.
_HARMLESS: LiteralString = "('pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_extension'::regclass)"
# Who owns what in each database: ``pg_shdepend`` is shared. The server's own objects are not in it.
_OWNERS = SQL(f"""
SELECT DISTINCT rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = refobjid
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s) AND refclassid = 'pg_authid'::regclass AND deptype = 'o'
  AND classid NOT IN {_HARMLESS} AND (NOT rolsuper OR rolname = current_user) AND rolname !~ '^pg_' ORDER BY 1
""")
# The quoted name of an object. Without its modes, the procedure ``p(int, int)`` is also ``p(IN int, OUT int)``.
_NAME: LiteralString = """
CASE i.type WHEN 'procedure' THEN (
    SELECT format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE p.oid = objid) ELSE i.identity END
"""
# The word of ALTER for an object.
_KIND: LiteralString = """
CASE WHEN i.type IN ('view', 'materialized view', 'foreign table', 'sequence') THEN 'TABLE'
    WHEN i.type IN ('function', 'procedure', 'aggregate', 'window function') THEN 'ROUTINE'
    WHEN i.type = 'domain' THEN 'TYPE' WHEN i.type = 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
    WHEN i.type = 'statistics object' THEN 'STATISTICS' ELSE upper(i.type) END
"""
# The statement that gives away each object of a role, and whether it is a schema. Schemas first, so that the new owner
# may create in them. A sequence follows the table that has it as a column.
_OWNED = SQL(f"""
SELECT format('ALTER %%s %%s OWNER TO %%I', {_KIND}, {_NAME}, %(owner)s::text), i.type = 'schema' FROM (
    SELECT classid, objid, objsubid FROM pg_shdepend s
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %(role)s)
      AND deptype = 'o' AND classid NOT IN {_HARMLESS} AND NOT EXISTS (
        SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE relkind = 'S' AND d.objid = s.objid
        AND d.classid = s.classid AND d.classid = 'pg_class'::regclass AND d.refclassid = d.classid
        AND d.deptype IN ('a', 'i'))
    ORDER BY classid <> 'pg_namespace'::regclass, classid, objid LIMIT %(most)s) AS owned,
    pg_identify_object(classid, objid, objsubid) i
WHERE i.identity IS NOT NULL
""")
_LARGE_OBJECTS = SQL("""
SELECT oid FROM pg_largeobject_metadata WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = %s) LIMIT %s
""")
# Who owns what a role has rights on, in this database or of the server, and who passed such rights on to it. Owners of
# policies and of the schema ``public`` are not in ``pg_shdepend``.
_GIVERS = SQL("""
SELECT DISTINCT pg_get_userbyid(giver) FROM (
    SELECT s.refobjid FROM pg_shdepend mine JOIN pg_shdepend s USING (dbid, classid, objid), pg_roles me
    WHERE rolname = %(role)s AND mine.refclassid = 'pg_authid'::regclass AND mine.refobjid = me.oid
      AND mine.deptype = 'a' AND s.deptype IN ('o', 'a') AND s.refobjid <> me.oid
      AND (dbid = 0 OR dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION SELECT relowner FROM pg_policy JOIN pg_class c ON c.oid = polrelid, pg_roles me
    WHERE rolname = %(role)s AND me.oid = ANY (polroles)
    UNION SELECT datdba FROM pg_database WHERE datname = current_database()
) AS givers (giver) JOIN pg_roles r ON r.oid = giver WHERE NOT rolsuper AND rolname <> current_user ORDER BY 1
""")
# The databases in which a role has rights, and whether it owns something there that must be kept if that is not the
# tenant's database. Only large objects in the server's own databases are dropped. NULL stands for rights on databases
# themselves, such as CONNECT. An interrupted DROP DATABASE leaves a limit of -2. Nobody can connect to that database.
_PLACES = SQL("""
SELECT datname, bool_or(deptype = 'o' AND classid <> 'pg_default_acl'::regclass AND NOT (
    classid = 'pg_largeobject'::regclass AND datname IN ('defaultdb', 'postgres', 'template1', '_dodb')))
FROM pg_shdepend LEFT JOIN pg_database d ON d.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
  AND datconnlimit IS DISTINCT FROM -2 GROUP BY 1 ORDER BY 1 NULLS FIRST
""")


async def owners(session: Session) -> list[str]:
    """Return the roles that own something in the tenant's database, seen from any database."""
    return [name for (name,) in await session.run(_OWNERS, session.names.database)]


async def reassign_owned(session: Session, role: str, *, is_member: bool = False) -> None:
    """In the tenant's database: give the owner role all that ``role`` owns, or raise GrantError for what is refused."""
    names = session.names
    members = {names.owner} if is_member or role == session.admin else {names.owner, role}
    while found := await session.run(_OWNED, role=role, owner=names.owner, most=_AT_ONCE):
        schemas = [verbatim(text) for text, is_schema in found if is_schema]
        await _alter(session, members, schemas or [verbatim(text) for text, _ in found])


async def drop_owned(session: Session, role: str) -> None:
    """In the session's database: drop what ``role`` owns, and revoke its rights and what it granted to others."""
    unlink = SQL("SELECT lo_unlink(oid) FROM unnest({}::oid[]) AS few (oid)")
    while few := await session.run(_LARGE_OBJECTS, role, _UNLINKED):  # until the time of the session is up
        await session.run_with([role], unlink.format([oid for (oid,) in few]))
    givers = [giver for (giver,) in await session.run(_GIVERS, role=role)]
    with suppress(GrantError):  # a giver may not be joined, such as a superuser: what it gave stays
        await session.run_with([role, *givers], SQL("DROP OWNED BY {}").format(Identifier(role)))
        return
    await session.run_as(role, SQL("DROP OWNED BY CURRENT_USER"))


async def _alter(session: Session, members: Collection[str], statements: Sequence[Statement]) -> None:
    """Run statements as a member of roles: in one transaction or, if one is refused, each in its own."""
    with suppress(GrantError):
        await session.run_with(members, *statements)
        return
    refused: GrantError | None = None
    for statement in statements:
        try:
            await session.run_with(members, statement)
        except BlockedError:  # it waited a second for a lock of others, and so may the next one
            raise
        except GrantError as error:
            refused = error
    if refused is not None:
        raise refused


async def drop(connected_to: Connector, role: str) -> list[str]:
    """Give what an ended login owns to the tenant, and drop the login, or raise GrantError for what holds it up.

    A role that owns something in other databases stays: only an administrator can have put it there, as a copy. Return
    these databases.
    """
    async with connected_to() as session:
        database, owner = session.names.database, session.names.owner
        places = dict(await session.run(_PLACES, role))
    if database in places and role != owner:
        async with connected_to(database) as session:
            await reassign_owned(session, role)
    if left := [place for place, owns in places.items() if owns and place not in (database, None)]:
        return left
    for place in places:
        async with connected_to(place) as session:
            await drop_owned(session, role)
    async with connected_to() as session:
        await session.run(SQL("DROP ROLE IF EXISTS {}").format(Identifier(role)))
    return []


async def drop_or_rename(connected_to: Connector, role: str) -> list[str]:
    """Drop a role of nobody or, if others hold that up or it owns something elsewhere, leave it renamed.

    Return the other databases in which it owns something.
    """
    left = list[str]()
    async with connected_to() as session:
        await revoke_memberships(session, [role])
    with suppress(GrantError):  # a lock of others, or what they granted to it
        left = await drop(connected_to, role)
        if not left:
            return left
    # So that no grant reaches the next tenant of the name.
    gone = Identifier(f"aiodbclient_gone_{secrets.token_hex(16)}")
    async with connected_to() as session:
        await session.run(SQL("ALTER ROLE {} RENAME TO {}").format(Identifier(role), gone))
    return left


# What is wrong with a tenant: what it lacks, what others have of it, and what its logins have beyond their role.

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
# Each problem, and the statement that solves it. A role may have the rights of another one by a third, without a
# membership to end.
_PROBLEMS = SQL(f"""
SELECT 'open_to_others', pg_get_userbyid(member)::text, {REVOKE} FROM pg_auth_members a WHERE {_BECOMES_LOGIN}
UNION ALL SELECT 'open_to_others', coalesce(usename, 'a dropped role'), NULL
FROM pg_stat_activity LEFT JOIN pg_roles r ON r.oid = usesysid WHERE datname = %(database)s AND {CLIENTS}
  AND rolsuper IS DISTINCT FROM true AND coalesce(usename, '') <> ALL (current_user || %(ours)s::name[])
UNION ALL SELECT 'too_many_rights', format('%%s has the rights of %%s', r.rolname, p.rolname), {REVOKE}
FROM pg_roles r CROSS JOIN pg_roles p LEFT JOIN pg_auth_members a ON roleid = p.oid AND member = r.oid
WHERE r.rolname = ANY (%(ours)s) AND r.rolname <> current_user
  AND NOT r.rolsuper AND NOT p.rolsuper AND {_POWERFUL} AND pg_has_role(r.oid, p.oid, 'MEMBER')
UNION ALL SELECT 'too_many_rights', format('%%s has the attribute %%s', rolname, attribute),
  format('ALTER ROLE %%I NO%%s', rolname, attribute)
FROM pg_roles, LATERAL (VALUES (rolsuper, 'SUPERUSER'), (rolcreaterole, 'CREATEROLE'), (rolcreatedb, 'CREATEDB'),
    (rolbypassrls, 'BYPASSRLS'), (rolreplication, 'REPLICATION')) AS of (has, attribute)
WHERE rolname = ANY (%(ours)s) AND has
""")


async def problems_outside(session: Session, wanted: Mapping[str, Role] | None) -> set[Problem]:
    """From another database: find what is wrong, except inside the database."""
    known = wanted or {}
    logins = await read_logins(session, known)
    missing = await missing_database_rights(session, wanted, logins)
    others = await excess(session, known, [login.name for login in logins])
    unknown = [login.name for login in logins if login.can_log_in and login.name not in known]
    found = {problem for problem, _ in others} | {Problem(ProblemKind.UNKNOWN_LOGIN, name) for name in unknown}
    return found.union(*(remedy.problems for remedy in missing))


async def problems_inside(session: Session, wanted: Mapping[str, Role]) -> set[Problem]:
    """In the tenant's database: find what readers and writers lack or have too much, and missing extensions."""
    missing = await missing_object_rights(session, wanted)
    lacks = {Problem(ProblemKind.EXTENSION_MISSING, name) for name, _ in await extensions.missing(session)}
    return lacks.union(*(remedy.problems for remedy in missing))


async def excess(
    session: Session, wanted: Mapping[str, Role], logins: Sequence[str]
) -> list[tuple[Problem, str | None]]:
    """Find what is others' in the database, and what these logins have beyond their role, each with its remedy."""
    names = session.names
    found: list[tuple[Problem, str | None]] = [
        (Problem(ProblemKind.OWNED_BY_OTHERS, name), None)
        for name in await owners(session)
        if name not in (names.owner, *logins) or wanted.get(name, Role.OWNER) is not Role.OWNER
    ]
    ours = [names.owner, *names.groups, *logins]
    rest = await session.run(_PROBLEMS, present=logins, ours=ours, database=names.database)
    return found + [(Problem(ProblemKind(kind), detail), remedy) for kind, detail, remedy in rest]


async def revoke_excess(session: Session, wanted: Mapping[str, Role]) -> list[str]:
    """Revoke what the tenant's logins have beyond their role, end sessions of others, and return what was refused."""
    logins, refused = [login.name for login in await read_logins(session, wanted)], list[str]()
    for _, remedy in await excess(session, wanted, logins):
        try:
            if remedy is not None:
                await session.run(verbatim(remedy))
        except GrantError:
            refused.append(f"run {remedy} as a superuser")
    await end_sessions(session, _END_SECONDS, database=session.names.database, keep=[*logins, session.admin])
    return refused


async def reassign_all(session: Session, wanted: Mapping[str, Role]) -> list[str]:
    """In the tenant's database: give all to the owner role, and the groups of ``wanted`` logins their rights on it.

    Return why something of others was refused.
    """
    await apply_object_rights(session, {})  # the schemas first, so that the owner role may create in them
    refused = list[str]()
    for other in await owners(session):
        try:
            if other != session.names.owner:
                await reassign_owned(session, other)
        except BlockedError:
            raise
        except GrantError as error:
            refused.append(str(error))
    await apply_object_rights(session, wanted)
    return refused


async def refuse_problems(session: Session, wanted: Mapping[str, Role], refused: Sequence[str]) -> None:
    """Raise GrantError for what ``excess`` still finds, with what was ``refused`` before."""
    logins = [login.name for login in await read_logins(session, wanted)]
    if left := {str(problem) for problem, _ in await excess(session, wanted, logins)}:
        raise session.error(
            f"the administrator cannot change all that is others' in the database {session.names.database!r}: "
            f"{'; '.join([*sorted(left), *refused])}: a superuser has to, or the owner of these objects"
        )
