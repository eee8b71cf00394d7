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
from typing import Any

from psycopg.sql import SQL, Identifier

from ....errors import ConflictError
from ..._naming import Names
from .connection import CLIENTS, Session, Statement, as_role, verbatim
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
# A row without a schema replaces what PostgreSQL gives: ALL to the owner and, on routines and types, also to PUBLIC.
_DEFAULTS = SQL("""
SELECT CASE defaclnamespace WHEN 0 THEN '' ELSE format(' IN SCHEMA %%I', nspname) END,
       CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES'
           WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END, is_grantable,
       string_agg(privilege_type, ', ')
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
LEFT JOIN LATERAL aclexplode(defaclacl) ON true
WHERE pg_get_userbyid(defaclrole) = %s GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
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
    defaults = await session.run(_DEFAULTS, source.owner)
    present = [role for (role,) in await session.run(PRESENT, roles)]
    of = SQL(", ").join(map(Identifier, present))
    options = SQL(" WITH INHERIT TRUE, SET FALSE" if session.knows_options else "")
    await session.run(SQL("GRANT {} TO {}{}").format(of, Identifier(names.owner), options))
    await reassign_owned(session, source.owner, is_member=True)
    as_owner = as_role(
        names.owner,
        SQL("REASSIGN OWNED BY {} TO {}").format(Identifier(source.owner), Identifier(names.owner)),  # extensions
        *_defaults(names, source, defaults),
        # Of the owner role first: what is left without it is not looked for twice.
        *(SQL("DROP OWNED BY {}").format(Identifier(role)) for role in roles if role in present),
    )
    revoke = SQL("REVOKE {} FROM {}").format(of, Identifier(names.owner))
    await session.run_with([names.owner], *as_owner, revoke)
    if left := await session.run(_LEFT, roles):
        raise refusal(source, (reason for (reason,) in left))


def _defaults(names: Names, source: Names, defaults: Iterable[tuple[Any, ...]]) -> list[Statement]:
    """Give the owner role the default privileges of the template's, but for readers and writers."""
    statements = list[Statement]()

    def alter(place: str, change: str, grantee: str, end: str = "") -> None:
        whom = SQL("PUBLIC") if grantee == "PUBLIC" else Identifier(grantee)
        text = SQL("ALTER DEFAULT PRIVILEGES{} {} {}{}")
        statements.append(text.format(verbatim(place), verbatim(change), whom, verbatim(end)))

    for place, kind in dict.fromkeys((place, kind) for place, kind, *_ in defaults if not place):
        for grantee in (names.owner, "PUBLIC"):
            alter(place, f"REVOKE ALL ON {kind} FROM", grantee)
    for place, kind, grantee, is_grantable, privileges in defaults:
        if grantee is not None and grantee not in source.groups:  # None: nobody has any
            to = names.owner if grantee == source.owner else grantee
            alter(place, f"GRANT {privileges} ON {kind} TO", to, " WITH GRANT OPTION" * is_grantable)
    return statements
