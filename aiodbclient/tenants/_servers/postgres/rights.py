"""The rights of a tenant's readers and writers on PostgreSQL.

A role without login, the *group*, has them, and the logins are its members. In the tenant's database, as the owner
role, on each object of the owner::

    GRANT USAGE ON SCHEMA s TO reader
    GRANT SELECT ON t TO reader
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader   for future objects
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ..._naming import Role
from .databases import Step, take
from .sessions import Session, verbatim

_AT_ONCE = 500  # how many objects one statement names

# The quoted names of the owner's objects on which the group lacks one of the privileges.
_RELATIONS: LiteralString = """
SELECT format('%%I.%%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace, pg_roles g
WHERE pg_get_userbyid(relowner) = %(owner)s AND g.rolname = %(group)s
  AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND relkind IN
"""
_TABLES = SQL(f"""{_RELATIONS} ('r', 'p', 'v', 'm', 'f')
  AND EXISTS (SELECT FROM unnest(%(privileges)s::text[]) wanted WHERE NOT has_table_privilege(g.oid, c.oid, wanted))
ORDER BY c.oid
""")
_SEQUENCES = SQL(f"""{_RELATIONS} ('S')
  AND EXISTS (SELECT FROM unnest(%(privileges)s::text[]) wanted WHERE NOT has_sequence_privilege(g.oid, c.oid, wanted))
ORDER BY c.oid
""")
_ROUTINES = SQL("""
SELECT CASE prokind WHEN 'p' THEN format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid))
    ELSE p.oid::regprocedure::text END FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace, pg_roles g
WHERE pg_get_userbyid(proowner) = %(owner)s AND g.rolname = %(group)s AND nspname !~ '^pg_'
  AND EXISTS (SELECT FROM unnest(%(privileges)s::text[]) wanted WHERE NOT has_function_privilege(g.oid, p.oid, wanted))
ORDER BY p.oid
""")
# The owner of the database owns the schema ``public``.
_SCHEMAS = SQL("""
SELECT quote_ident(nspname) FROM pg_namespace n, pg_roles g
WHERE pg_get_userbyid(nspowner) IN (%(owner)s, 'pg_database_owner') AND g.rolname = %(group)s AND nspname !~ '^pg_'
  AND EXISTS (SELECT FROM unnest(%(privileges)s::text[]) wanted WHERE NOT has_schema_privilege(g.oid, n.oid, wanted))
ORDER BY n.oid
""")
# By the word in GRANT: the letter in ``pg_default_acl``, what finds the objects, and the privileges of each role.
_KINDS: Mapping[LiteralString, tuple[str, SQL, Mapping[Role, Sequence[LiteralString]]]] = {
    "SCHEMA": ("n", _SCHEMAS, {Role.WRITER: ["USAGE"], Role.READER: ["USAGE"]}),
    "TABLE": ("r", _TABLES, {Role.WRITER: ["SELECT", "INSERT", "UPDATE", "DELETE"], Role.READER: ["SELECT"]}),
    "SEQUENCE": ("S", _SEQUENCES, {Role.WRITER: ["USAGE", "SELECT"], Role.READER: ["SELECT"]}),
    "ROUTINE": ("f", _ROUTINES, {Role.WRITER: ["EXECUTE"]}),
}
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


async def complete_inside(session: Session, roles: Sequence[Role]) -> None:
    """In the tenant's database: take the missing steps of these groups."""
    await take(session, await missing_grants_inside(session, roles))


async def missing_grants_inside(session: Session, roles: Sequence[Role]) -> list[Step]:
    """In the tenant's database: return the missing steps of these groups on its objects."""
    steps, names = list[Step](), session.names
    for schema, is_ours in await session.run(_OPEN_SCHEMAS, names.owner):
        if not is_ours:  # as in a database that the provider upgraded from 14
            raise session.error(
                f"every login may create objects in the schema {schema!r} of the database {names.database!r}, and "
                f"only a superuser can change that, so it can have no {roles[0]}"
            )
        revoke = SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(Identifier(schema))
        steps.append(Step(revoke, as_owner=True))
    for role in roles:
        group = names.group(role)
        defaults = {tuple(row) for row in await session.run(_DEFAULTS, names.owner, group)}
        for word, (letter, query, of_roles) in _KINDS.items():
            privileges = of_roles.get(role, ())
            rows = await session.run(query, owner=names.owner, group=group, privileges=[*privileges])
            wanted = ", ".join(privileges)
            for start in range(0, len(rows), _AT_ONCE):
                objects = SQL(", ").join(verbatim(name) for (name,) in rows[start : start + _AT_ONCE])
                grant = SQL(f"GRANT {wanted} ON {word} {{}} TO {{}}").format(objects, Identifier(group))
                steps.append(Step(grant, as_owner=True))
            if not {(letter, privilege) for privilege in privileges} <= defaults:
                default = SQL(f"ALTER DEFAULT PRIVILEGES GRANT {wanted} ON {word}S TO {{}}")
                steps.append(Step(default.format(Identifier(group)), as_owner=True))
    return steps
