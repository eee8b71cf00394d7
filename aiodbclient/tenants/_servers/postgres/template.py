"""A new tenant's PostgreSQL database as a copy of a suspended tenant's, its *template*.

``CREATE DATABASE ... TEMPLATE`` copies objects with their owners and rights. ``take_over`` gives all to the owner role
of the new tenant, and leaves nothing of the template's roles.

The new owner role is a member of the template's roles meanwhile. The administrator is not: PostgreSQL locks a role
while its members change, and many copies are made at once. Nothing reassigns default privileges: they are made again,
and ``DROP OWNED BY`` drops the template's. As the new owner role, it cannot revoke the template's CREATE on its own
database, which says whose that is.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg.sql import SQL, Identifier

from ....errors import ConflictError
from ..._naming import Names
from .connection import CLIENTS, Session, as_role, verbatim
from .logins import PRESENT
from .ownership import reassign_owned

_SHOWN = 5  # obstacles in an error
_HERE = "dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND refclassid = 'pg_authid'::regclass"
_SESSIONS = SQL(f"""
SELECT DISTINCT 'a session', coalesce(usename, 'a dropped role') FROM pg_stat_activity
WHERE datname = %(database)s AND {CLIENTS}
UNION ALL SELECT 'a prepared transaction', owner FROM pg_prepared_xacts WHERE database = %(database)s
""")
# What would keep a role of the template, or run as somebody else than the tenant, who has some if the step is repeated.
# Members of extensions are the administrator's.
_OBSTACLES = SQL(f"""
SELECT format('%%s belongs to %%s', pg_describe_object(classid, objid, objsubid), rolname)
FROM pg_shdepend s JOIN pg_roles r ON r.oid = refobjid
WHERE {_HERE} AND deptype = 'o' AND classid <> 'pg_extension'::regclass
  AND (rolname <> ALL (%(owners)s) OR classid = 'pg_user_mapping'::regclass) AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = s.classid AND d.objid = s.objid AND d.deptype = 'e')
UNION ALL SELECT format('policy %%I on %%s names %%s', polname, polrelid::regclass, rolname)
FROM pg_policy JOIN pg_roles r ON r.oid = ANY (polroles) WHERE rolname = ANY (%(roles)s)
UNION ALL SELECT format('%%s is set for %%s', setting, p.oid::regprocedure) FROM pg_proc p, unnest(proconfig) AS setting
WHERE split_part(setting, '=', 1) IN ('role', 'session_authorization') AND split_part(setting, '=', 2) = ANY (%(roles)s)
UNION ALL SELECT format('event trigger %%I', evtname) FROM pg_event_trigger
ORDER BY 1
""")
_LEFT = SQL(f"""
SELECT DISTINCT format('%%s names %%s', pg_describe_object(classid, objid, objsubid), rolname)
FROM pg_shdepend s JOIN pg_roles r ON r.oid = refobjid WHERE {_HERE} AND rolname = ANY (%s) ORDER BY 1
""")
# The statements that give the owner role the default privileges of the template's, but for readers and writers. A row
# without a schema replaces what PostgreSQL gives: ALL to the owner and, on routines and types, also to PUBLIC.
_DEFAULTS = SQL("""
WITH defaults (place, kind, grantee, privileges, option) AS (
    SELECT CASE defaclnamespace WHEN 0 THEN '' ELSE format(' IN SCHEMA %%I', nspname) END,
        CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES'
            WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
        CASE grantee WHEN 0 THEN 'PUBLIC' WHEN defaclrole THEN quote_ident(%(owner)s)
            ELSE quote_ident(pg_get_userbyid(grantee)) END,
        string_agg(privilege_type, ', '), CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
    LEFT JOIN LATERAL aclexplode(defaclacl) ON true
    WHERE pg_get_userbyid(defaclrole) = %(source)s GROUP BY 1, 2, 3, 5)
SELECT DISTINCT 1, format('ALTER DEFAULT PRIVILEGES REVOKE ALL ON %%s FROM PUBLIC, %%I', kind, %(owner)s::text)
FROM defaults WHERE place = ''
UNION ALL
SELECT 2, format('ALTER DEFAULT PRIVILEGES%%s GRANT %%s ON %%s TO %%s%%s', place, privileges, kind, grantee, option)
FROM defaults WHERE grantee <> ALL (%(groups)s) ORDER BY 1, 2
""")


def refusal(source: Names, reasons: Iterable[str]) -> ConflictError:
    """The error for a template that cannot be copied."""
    why = "; ".join([*reasons][:_SHOWN])
    return ConflictError(f"the template {source.tenant!r} cannot be copied: {why}; nothing was created", status=409)


async def refuse_sessions(session: Session, source: Names) -> None:
    """Raise ConflictError if the template has a session or a prepared transaction, for which a copy would wait."""
    if found := await session.run(_SESSIONS, database=source.database):
        raise refusal(source, (f"its database has {what} of {who}" for what, who in found))


async def take_over(session: Session, source: Names) -> None:
    """In the copy: give all to the tenant. Raise ConflictError if something cannot be the tenant's."""
    names, roles = session.names, [source.owner, *source.groups]
    if found := await session.run(_OBSTACLES, owners=[source.owner, names.owner], roles=roles):
        raise refusal(source, (reason for (reason,) in found))
    groups = [Identifier(group).as_string(None) for group in source.groups]
    defaults = await session.run(_DEFAULTS, source=source.owner, owner=names.owner, groups=groups)
    present = [role for (role,) in await session.run(PRESENT, roles)]
    of = SQL(", ").join(map(Identifier, present))
    options = SQL(" WITH INHERIT TRUE, SET FALSE" if session.knows_options else "")
    await session.run(SQL("GRANT {} TO {}{}").format(of, Identifier(names.owner), options))
    await reassign_owned(session, source.owner, is_member=True)
    as_owner = as_role(
        names.owner,
        SQL("REASSIGN OWNED BY {} TO {}").format(Identifier(source.owner), Identifier(names.owner)),  # extensions
        *(verbatim(statement) for _, statement in defaults),
        # Of the owner role first: what is left without it is not looked for twice.
        *(SQL("DROP OWNED BY {}").format(Identifier(role)) for role in roles if role in present),
    )
    revoke = SQL("REVOKE {} FROM {}").format(of, Identifier(names.owner))
    await session.run_with([names.owner], *as_owner, revoke)
    if left := await session.run(_LEFT, roles):
        raise refusal(source, (reason for (reason,) in left))
