"""Find, revoke and grant the privileges of a PostgreSQL role on the objects of other roles.

``DROP OWNED BY`` revokes them only if the session has the rights of each object's owner. The administrator does not
inherit these, so this revokes each privilege as the owner of the object.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from psycopg import AsyncConnection
from psycopg.sql import SQL, Composed, Identifier

from .._naming import Names
from .postgres_sessions import quoted, run

# Every catalog with privileges, in the current database or shared. Only superusers can grant those of parameters and
# tablespaces, so they are not here.
_GRANTED = SQL("""
WITH objects (class, objid, attnum, owner, acl) AS (
    SELECT 'pg_class', oid, 0, relowner, relacl FROM pg_class
    UNION ALL SELECT 'pg_class', c.oid, attnum, relowner, attacl FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    UNION ALL SELECT 'pg_namespace', oid, 0, nspowner, nspacl FROM pg_namespace
    UNION ALL SELECT 'pg_proc', oid, 0, proowner, proacl FROM pg_proc
    UNION ALL SELECT 'pg_type', oid, 0, typowner, typacl FROM pg_type
    UNION ALL SELECT 'pg_language', oid, 0, lanowner, lanacl FROM pg_language
    UNION ALL SELECT 'pg_foreign_server', oid, 0, srvowner, srvacl FROM pg_foreign_server
    UNION ALL SELECT 'pg_foreign_data_wrapper', oid, 0, fdwowner, fdwacl FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_largeobject', oid, 0, lomowner, lomacl FROM pg_largeobject_metadata
    UNION ALL SELECT 'pg_database', oid, 0, datdba, datacl FROM pg_database)
SELECT DISTINCT pg_get_userbyid(o.owner), pg_get_userbyid(a.grantor), i.type, i.identity,
       (SELECT attname FROM pg_attribute WHERE attrelid = o.objid AND attnum = o.attnum AND o.attnum > 0),
       a.privilege_type, a.is_grantable
FROM objects o, aclexplode(o.acl) a, pg_identify_object(o.class::regclass, o.objid, 0) i
WHERE a.grantee = (SELECT oid FROM pg_roles WHERE rolname = %s) AND a.grantee <> o.owner
ORDER BY 1, 2, 3, 4
""")
_WORDS = {
    "view": "TABLE",
    "materialized view": "TABLE",
    "foreign table": "TABLE",
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "aggregate": "ROUTINE",
    "window function": "ROUTINE",
    "domain": "TYPE",
    "server": "FOREIGN SERVER",
}


_POLICIES = SQL("""
SELECT pg_get_userbyid(relowner), nspname, relname, polname, ARRAY(
    SELECT pg_get_userbyid(other) FROM unnest(polroles) AS other WHERE other <> me.oid)
FROM pg_policy JOIN pg_class c ON c.oid = polrelid JOIN pg_namespace n ON n.oid = relnamespace, pg_roles me
WHERE rolname = %s AND me.oid = ANY (polroles)
""")


@frozen(kw_only=True)
class Granted:
    """One privilege of a role on an object.

    Attributes:
        owner: The owner of the object.
        grantor: Who granted it: the owner, or a role with the grant option.
        target: The object as in GRANT: ``TABLE public.t``.
        privilege: The privilege.
        column: The column, or None.
        grantable: Whether the role may grant it to others.
    """

    owner: str
    grantor: str
    target: str
    privilege: str
    column: str | None
    grantable: bool


async def granted(names: Names, server: AsyncConnection[Any], role: str) -> list[Granted]:
    """Return the privileges of ``role`` on objects of the session's database, and on all databases."""
    found = []
    for owner, grantor, kind, identity, column, privilege, grantable in await run(names, server, _GRANTED, role):
        found.append(
            Granted(
                owner=owner,
                grantor=grantor,
                target=f"{_WORDS.get(kind, kind.upper())} {identity}",
                privilege=privilege,
                column=column,
                grantable=grantable,
            )
        )
    return found


async def policy_changes(names: Names, server: AsyncConnection[Any], role: str) -> list[tuple[str, Composed]]:
    """Return the statements that remove ``role`` from row security policies, each with the role to run it as."""
    changes = []
    for owner, schema, table, policy, others in await run(names, server, _POLICIES, role):
        where = SQL("{} ON {}").format(Identifier(policy), Identifier(schema, table))
        if others:
            roles = SQL(", ").join(map(Identifier, others))
            changes.append((owner, SQL("ALTER POLICY {} TO {}").format(where, roles)))
        else:
            changes.append((owner, SQL("DROP POLICY {}").format(where)))
    return changes


def revokes(role: str, privileges: list[Granted]) -> list[tuple[str, Composed]]:
    """Return the statements that revoke ``privileges`` of ``role``, each with the object's owner, to run it as.

    They also revoke what ``role`` granted to others.
    """
    wanted = {
        (each.owner, each.target, role if each.grantor == each.owner else each.grantor): None for each in privileges
    }
    statements = []
    for owner, target, whom in wanted:
        text = (
            "REVOKE ALL ON {} FROM {} CASCADE" if whom == role else "REVOKE GRANT OPTION FOR ALL ON {} FROM {} CASCADE"
        )
        statements.append((owner, SQL(text).format(quoted(target), Identifier(whom))))
    return statements
