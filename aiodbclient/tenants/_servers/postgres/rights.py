"""The rights of a tenant's readers and writers on PostgreSQL.

A role without login, the *group*, has them, and the logins are its members. In the tenant's database, as the owner
role, on each object of the owner::

    GRANT USAGE ON SCHEMA s TO reader
    GRANT SELECT ON t TO reader
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader   for future objects
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from attrs import frozen
from psycopg.sql import SQL, Identifier

from ..._naming import Role
from .databases import Step, take
from .objects import in_parts
from .sessions import Session

RIGHTS: Mapping[Role, Mapping[LiteralString, tuple[LiteralString, ...]]] = {
    Role.WRITER: {
        "SCHEMA": ("USAGE",),
        "TABLE": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "SEQUENCE": ("USAGE", "SELECT"),
        "ROUTINE": ("EXECUTE",),
    },
    Role.READER: {"SCHEMA": ("USAGE",), "TABLE": ("SELECT",), "SEQUENCE": ("SELECT",)},
}


@frozen
class _Kind:
    """A kind of object, with a query for the quoted names of those of the owner on which the group lacks a right."""

    word: LiteralString  # in GRANT
    letter: LiteralString  # in ``pg_default_acl``
    query: LiteralString  # its values are the owner and the group
    lacks: LiteralString  # for each privilege, in place of ``{lacks}``


_RELATIONS = """
SELECT format('%%I.%%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace, pg_roles g
WHERE pg_get_userbyid(relowner) = %s AND g.rolname = %s AND nspname !~ '^pg_' AND nspname <> 'information_schema'
  AND relkind IN ({kinds}) AND ({{lacks}}) ORDER BY c.oid
"""
_ROUTINES = """
SELECT CASE prokind WHEN 'p' THEN format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid))
    ELSE p.oid::regprocedure::text END FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace, pg_roles g
WHERE pg_get_userbyid(proowner) = %s AND g.rolname = %s AND nspname !~ '^pg_' AND ({lacks}) ORDER BY p.oid
"""
# The owner of the database owns the schema ``public``.
_SCHEMAS = """
SELECT quote_ident(nspname) FROM pg_namespace n, pg_roles g
WHERE pg_get_userbyid(nspowner) IN (%s, 'pg_database_owner') AND g.rolname = %s AND nspname !~ '^pg_' AND ({lacks})
ORDER BY n.oid
"""
_TABLES, _SEQUENCES = _RELATIONS.format(kinds="'r', 'p', 'v', 'm', 'f'"), _RELATIONS.format(kinds="'S'")
_KINDS = (
    _Kind("SCHEMA", "n", _SCHEMAS, "NOT has_schema_privilege(g.oid, n.oid, '{privilege}')"),
    _Kind("TABLE", "r", _TABLES, "NOT has_table_privilege(g.oid, c.oid, '{privilege}')"),
    _Kind("SEQUENCE", "S", _SEQUENCES, "NOT has_sequence_privilege(g.oid, c.oid, '{privilege}')"),
    _Kind("ROUTINE", "f", _ROUTINES, "NOT has_function_privilege(g.oid, p.oid, '{privilege}')"),
)
_DEFAULTS = SQL("""
SELECT defaclobjtype::text, privilege_type FROM pg_default_acl, aclexplode(defaclacl)
WHERE pg_get_userbyid(defaclrole) = %s AND defaclnamespace = 0 AND pg_get_userbyid(grantee) = %s
""")
# Schemas in which every login may create objects, and whether the owner role can change that. With a function there, a
# reader could trick the owner (CVE-2018-1058): https://www.postgresql.org/about/news/1834/
_OPEN_SCHEMAS = SQL("""
SELECT nspname, pg_get_userbyid(nspowner) IN (%s, 'pg_database_owner') FROM pg_namespace
WHERE nspname !~ '^pg_' AND EXISTS (
    SELECT FROM aclexplode(nspacl) WHERE grantee = 0 AND privilege_type = 'CREATE') ORDER BY oid
""")


async def complete_inside(session: Session, role: Role) -> None:
    """In the tenant's database: take the missing steps of a group."""
    await take(session, await missing_grants_inside(session, role))


async def missing_grants_inside(session: Session, role: Role) -> list[Step]:
    """In the tenant's database: return the missing steps of a group on its objects."""
    steps, names, group = list[Step](), session.names, session.names.group(role)
    for schema, is_ours in await session.run(_OPEN_SCHEMAS, names.owner):
        if not is_ours:  # as in a database that the provider upgraded from 14
            raise session.error(
                f"every login may create objects in the schema {schema!r} of the database {names.database!r}, and "
                f"only a superuser can change that, so it can have no {role}"
            )
        revoke = SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(Identifier(schema))
        steps.append(Step(revoke, as_owner=True))
    defaults = {tuple(row) for row in await session.run(_DEFAULTS, names.owner, group)}
    for kind in _KINDS:
        privileges = RIGHTS[role].get(kind.word)
        if privileges is None:
            continue
        lacks = SQL(" OR ").join(SQL(kind.lacks.format(privilege=privilege)) for privilege in privileges)
        rows = await session.run(SQL(kind.query).format(lacks=lacks), names.owner, group)
        wanted = ", ".join(privileges)
        for objects in in_parts([name for (name,) in rows]):
            grant = SQL(f"GRANT {wanted} ON {kind.word} {{}} TO {{}}").format(objects, Identifier(group))
            steps.append(Step(grant, as_owner=True))
        if not {(kind.letter, privilege) for privilege in privileges} <= defaults:
            grant = SQL(f"ALTER DEFAULT PRIVILEGES GRANT {wanted} ON {kind.word}S TO {{}}").format(Identifier(group))
            steps.append(Step(grant, as_owner=True))
    return steps
