"""The missing statements that give a tenant's logins their rights on PostgreSQL.

A role without login owns the database, and the owner's logins start as that role. As the administrator (the cluster's
primary user: LOGIN, CREATEDB, CREATEROLE, no superuser), from its own database::

    CREATE ROLE owner NOLOGIN
    GRANT owner TO CURRENT_USER WITH INHERIT FALSE, SET TRUE    without WITH before PostgreSQL 16
    GRANT owner TO login WITH INHERIT FALSE, SET TRUE           so it cannot change the owner of the database
    ALTER DATABASE d OWNER TO owner
    SET ROLE owner
    REVOKE ALL ON DATABASE d FROM PUBLIC                        and from all others
    GRANT CONNECT ON DATABASE d TO login, CURRENT_USER          because neither inherits the owner's rights

and as the login, in its database::

    ALTER ROLE CURRENT_USER SET role = 'owner'                  only the login may do this, because the API made it
    REASSIGN OWNED BY CURRENT_USER TO owner                     objects that it made before it got the owner role

A role, the *group*, has the rights of the readers or writers, and their logins are its members. In the tenant's
database, as the owner role, on each object of the owner::

    GRANT USAGE ON SCHEMA s TO reader
    GRANT SELECT ON t TO reader
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader   for future objects

Each statement runs only if it changes something. So ``give`` can be repeated even if a session locks the row of the
database. The administrator's session never runs code of a tenant: ``search_path`` is ``pg_catalog``, and GRANT calls no
functions of users.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import LiteralString

from attrs import field, frozen
from psycopg.sql import SQL, Composed, Identifier, Literal

from .._outcomes import Problem
from .postgres_objects import in_parts
from .postgres_sessions import Session, quoted
from .rights import RIGHTS

PUBLIC = ""  # no role can have this name

# Settings of its database with which a tenant could prevent logins or writes. Its other settings stay.
_HOSTILE = frozenset(
    {"role", "session_authorization", "default_transaction_read_only", "local_preload_libraries", "transaction_timeout"}
)
_ALL = frozenset({"CREATE", "TEMPORARY", "CONNECT"})

_DATABASE = SQL("""
SELECT pg_get_userbyid(datdba), datallowconn, datistemplate, datconnlimit,
       ARRAY(SELECT split_part(setting, '=', 1) FROM pg_db_role_setting, unnest(setconfig) AS setting
             WHERE setrole = 0 AND setdatabase = d.oid),
       greatest(1, current_setting('max_connections')::int / 2)
FROM pg_database d WHERE datname = %s
""")
_PRIVILEGES = SQL("""
SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE datname = %s
""")
_MEMBERS = SQL("""
SELECT pg_get_userbyid(member), pg_get_userbyid(grantor), admin_option, {inherit}, {set}
FROM pg_roles r LEFT JOIN pg_auth_members ON roleid = r.oid WHERE rolname = %s
""")


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
SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace, pg_roles g
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
OPEN_SCHEMAS = SQL("""
SELECT nspname, pg_get_userbyid(nspowner) IN (%s, 'pg_database_owner') FROM pg_namespace
WHERE nspname !~ '^pg_' AND EXISTS (
    SELECT FROM aclexplode(nspacl) WHERE grantee = 0 AND privilege_type = 'CREATE') ORDER BY oid
""")


@frozen
class Step:
    """A missing statement, and the problem until it has run."""

    statement: Composed
    problem: Problem = Problem.RIGHTS_MISSING
    as_owner: bool = False  # run it as the owner role, not as the administrator
    of_login: bool = False  # it concerns only one of the tenant's own logins


@frozen(kw_only=True)
class Database:
    """The state of a tenant's database on the server."""

    owner: str
    connections: bool  # whether it allows them
    template: bool  # then it cannot be dropped
    limit: int  # of its connections; -1 for none
    settings: frozenset[str]  # their names
    half: int  # of the connections that the server takes
    privileges: dict[str, set[str]] = field(factory=dict)  # of each role. ``PUBLIC`` means all roles
    granting: set[str] = field(factory=set)  # the roles that may grant a privilege to others


@frozen
class Member:
    """One membership in a role, as ``grantor`` gave it. See GRANT in PostgreSQL's manual for its options."""

    name: str
    grantor: str
    admin: bool
    inherit: bool
    set: bool


async def has_database(session: Session) -> bool:
    """Whether the tenant's database exists, and is not left of an interrupted ``DROP DATABASE``."""
    valid = SQL("SELECT FROM pg_database WHERE datname = %s AND datconnlimit <> -2")
    return bool(await session.run(valid, session.names.database))


async def read_database(session: Session) -> Database:
    """Read the tenant's database. Raises GrantError if it does not exist."""
    names = session.names
    rows = await session.run(_DATABASE, names.database)
    if not rows:
        raise session.error(f"the database {names.database!r} does not exist")
    owner, connections, template, limit, settings, half = rows[0]
    database = Database(
        owner=owner, connections=connections, template=template, limit=limit, settings=frozenset(settings), half=half
    )
    for grantee, privilege, grantable in await session.run(_PRIVILEGES, names.database):
        database.privileges.setdefault(grantee, set()).add(privilege)
        if grantable and grantee != owner:
            database.granting.add(grantee)
    return database


async def members(session: Session, role: str) -> list[Member] | None:
    """Read the members of ``role``; None if there is no such role."""
    columns = ("inherit_option", "set_option") if session.knows_options else ("true", "true")
    query = _MEMBERS.format(inherit=SQL(columns[0]), set=SQL(columns[1]))
    rows = await session.run(query, role)
    if not rows:
        return None
    return [
        Member(name, *rest)
        for name, *rest in rows
        if name is not None  # it has no members
    ]


async def lacking(session: Session, usernames: Sequence[str], limit: int | None, *, ended: str = "") -> list[Step]:
    """Return the missing statements for the database, the owner role and these logins. Changes nothing.

    A login that was ``ended`` gets none, and loses what it has. In their order a login may connect before it stops
    inheriting, so no program is refused in between.
    """
    names = session.names
    database, present = await read_database(session), await members(session, names.owner)
    keep = {*names.owner_logins} - {ended}
    member = list(membership_steps(session, names.owner, present, usernames, keep=keep))
    if database.owner in usernames and session.knows_options:  # only that login can give it back, when it logs in
        return [*member, inherit_step(session, database.owner)]
    return [
        *(step for step in member if not step.of_login),
        *_database_steps(session, database, usernames, limit, keep),
        *(step for step in member if step.of_login),
    ]


def membership_steps(
    session: Session,
    role: str,
    present: list[Member] | None,
    usernames: Sequence[str],
    *,
    inherit: bool = False,
    keep: Collection[str] = (),
) -> Iterator[Step]:
    """Yield the missing statements so that ``role`` exists, and the administrator and only these logins are members.

    ``present`` are its members, None if it does not exist. The logins in ``keep`` may be members. With ``inherit`` the
    logins have its rights in every session, otherwise after ``SET ROLE``.
    """
    admin, options = session.login, session.knows_options
    if present is None:
        yield Step(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)))
    wanted = {admin: (False, True)} | dict.fromkeys(usernames, (inherit, not inherit))
    for name, (inherits, sets) in wanted.items():
        found = [member for member in present or () if member.name == name]
        has = (any(member.inherit for member in found), any(member.set for member in found))
        if has != (inherits, sets) and (options or not found):
            chosen = SQL(" WITH INHERIT {}, SET {}").format(Literal(inherits), Literal(sets))
            grant = SQL("GRANT {} TO {}{}").format(Identifier(role), Identifier(name), chosen if options else SQL(""))
            yield Step(grant, of_login=name != admin)
    for member in present or ():
        if not member.admin and member.name not in {*wanted, *keep}:
            yield Step(revoke_membership(session, role, member.name, member.grantor), Problem.OPEN_TO_OTHERS)


def revoke_membership(session: Session, role: str, member: str, grantor: str) -> Composed:
    by = SQL(" GRANTED BY {}").format(Identifier(grantor)) if session.knows_options else SQL("")
    return SQL("REVOKE {} FROM {}{}").format(Identifier(role), Identifier(member), by)


def inherit_step(session: Session, username: str) -> Step:
    """Return the step that lets a login inherit the owner's rights, until the next ``give``."""
    text = "GRANT {} TO {}" + (" WITH INHERIT TRUE" if session.knows_options else "")
    return Step(SQL(text).format(Identifier(session.names.owner), Identifier(username)))


async def lacking_outside(session: Session, usernames: Sequence[str], *, ended: str = "") -> list[Step]:
    """Return the missing statements for the group and its logins, as seen from the administrator's database."""
    names = session.names
    database, present = await read_database(session), await members(session, names.group)
    name, group = Identifier(names.database or ""), Identifier(names.group)
    keep = {*names.logins} - {ended}
    steps = list(membership_steps(session, names.group, present, usernames, inherit=True, keep=keep))
    privileges = database.privileges.get(names.group, set())
    if privileges - {"CONNECT"}:
        steps.append(Step(SQL("REVOKE ALL ON DATABASE {} FROM {}").format(name, group), as_owner=True))
    if privileges != {"CONNECT"}:
        steps.append(Step(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, group), as_owner=True))
    return steps


async def lacking_inside(session: Session) -> list[Step]:
    """Return the missing statements for the objects in the tenant's database. The session is in that database."""
    steps, names = [], session.names
    for schema, is_ours in await session.run(OPEN_SCHEMAS, names.owner):
        if is_ours:
            revoke = SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(Identifier(schema))
            steps.append(Step(revoke, as_owner=True))
    group = Identifier(names.group)
    defaults = {tuple(row) for row in await session.run(_DEFAULTS, names.owner, names.group)}
    for kind in _KINDS:
        privileges = RIGHTS[names.role].postgresql.get(kind.word)
        if privileges is None:
            continue
        lacks = SQL(" OR ").join(SQL(kind.lacks.format(privilege=privilege)) for privilege in privileges)
        rows = await session.run(SQL(kind.query).format(lacks=lacks), names.owner, names.group)
        wanted = ", ".join(privileges)
        for objects in in_parts([name for (name,) in rows]):
            grant = SQL(f"GRANT {wanted} ON {kind.word} {{}} TO {{}}").format(objects, group)
            steps.append(Step(grant, as_owner=True))
        if not {(kind.letter, privilege) for privilege in privileges} <= defaults:
            grant = SQL(f"ALTER DEFAULT PRIVILEGES GRANT {wanted} ON {kind.word}S TO {{}}").format(group)
            steps.append(Step(grant, as_owner=True))
    return steps


def _database_steps(
    session: Session, database: Database, usernames: Sequence[str], limit: int | None, keep: set[str]
) -> Iterator[Step]:
    names = session.names
    name, owner, admin = Identifier(names.database or ""), Identifier(names.owner), session.login
    if database.owner != names.owner:
        # Before PostgreSQL 16 a login can take it.
        stolen = Identifier(database.owner) if database.owner in names.owner_logins else None
        if stolen:
            yield Step(SQL("GRANT {} TO CURRENT_USER").format(stolen))
        yield Step(SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner))
        if stolen:
            yield Step(SQL("REVOKE {} FROM CURRENT_USER").format(stolen))
    changes = [SQL("RESET {}").format(Identifier(setting)) for setting in database.settings & _HOSTILE]
    if database.template:
        changes.append(SQL("IS_TEMPLATE false").format())
    if not database.connections:
        changes.append(SQL("ALLOW_CONNECTIONS true").format())
    for change in changes:
        yield Step(SQL("ALTER DATABASE {} {}").format(name, change), as_owner=True)

    # Without a limit of ours, a lower one may be meant. 0 keeps everybody out.
    if database.limit != limit if limit else not 0 < database.limit <= database.half:
        change = SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, Literal(limit or database.half))
        yield Step(change, as_owner=True)
    if not database.privileges.get(names.owner, set()) >= _ALL and database.owner == names.owner:
        yield Step(SQL("GRANT ALL ON DATABASE {} TO {}").format(name, owner), as_owner=True)
    for member in (*usernames, admin):
        if "CONNECT" not in database.privileges.get(member, ()) or member == database.owner:
            grant = SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, Identifier(member))
            yield Step(grant, as_owner=True, of_login=member != admin)
    # Last, so that the administrator can still connect if the process is killed in between.
    yield from closing_steps(database, name, {database.owner, names.owner, admin, *keep, *names.groups})


def closing_steps(database: Database, name: Identifier, keep: set[str]) -> Iterator[Step]:
    """Yield the missing statements so that only ``keep`` has privileges on the database, and no role may grant them."""
    others = set(database.privileges) - keep
    for what, grantees in (("GRANT OPTION FOR ALL", database.granting), ("ALL", others)):
        if grantees:
            whom = SQL(", ").join(map(_grantee, sorted(grantees)))
            text = f"REVOKE {what} ON DATABASE {{}} FROM {{}} CASCADE"
            yield Step(quoted(text).format(name, whom), Problem.OPEN_TO_OTHERS, as_owner=True)


def _grantee(name: str) -> Composed:
    return SQL("{}").format(Identifier(name) if name != PUBLIC else SQL("PUBLIC"))


async def take(session: Session, steps: Sequence[Step]) -> None:
    """Run ``steps`` in order."""
    acting = False
    for step in steps:
        if step.as_owner and not acting:
            await session.become(session.names.owner)
        elif acting and not step.as_owner:
            await session.reset_role()
        acting = step.as_owner
        await session.run(step.statement)
    if acting:
        await session.reset_role()
