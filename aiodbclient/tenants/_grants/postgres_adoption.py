"""Transfer the rights of an adopted login to the owner role on PostgreSQL. Its sessions will start as that role."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from typing import LiteralString

from psycopg.sql import SQL, Composed, Identifier, Literal

from .._naming import OF_A_GROUP
from .postgres_objects import POLICIES, Granted, granted
from .postgres_rights import members, membership_steps, read_database, take
from .postgres_sessions import Session, quoted

_ATTRIBUTES = SQL("""
SELECT name FROM pg_roles, LATERAL (
    VALUES ('SUPERUSER', rolsuper), ('CREATEDB', rolcreatedb), ('CREATEROLE', rolcreaterole),
           ('REPLICATION', rolreplication), ('BYPASSRLS', rolbypassrls)) AS attributes (name, has)
WHERE rolname = %s AND has
""")
# The databases in which the login owns something or has rights.
_ELSEWHERE = SQL("""
SELECT DISTINCT coalesce(here.datname, shared.datname) FROM pg_shdepend s
LEFT JOIN pg_database here ON here.oid = dbid
LEFT JOIN pg_database shared ON s.classid = 'pg_database'::regclass AND shared.oid = s.objid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
""")
_MEMBER_OF = SQL("""
SELECT pg_get_userbyid(roleid), pg_has_role(roleid, 'MEMBER WITH ADMIN OPTION') OR NOT {options}
FROM pg_auth_members WHERE pg_get_userbyid(member) = %s
""")
_DEFAULTS = SQL("""
SELECT pg_get_userbyid(defaclrole), nspname, defaclobjtype::text, privilege_type
FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace, aclexplode(defaclacl)
WHERE pg_get_userbyid(grantee) = %s AND pg_get_userbyid(defaclrole) <> pg_get_userbyid(grantee)
""")
_KINDS: dict[str, LiteralString] = {
    "r": "TABLES",
    "S": "SEQUENCES",
    "f": "ROUTINES",
    "T": "TYPES",
    "n": "SCHEMAS",
    "L": "LARGE OBJECTS",
}
_MAY_BECOME = SQL("SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = %s")
_USERS = SQL("""
SELECT rolname FROM pg_roles r
WHERE rolcanlogin AND NOT rolsuper AND rolname <> current_user AND has_database_privilege(oid, %s, 'CONNECT')
  AND NOT EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid
                  AND pg_get_userbyid(roleid) ~ %s AND pg_get_userbyid(roleid) <> ALL (%s))
ORDER BY rolname
""")


async def shut_out(session: Session, keep: Collection[str]) -> tuple[str, ...]:
    """Return the logins that may enter the database now, except those in ``keep`` and of other tenants."""
    await read_database(session)
    own = [session.names.owner, *session.names.groups]
    users = await session.run(_USERS, session.names.database, OF_A_GROUP, own)
    return tuple(name for (name,) in users if name not in keep)


async def carry_over(session: Session, username: str, keep: Collection[str]) -> None:
    """As the administrator, in the tenant's database: give the owner role all rights of ``username``, or refuse it."""
    names = session.names
    owner = Identifier(names.owner)
    privileges = [each for each in await granted(session, username) if each.kind != "DATABASE"]
    # Before PostgreSQL 16, CREATEROLE allows granting any role.
    roles = await session.run(_MEMBER_OF.format(options=Literal(session.knows_options)), username)
    defaults = await session.run(_DEFAULTS, username)
    reasons = [reason async for reason in _obstacles(session, username)]
    for role, may_grant in roles:
        if not may_grant and role != names.owner:
            reasons.append(f"it is a member of {role!r}, which the administrator cannot grant")
    for role in {each.owner for each in privileges} | {role for role, *_ in defaults}:
        ((may_become,),) = await session.run(_MAY_BECOME, role)
        if not may_become and role != username:
            reasons.append(f"it has privileges on objects of {role!r}, which the administrator cannot grant")
    if reasons:
        raise session.error(
            f"the login {username!r} cannot be adopted without losing rights: {'; '.join(reasons)}; nothing was "
            "changed",
        )

    await _shut_out_family(session, {username, *keep})
    for role, _ in roles:
        if role != names.owner:
            await session.run(SQL("GRANT {} TO {}").format(Identifier(role), owner))
    for each in privileges:
        await session.become(each.owner)
        await session.run(_grant(each, owner))
    for role, schema, kind, privilege in defaults:
        await session.become(role)
        within = SQL("IN SCHEMA {} ").format(Identifier(schema)) if schema is not None else SQL("")
        text = SQL("ALTER DEFAULT PRIVILEGES {}GRANT {} ON {} TO {}")
        await session.run(text.format(within, quoted(privilege), SQL(_KINDS[kind]), owner))
    await session.reset_role()


async def _shut_out_family(session: Session, keep: set[str]) -> None:
    """Take the rights of the tenant's other logins, which are on no record: somebody may know their passwords."""
    names = session.names
    for role in (names.owner, *names.groups):
        present = await members(session, role)
        if present is not None or role == names.owner:
            await take(session, list(membership_steps(session, role, present, (), keep=keep)))
    database = await read_database(session)
    await session.become(database.owner)
    for login in names.family & set(database.privileges) - keep:
        revoke = SQL("REVOKE ALL ON DATABASE {} FROM {}")
        await session.run(revoke.format(Identifier(names.database or ""), Identifier(login)))
    await session.reset_role()


async def _obstacles(session: Session, username: str) -> AsyncGenerator[str]:
    """Yield the rights of the login that the administrator cannot give to another role."""
    for (attribute,) in await session.run(_ATTRIBUTES, username):
        yield f"it has {attribute}"
    names, database = session.names, await read_database(session)
    ((may_become,),) = await session.run(_MAY_BECOME, database.owner)
    if not may_become:
        yield f"the database belongs to {database.owner!r}, which the administrator cannot become"
    for (elsewhere,) in await session.run(_ELSEWHERE, username):
        if elsewhere is not None and elsewhere != names.database:
            yield f"it owns something or has rights in the database {elsewhere!r}"
    for policy in sorted({name for _, _, _, name, _ in await session.run(POLICIES, username)}):
        yield f"the row security policy {policy!r} names it"


def _grant(granted: Granted, owner: Identifier) -> Composed:
    privilege = quoted(granted.privilege).format()
    if granted.column is not None:
        privilege = SQL("{} ({})").format(privilege, Identifier(granted.column))
    text = "GRANT {} ON {} TO {}" + (" WITH GRANT OPTION" if granted.grantable else "")
    return SQL(text).format(privilege, quoted(f"{granted.kind} {granted.identity}"), owner)
