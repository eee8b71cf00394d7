"""What a PostgreSQL role owns in a database, and its privileges on the objects of other roles.

``REASSIGN OWNED`` gives away databases too, and locks all objects at once: 30,000 need more memory for locks than a
server has. So ``hand_over`` gives away each object by a statement of its own. None of these statements runs code of a
tenant.

``DROP OWNED BY`` revokes privileges only if the session has the rights of each object's owner. So ``revoke_all``
revokes each privilege as the owner of the object.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from itertools import groupby
from typing import LiteralString

from attrs import frozen
from psycopg.sql import SQL, Composed, Identifier

from ....errors import GrantError
from .sessions import BlockedError, Session, Statement, quoted

_AT_ONCE = 500  # how many objects one statement names, or one transaction alters
_MOST_BLOCKED = 5  # statements that wait for a lock
_READ = 10_000  # how many objects to read at once
_UNLINKED = 1_000  # large objects at once: each takes a lock, and a server has some thousands

# What a role owns and no statement gives away, and what runs no code as its owner.
HARMLESS: LiteralString = "('pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_extension'::regclass)"
# Who owns what in each database: ``pg_shdepend`` is shared. The server's own objects are not in it.
_OWNERS = SQL(f"""
SELECT DISTINCT rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = refobjid
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s) AND refclassid = 'pg_authid'::regclass AND deptype = 'o'
  AND classid NOT IN {HARMLESS} AND (NOT rolsuper OR rolname = current_user) AND rolname !~ '^pg_' ORDER BY 1
""")
# The quoted name of an object. Without its modes, the procedure ``p(int, int)`` is also ``p(IN int, OUT int)``.
_NAME: LiteralString = """
CASE i.type WHEN 'procedure' THEN (
    SELECT format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE p.oid = objid) ELSE i.identity END
"""
# A sequence follows the table that has it as a column. Schemas first, so that the new owner may create in them.
_OWNED = SQL(f"""
SELECT i.type, {_NAME} FROM (
    SELECT classid, objid, objsubid FROM pg_shdepend s
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
      AND deptype = 'o' AND classid NOT IN {HARMLESS} AND NOT EXISTS (
        SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE relkind = 'S' AND d.objid = s.objid
        AND d.classid = s.classid AND d.classid = 'pg_class'::regclass AND d.refclassid = d.classid
        AND d.deptype IN ('a', 'i'))
    ORDER BY classid <> 'pg_namespace'::regclass, classid, objid LIMIT %s) AS owned,
    pg_identify_object(classid, objid, objsubid) i
WHERE i.identity IS NOT NULL
""")
# Extensions have no ALTER ... OWNER. ``REASSIGN OWNED`` takes what a role owns of the whole server with it.
_ONLY_EXTENSIONS = SQL("""
SELECT bool_or(dbid <> 0 AND classid = 'pg_extension'::regclass
               AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())) AND bool_and(dbid <> 0)
FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o'
  AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
""")
# The new owner of an object needs CREATE in its schema, and a tenant may revoke that from its own role.
_CLOSED_SCHEMAS = SQL("""
SELECT nspname FROM pg_namespace n, pg_roles r WHERE rolname = %s AND nspname !~ '^pg_'
  AND (nspowner = r.oid OR pg_get_userbyid(nspowner) = 'pg_database_owner')
  AND NOT has_schema_privilege(r.oid, n.oid, 'CREATE')
""")
_UNLINK = SQL("""
SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata
    WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = %s) LIMIT %s) AS few
""")

# Every catalog with privileges, in the current database or shared. Only superusers can grant those of parameters and
# tablespaces, so they are not here.
_GRANTED = SQL(f"""
WITH here (role, datdba) AS (
    SELECT 'pg_database_owner'::regrole::oid, datdba FROM pg_database WHERE datname = current_database()
), objects (class, objid, attnum, owner, acl) AS (
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
SELECT DISTINCT pg_get_userbyid(coalesce(here.datdba, o.owner)), pg_get_userbyid(coalesce(g.datdba, a.grantor)), i.type,
       {_NAME} AS name
FROM pg_roles me, objects o LEFT JOIN here ON here.role = o.owner,
     aclexplode(o.acl) a LEFT JOIN here g ON g.role = a.grantor,
     pg_identify_object(o.class::regclass, o.objid, 0) i
WHERE me.rolname = %s AND me.oid IN (a.grantee, a.grantor) AND o.owner NOT IN (a.grantee, me.oid)
ORDER BY 1, 2, 3, 4
""")
_WORDS: dict[str, str] = {
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
# The words of ALTER, where GRANT has no such kind or another word.
_ALTERED: dict[str, str] = {
    "sequence": "TABLE",
    "server": "SERVER",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "statistics object": "STATISTICS",
}
_POLICIES = SQL("""
SELECT pg_get_userbyid(relowner), nspname, relname, polname, ARRAY(
    SELECT pg_get_userbyid(other) FROM unnest(polroles) AS other WHERE other <> me.oid)
FROM pg_policy JOIN pg_class c ON c.oid = polrelid JOIN pg_namespace n ON n.oid = relnamespace, pg_roles me
WHERE rolname = %s AND me.oid = ANY (polroles) ORDER BY 1
""")


@frozen
class _Granted:
    """A privilege that a role has on an object of another, or passed on."""

    owner: str
    grantor: str
    kind: str  # the word of GRANT
    identity: str  # the quoted name


def in_parts(identities: Sequence[str]) -> Iterator[Composed]:
    """Yield lists of quoted names for a statement, each as long as one may be."""
    for start in range(0, len(identities), _AT_ONCE):
        yield SQL(", ").join(map(quoted, identities[start : start + _AT_ONCE]))


async def owners(session: Session) -> list[str]:
    """Return the roles that own something in the tenant's database, seen from any database."""
    return [name for (name,) in await session.run(_OWNERS, session.names.database)]


async def hand_over(session: Session, role: str) -> None:
    """In the tenant's database: make the owner role the owner of what ``role`` owns.

    Raises GrantError if something was refused. What was given away stays so.
    """
    names = session.names
    members = {names.owner} if role == session.admin else {names.owner, role}
    while rows := await session.run(_OWNED, role, _READ):
        schemas = [kind == "schema" for kind, _ in rows].count(True)
        for few in (rows[:schemas], rows[schemas:]):
            if few:
                await _open_schemas(session)
            statements = [_alter(kind, identity, Identifier(names.owner)) for kind, identity in few]
            for start in range(0, len(statements), _AT_ONCE):
                await _each(session, partial(session.member_of, *members), statements[start : start + _AT_ONCE])
    if role != session.admin and await session.run(_ONLY_EXTENSIONS, role) == [(True,)]:
        async with session.member_of(*members):
            reassign = SQL("REASSIGN OWNED BY {} TO {}")
            await session.run(reassign.format(Identifier(role), Identifier(names.owner)))


async def drop_owned(session: Session, role: str) -> None:
    """Drop what ``role`` owns in the session's database, and what it has there of others."""
    for _ in range(_READ):  # ten million large objects
        async with session.acting(role):
            if await session.run(_UNLINK, role, _UNLINKED) == [(0,)]:
                break
    await revoke_all(session, role)
    async with session.acting(role):
        await session.run(SQL("DROP OWNED BY CURRENT_USER"))


async def _each(
    session: Session, enter: Callable[[], AbstractAsyncContextManager[None]], statements: Sequence[Statement]
) -> None:
    """Run the statements in one transaction or, if one is refused, each. Raises the first refusal at the end.

    Others can lock what some of them need, and each of these takes a second: after ``_MOST_BLOCKED`` it ends.
    """
    with suppress(GrantError):
        async with enter():
            await session.run_all(*statements)
        return
    refused, blocked = None, 0
    for statement in statements:
        try:
            async with enter():
                await session.run(statement)
        except GrantError as error:
            refused, blocked = refused or error, blocked + isinstance(error, BlockedError)
        if blocked == _MOST_BLOCKED:
            break
    if refused is not None:
        raise refused


def _alter(kind: str, identity: str, owner: Identifier) -> Composed:
    word = _ALTERED.get(kind) or _WORDS.get(kind, kind.upper())
    return quoted(f"ALTER {word} {{}} OWNER TO {{}}").format(quoted(identity), owner)


async def _open_schemas(session: Session) -> None:
    owner = session.names.owner
    if closed := await session.run(_CLOSED_SCHEMAS, owner):
        text = SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}")
        async with session.acting(owner):
            await session.run_all(*(text.format(Identifier(schema), Identifier(owner)) for (schema,) in closed))


async def revoke_all(session: Session, role: str) -> None:
    """Revoke the privileges of ``role`` in this database, what it granted to others, and remove it from policies.

    Some may only be revoked by a superuser. They stay.
    """
    changes = [*_revokes(role, await _granted(session, role))] + [one async for one in _policy_changes(session, role)]
    for owner, of_owner in groupby(changes, key=lambda change: change[0]):
        with suppress(GrantError):
            statements = [statement for _, statement in of_owner]
            if owner == session.admin:
                await session.run_all(*statements)
            else:
                await _each(session, partial(session.acting, owner), statements)


async def _granted(session: Session, role: str) -> list[_Granted]:
    """Return the privileges of ``role`` on objects of the session's database, and on all databases."""
    return [
        _Granted(owner, grantor, _WORDS.get(kind, str(kind).upper()), *rest)
        for owner, grantor, kind, *rest in await session.run(_GRANTED, role)
    ]


async def _policy_changes(session: Session, role: str) -> AsyncGenerator[tuple[str, Composed]]:
    for owner, schema, table, policy, others in await session.run(_POLICIES, role):
        where = SQL("{} ON {}").format(Identifier(policy), Identifier(schema, table))
        if others:
            roles = SQL(", ").join(map(Identifier, others))
            yield owner, SQL("ALTER POLICY {} TO {}").format(where, roles)
        else:
            yield owner, SQL("DROP POLICY {}").format(where)


def _revokes(role: str, privileges: list[_Granted]) -> Iterator[tuple[str, Composed]]:
    """Yield the statements for many objects each, and the owner of the objects, to run each as."""
    wanted = sorted(
        {
            (each.owner, role if each.grantor in (each.owner, role) else each.grantor, each.kind, each.identity)
            for each in privileges
        }
    )
    for (owner, whom, kind), of_kind in groupby(wanted, key=lambda each: each[:3]):
        what = "ALL" if whom == role else "GRANT OPTION FOR ALL"
        for objects in in_parts([identity for *_, identity in of_kind]):
            text = quoted(f"REVOKE {what} ON {kind} {{}} FROM {{}} CASCADE")
            yield owner, text.format(objects, Identifier(whom))
