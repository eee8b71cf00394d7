"""The rights of readers and writers on the objects in a tenant's database on PostgreSQL.

They belong to a group for each role. As the owner role, on each object of the owner::

    GRANT USAGE ON SCHEMA s TO reader
    GRANT SELECT ON t TO reader
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader       for future objects

Each session here is in the tenant's database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import LiteralString

from psycopg.sql import SQL, Identifier

from ..._naming import ROLES, Role
from ..._outcomes import Problem, ProblemKind
from .connection import Session, verbatim
from .rights import GrantStep, apply

_AT_ONCE = 500  # how many objects one statement names

# By the word in GRANT: the letter in ``pg_default_acl``, and the privileges of each role.
_PRIVILEGES: Mapping[LiteralString, tuple[str, Mapping[Role, Sequence[LiteralString]]]] = {
    "SCHEMA": ("n", {Role.WRITER: ["USAGE"], Role.READER: ["USAGE"]}),
    "TABLE": ("r", {Role.WRITER: ["SELECT", "INSERT", "UPDATE", "DELETE"], Role.READER: ["SELECT"]}),
    "SEQUENCE": ("S", {Role.WRITER: ["USAGE", "SELECT"], Role.READER: ["SELECT"]}),
    "ROUTINE": ("f", {Role.WRITER: ["EXECUTE"]}),
}
# The quoted names of the owner's objects on which the group lacks a privilege of its role. Whoever owns the database,
# the administrator, is ``pg_database_owner``, whose schema ``public`` becomes the owner's before.
_LACKING = SQL("""
WITH objects (word, name, oid, owner, namespace) AS (
    SELECT 'SCHEMA', quote_ident(nspname), oid, nspowner, oid FROM pg_namespace
    UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%%I.%%I', nspname, relname), c.oid,
        relowner, relnamespace
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'ROUTINE', CASE prokind
        WHEN 'p' THEN format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid))
        ELSE p.oid::regprocedure::text END, p.oid, proowner, pronamespace
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace)
SELECT word, name FROM objects o JOIN pg_namespace n ON n.oid = namespace, pg_roles g
WHERE pg_get_userbyid(owner) IN (%(owner)s, 'pg_database_owner') AND rolname = %(group)s
  AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND EXISTS (
    SELECT FROM jsonb_array_elements_text(%(privileges)s::jsonb -> word) AS wanted WHERE NOT CASE word
        WHEN 'SCHEMA' THEN has_schema_privilege(g.oid, o.oid, wanted)
        WHEN 'TABLE' THEN has_table_privilege(g.oid, o.oid, wanted)
        WHEN 'SEQUENCE' THEN has_sequence_privilege(g.oid, o.oid, wanted)
        ELSE has_function_privilege(g.oid, o.oid, wanted) END)
ORDER BY word, o.oid
""")
# What the owner may give each role, and ``repair`` does not.
_OF_LARGE_OBJECTS: Mapping[Role, Sequence[str]] = {Role.WRITER: ["SELECT", "UPDATE"], Role.READER: ["SELECT"]}
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
# In a new database, ``public`` is the schema of whoever owns the database: the administrator.
_ADMINISTRATORS_SCHEMAS = SQL("""
SELECT quote_ident(nspname) FROM pg_namespace WHERE pg_get_userbyid(nspowner) = 'pg_database_owner'
""")
# What PUBLIC, and the groups and logins of the readers and writers, have beyond their role, of objects of the owner
# role and of its logins, which a repair gives to the owner role first. Routines and types are PUBLIC's anyway.
_BEYOND = SQL("""
WITH objects (word, name, part, acl) AS (
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%%I.%%I', nspname, relname), '', relacl
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relacl IS NOT NULL AND pg_get_userbyid(relowner) = ANY (%(owners)s)
    UNION ALL SELECT 'TABLE', format('%%I.%%I', nspname, relname), format(' (%%I)', attname), attacl
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE attacl IS NOT NULL AND pg_get_userbyid(relowner) = ANY (%(owners)s)
    UNION ALL SELECT 'SCHEMA', quote_ident(nspname), '', nspacl FROM pg_namespace
    WHERE nspacl IS NOT NULL AND pg_get_userbyid(nspowner) = ANY (%(owners)s) AND nspname !~ '^pg_'
    UNION ALL SELECT 'LARGE OBJECT', oid::text, '', lomacl FROM pg_largeobject_metadata
    WHERE lomacl IS NOT NULL AND pg_get_userbyid(lomowner) = ANY (%(owners)s)
    UNION ALL SELECT CASE defaclobjtype WHEN 'r' THEN 'new TABLE' WHEN 'S' THEN 'new SEQUENCE'
            WHEN 'L' THEN 'new LARGE OBJECT' ELSE 'new SCHEMA' END,
        CASE defaclnamespace WHEN 0 THEN '' ELSE 'IN SCHEMA ' || quote_ident(nspname) END, '', defaclacl
    FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
    WHERE defaclobjtype IN ('r', 'S', 'n', 'L') AND pg_get_userbyid(defaclrole) = %(owner)s)
SELECT word, name, part, who, array_agg(privilege_type ORDER BY privilege_type)
FROM objects, LATERAL aclexplode(acl) AS given, LATERAL (
    SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END) AS of (who)
WHERE who = ANY (%(who)s) AND replace(word, 'new ', '') || ' ' || privilege_type || ' ' || who <> ALL (%(allowed)s)
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
""")


async def apply_object_rights(session: Session, wanted: Mapping[str, Role]) -> None:
    """Apply the missing steps of its schemas, and of the groups of the ``wanted`` logins."""
    await apply(session, await missing_object_rights(session, wanted))


async def missing_object_rights(session: Session, wanted: Mapping[str, Role]) -> list[GrantStep]:
    """Return the missing steps of its schemas, and of the groups of the ``wanted`` logins."""
    steps, names, owner = list[GrantStep](), session.names, Identifier(session.names.owner)
    for (schema,) in await session.run(_ADMINISTRATORS_SCHEMAS):
        change = SQL("ALTER SCHEMA {} OWNER TO {}").format(verbatim(schema), owner)
        steps.append(GrantStep(change, needs=names.owner))
    roles = [role for role in ROLES if role in wanted.values()]
    if not roles:
        return steps
    for schema, is_ours in await session.run(_OPEN_SCHEMAS, names.owner):
        if not is_ours:  # as in a database that the provider upgraded from 14
            raise session.error(
                f"every login may create objects in the schema {schema!r} of the database {names.database!r}, and "
                f"only a superuser can change that, so it can have no {roles[0]}"
            )
    steps += await _beyond_steps(session, wanted)
    for role in roles:
        group = names.group(role)
        defaults = {tuple(row) for row in await session.run(_DEFAULTS, names.owner, group)}
        wanted_of: dict[LiteralString, Sequence[LiteralString]]
        wanted_of = {word: of_roles[role] for word, (_, of_roles) in _PRIVILEGES.items() if role in of_roles}
        lacking = await session.run(_LACKING, owner=names.owner, group=group, privileges=json.dumps(wanted_of))
        for word, privileges in wanted_of.items():
            objects = [verbatim(name) for kind, name in lacking if kind == word]
            privileges_here = ", ".join(privileges)
            for start in range(0, len(objects), _AT_ONCE):
                some = SQL(", ").join(objects[start : start + _AT_ONCE])
                grant = SQL(f"GRANT {privileges_here} ON {word} {{}} TO {{}}").format(some, Identifier(group))
                steps.append(GrantStep(grant, as_owner=True))
            if not {(_PRIVILEGES[word][0], privilege) for privilege in privileges} <= defaults:
                default = SQL(f"ALTER DEFAULT PRIVILEGES GRANT {privileges_here} ON {word}S TO {{}}")
                steps.append(GrantStep(default.format(Identifier(group)), as_owner=True))
    return steps


async def _beyond_steps(session: Session, wanted: Mapping[str, Role]) -> list[GrantStep]:
    """Return what revokes the rights that readers and writers have beyond their role."""
    roles = {name: role for name, role in wanted.items() if role is not Role.OWNER}
    roles |= {session.names.group(role): role for role in {*roles.values()}}
    roles[""] = Role.READER if Role.READER in roles.values() else Role.WRITER  # PUBLIC: they have its rights too
    allowed = [
        f"{word} {privilege} {name}"
        for name, role in roles.items()
        for word, (_, of_roles) in _PRIVILEGES.items()
        for privilege in of_roles.get(role, ())
    ]
    allowed += [f"LARGE OBJECT {each} {name}" for name, role in roles.items() for each in _OF_LARGE_OBJECTS[role]]
    owner, steps = session.names.owner, list[GrantStep]()
    owners = [owner, *(login for login, role in wanted.items() if role is Role.OWNER)]
    for word, name, part, who, privileges in await session.run(
        _BEYOND, owner=owner, owners=owners, who=[*roles], allowed=allowed
    ):
        rights, grantee = ", ".join(f"{each}{part}" for each in privileges), who or "PUBLIC"
        text, problem = (
            SQL("REVOKE {0} ON {1} {2} FROM {3} CASCADE"),
            f"{grantee} has {rights} on {word.lower()} {name}",
        )
        if word.startswith("new "):
            text = SQL("ALTER DEFAULT PRIVILEGES {2} REVOKE {0} ON {1}S FROM {3} CASCADE")
            problem = f"{grantee} gets {rights} on each {word.lower()}"
        parts = map(verbatim, (rights, word.removeprefix("new "), name))
        revoke = text.format(*parts, Identifier(who) if who else SQL("PUBLIC"))
        steps.append(GrantStep(revoke, [Problem(ProblemKind.TOO_MANY_RIGHTS, problem)], as_owner=True))
    return steps
