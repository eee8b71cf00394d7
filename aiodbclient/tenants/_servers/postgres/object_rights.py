"""The rights of readers and writers on the objects in a tenant's database on PostgreSQL.

They belong to a group for each role. As the owner role, on each object of the owner::

    GRANT USAGE ON SCHEMA s TO reader
    GRANT SELECT ON t TO reader
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader       for future objects

Each session here is in the tenant's database.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.sql import SQL, Identifier

from ..._naming import LIMITED_ROLES, Role
from ..._outcomes import Problem, ProblemKind
from .connection import Session, verbatim
from .rights import Remedy, apply

_AT_ONCE = 500  # how many objects one statement names

# The privileges of each role on the owner's objects, by the word in GRANT; on future ones as DEFAULT PRIVILEGES.
_PRIVILEGES: Mapping[str, Mapping[Role, Sequence[str]]] = {
    "SCHEMA": {Role.WRITER: ["USAGE"], Role.READER: ["USAGE"]},
    "TABLE": {Role.WRITER: ["SELECT", "INSERT", "UPDATE", "DELETE"], Role.READER: ["SELECT"]},
    "SEQUENCE": {Role.WRITER: ["USAGE", "SELECT"], Role.READER: ["SELECT"]},
    "ROUTINE": {Role.WRITER: ["EXECUTE"]},
}
# What the owner may give each role, and ``repair`` does not. Routines are PUBLIC's anyway.
_ALLOWED: Mapping[str, Mapping[Role, Sequence[str]]] = {
    "LARGE OBJECT": {Role.WRITER: ["SELECT", "UPDATE"], Role.READER: ["SELECT"]},
    "ROUTINE": {Role.READER: ["EXECUTE"]},
}
# What the groups lack of their role, and what PUBLIC, the groups and their logins have beyond it, of objects of the
# owner role and of its logins, which a repair gives to the owner role first. Whoever owns the database, the
# administrator, is ``pg_database_owner``, whose schema ``public`` becomes the owner's before.
_DIFFERENCES = SQL("""
WITH rights AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rights)s::jsonb) AS of (word text, privilege text, who text, is_due bool)),
kinds (letter, words) AS (
    VALUES ('n', 'SCHEMAS'), ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'ROUTINES'), ('L', 'LARGE OBJECTS')),
objects (word, name, part, default_of, schema, owner, acl, is_whole) AS (
    SELECT 'SCHEMA', quote_ident(nspname), '', '', nspname, nspowner, nspacl, true FROM pg_namespace
    UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, format('%%I.%%I', nspname, relname), '',
        '', nspname, relowner, relacl, true
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'TABLE', format('%%I.%%I', nspname, relname), format(' (%%I)', attname), '',
        nspname, relowner, attacl, false
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE attacl IS NOT NULL
    UNION ALL SELECT 'ROUTINE', CASE prokind
        WHEN 'p' THEN format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid))
        ELSE p.oid::regprocedure::text END, '', '', nspname, proowner, proacl, true
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
    UNION ALL SELECT 'LARGE OBJECT', oid::text, '', '', '', lomowner, lomacl, true
    FROM pg_largeobject_metadata WHERE lomacl IS NOT NULL
    UNION ALL SELECT words, '', '', quote_ident(rolname), '', r.oid, (SELECT defaclacl FROM pg_default_acl
        WHERE defaclrole = r.oid AND defaclnamespace = 0 AND defaclobjtype::text = letter), true
    FROM kinds, pg_roles r WHERE rolname = ANY (%(owners)s)
    UNION ALL SELECT words, '', '', format('%%I IN SCHEMA %%I', pg_get_userbyid(defaclrole), nspname), nspname,
        defaclrole, defaclacl, false
    FROM pg_default_acl JOIN kinds ON letter = defaclobjtype::text JOIN pg_namespace n ON n.oid = defaclnamespace)
SELECT is_missing, pg_get_userbyid(owner), default_of, word, CASE who WHEN '' THEN 'PUBLIC' ELSE quote_ident(who) END,
       string_agg(privilege || part, ', ' ORDER BY privilege), name
FROM objects, LATERAL (
    WITH granted AS (
        SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END AS who, privilege_type AS privilege
        FROM aclexplode(acl)),
    its AS (SELECT who, privilege, is_due FROM rights WHERE rights.word = rtrim(objects.word, 'S'))
    (SELECT true, who, privilege FROM its
     WHERE is_due AND is_whole AND pg_get_userbyid(owner) IN (%(owner)s, 'pg_database_owner')
     EXCEPT SELECT true, who, privilege FROM granted)
    UNION ALL
    (SELECT false, who, privilege FROM granted WHERE who IN (SELECT who FROM rights)
     EXCEPT SELECT false, who, privilege FROM its)) AS of (is_missing, who, privilege)
WHERE pg_get_userbyid(owner) = ANY (%(owners)s || '{pg_database_owner}'::text[])
  AND schema !~ '^pg_' AND schema <> 'information_schema'
GROUP BY 1, 2, 3, 4, 5, 7, part ORDER BY 1, 2, 3, 4, 7, part, 5
""")
# Schemas in which every login may create objects, and the owner role cannot change that. With a function there, a
# reader could trick the owner (CVE-2018-1058): https://www.postgresql.org/about/news/1834/
_OPEN_SCHEMAS = SQL("""
SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND pg_get_userbyid(nspowner) NOT IN (%s, 'pg_database_owner')
  AND EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee = 0 AND privilege_type = 'CREATE') ORDER BY oid
""")
# In a new database, ``public`` is the schema of whoever owns the database: the administrator.
_ADMINISTRATORS_SCHEMAS = SQL("""
SELECT quote_ident(nspname) FROM pg_namespace WHERE pg_get_userbyid(nspowner) = 'pg_database_owner'
""")


async def apply_object_rights(session: Session, wanted: Mapping[str, Role]) -> None:
    """Apply what ``missing_object_rights`` returns."""
    await apply(session, await missing_object_rights(session, wanted))


async def missing_object_rights(session: Session, wanted: Mapping[str, Role]) -> list[Remedy]:
    """Return what the owner role lacks, and what the groups of the ``wanted`` logins lack or have too much."""
    remedies, names, owner = list[Remedy](), session.names, Identifier(session.names.owner)
    for (schema,) in await session.run(_ADMINISTRATORS_SCHEMAS):
        change = SQL("ALTER SCHEMA {} OWNER TO {}").format(verbatim(schema), owner)
        remedies.append(Remedy(change, needs=names.owner))
    roles = [role for role in LIMITED_ROLES if role in wanted.values()]
    if not roles:
        return remedies
    for (schema,) in await session.run(_OPEN_SCHEMAS, names.owner):  # as in a database upgraded from 14
        raise session.error(
            f"every login may create objects in the schema {schema!r} of the database {names.database!r}, and "
            f"only a superuser can change that, so it can have no {roles[0]}"
        )
    groups = {names.group(role): role for role in roles}
    members = {login: role for login, role in wanted.items() if role is not Role.OWNER}
    everybody = {"": Role.READER if Role.READER in roles else Role.WRITER}  # readers and writers have its rights too
    rights = [
        {"word": word, "privilege": privilege, "who": who, "is_due": who in groups and of_words is _PRIVILEGES}
        for of_words in (_PRIVILEGES, _ALLOWED)
        for word, of_roles in of_words.items()
        for who, role in {**members, **groups, **everybody}.items()
        for privilege in of_roles.get(role, ())
    ]
    owners = [names.owner, *(login for login, role in wanted.items() if role is Role.OWNER)]
    found = await session.run(_DIFFERENCES, rights=json.dumps(rights), owner=names.owner, owners=owners)
    objects = defaultdict[tuple[Any, ...], list[str]](list)
    for *change, name in found:
        objects[tuple(change)].append(name)
    for (is_missing, by, default_of, word, who, privileges), its in objects.items():
        default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {default_of} " if default_of else ""
        needs = by if default and by != names.owner else ""
        kind = f"new {word.lower()}" if default else word.lower()
        for some in (its[start : start + _AT_ONCE] for start in range(0, len(its), _AT_ONCE)):
            what = f"{privileges} ON {word} {', '.join(some)}"
            if is_missing:
                remedies.append(Remedy(verbatim(f"{default}GRANT {what} TO {who}"), as_owner=True))
                continue
            revoke = verbatim(f"{default}REVOKE {what} FROM {who} CASCADE")
            beyond = [f"{who} has {privileges} on {kind} {name}".rstrip() for name in some]
            problems = [Problem(ProblemKind.TOO_MANY_RIGHTS, each) for each in beyond]
            remedies.append(Remedy(revoke, problems, as_owner=not needs, needs=needs))
    return remedies
