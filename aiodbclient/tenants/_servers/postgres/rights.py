"""The rights of a tenant's database and roles on PostgreSQL: what they are, and the remedies for what is missing.

The administrator (the cluster's primary user) owns the database, so nobody else lets anybody in. A role without login,
the *owner role*, may create in it, and owns what is in it::

    CREATE DATABASE d TEMPLATE template0 ALLOW_CONNECTIONS false    closed: no other tenant may enter in between
    CREATE ROLE owner NOLOGIN
    REVOKE ALL ON DATABASE d FROM PUBLIC
    GRANT ALL ON DATABASE d TO owner                                from now on it is the tenant's, whatever its name
    ALTER DATABASE d ALLOW_CONNECTIONS true
    ALTER SCHEMA public OWNER TO owner                              in the database
    CREATE ROLE login LOGIN NOINHERIT ...                           a member of the owner role
    ALTER ROLE login SET role = 'owner'
    GRANT CONNECT ON DATABASE d TO login                            the last one

While the tenant is suspended, only the owner role has a right on the database: CREATE, without which nobody could tell
whose it is.

A *group*, a role without login, has the rights of readers or of writers, and their logins are its members:
``object_rights`` gives them.

``missing_database_rights`` compares them with what the server has: ``repair`` applies what it returns, and ``check``
reports it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import LiteralString

from attrs import frozen
from psycopg.sql import SQL, Composed, Identifier, Literal

from ..._naming import LIMITED_ROLES, Role
from ..._outcomes import Problem, ProblemKind
from .. import SHARE_OF_CONNECTIONS
from .connection import Session, Statement, as_role, verbatim

_CONNECTIONS = SQL("""
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
""")
# A database is the tenant's if its owner role, whose name has the digest, may create in it. ``create`` makes a closed
# one, on which nobody has a right yet. A privilege that a role may grant to others ends with "*".
_DATABASE = SQL("""
SELECT pg_get_userbyid(datdba), datallowconn,
  NOT datallowconn AND datacl IS NULL AND pg_get_userbyid(datdba) = current_user OR EXISTS (
    SELECT FROM aclexplode(datacl) WHERE pg_get_userbyid(grantee) = %(owner)s AND privilege_type = 'CREATE'),
  (SELECT coalesce(json_object_agg(name, privileges), '{}') FROM (
        SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END,
               json_agg(DISTINCT privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END)
        FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee <> datdba
        GROUP BY 1) AS granted (name, privileges))
FROM pg_database d WHERE datname = %(database)s AND datconnlimit <> -2
""")
# The statement that ends a membership.
REVOKE: LiteralString = """
'REVOKE ' || quote_ident(pg_get_userbyid(roleid)) || ' FROM ' || quote_ident(pg_get_userbyid(member))
|| CASE WHEN current_setting('server_version_num')::int < 160000 THEN ''
   ELSE ' GRANTED BY ' || quote_ident(pg_get_userbyid(grantor)) END
"""
# The memberships in a role, one for each who granted it. See GRANT in PostgreSQL's manual for the options.
_MEMBERS = SQL(f"""
SELECT pg_get_userbyid(member), {REVOKE}, admin_option,
       coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true), coalesce((to_jsonb(m) ->> 'set_option')::bool, true)
FROM pg_roles r LEFT JOIN pg_auth_members m ON roleid = r.oid WHERE rolname = %s
""")
# Those that have the name of a tenant's login. The bounds let the server use its index: it has some roles for each
# tenant, and compares a regular expression with all of them.
_LOGINS = SQL("""
SELECT rolname, rolcanlogin, rolinherit, rolconnlimit, EXISTS (
    SELECT FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = 0 AND %(setting)s = ANY (setconfig))
FROM pg_roles r WHERE rolname > %(stem)s AND rolname < %(stem)s || 'g' AND rolname ~ %(form)s
  OR rolname = ANY (%(wanted)s) ORDER BY 1
""")
# What the database has of ``Tenants(settings=)``. The server stores the name as it writes it, and the value as given.
_SETTINGS = SQL("""
SELECT lower(split_part(each, '=', 1)), substr(each, strpos(each, '=') + 1)
FROM pg_db_role_setting, unnest(setconfig) AS each
WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = %s)
""")
# The settings whose value is a list of quoted names, which a literal would quote again.
_LISTS = {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}
ALL: Sequence[LiteralString] = ("CREATE", "TEMPORARY", "CONNECT")
CONNECT: Sequence[LiteralString] = ("CONNECT",)
CREATE: Sequence[LiteralString] = ("CREATE",)  # of the owner role of a suspended tenant
START_AS = SQL("ALTER ROLE {} SET role = {}")
_NO_LIMIT = {-1, 0}  # of the connections of a login: none, and one with which it cannot enter


@frozen
class Remedy:
    """A statement that is missing, and the problems until it has run."""

    statement: Statement
    problems: Sequence[Problem] = (Problem(ProblemKind.RIGHTS_MISSING),)
    as_owner: bool = False  # run it as the owner role, not as the administrator
    needs: str = ""  # another role whose rights the administrator needs for it


@frozen
class Database:
    """The state of a tenant's database on the server."""

    owner: str
    allows_connections: bool  # whether it allows them
    is_ours: bool  # whether it is the tenant's
    privileges: dict[str, list[str]]  # of each role but its owner. PUBLIC is ""


@frozen
class Login:
    """A login of a role. Those of the owner that ``create_login`` made have NOINHERIT, an adopted one has not."""

    name: str
    can_log_in: bool
    inherits: bool
    limit: int
    starts_as_owner: bool


async def limit_of(session: Session) -> int:
    """Return the limit of a login. A tenth of the server's connections: one tenant with some logins cannot fill it."""
    if session.connection_limit is not None:
        return session.connection_limit
    [(connections,)] = await session.run(_CONNECTIONS)
    return max(2, int(connections * SHARE_OF_CONNECTIONS))


def grant_membership(session: Session, role: str, login: str, inherits: bool, sets: bool) -> Composed:
    """Make a login a member: the owner's logins act as their role after SET ROLE, others inherit."""
    options = SQL(" WITH INHERIT {}, SET {}").format(Literal(inherits), Literal(sets))
    return SQL("GRANT {} TO {}{}").format(
        Identifier(role), Identifier(login), options if session.knows_options else SQL("")
    )


def grant_on_database(session: Session, grantee: str, privileges: Iterable[LiteralString]) -> Composed:
    grant = SQL(f"GRANT {', '.join(privileges)} ON DATABASE {{}} TO {{}}")
    return grant.format(Identifier(session.names.database), Identifier(grantee))


def set_on_database(session: Session, name: str, value: str) -> Composed:
    return set_value(SQL("DATABASE {}").format(Identifier(session.names.database)), name, value)


def set_value(of: Composed, name: str, value: str) -> Composed:
    """Give a setting of a database or login a value, in one transaction."""
    change = SQL("ALTER {} SET {}").format(of, Identifier(*name.split(".")))
    if name.lower() not in _LISTS:
        return SQL("{} TO {}").format(change, Literal(value))
    # With its schema: an earlier one may be the ``search_path``.
    config = SQL("SELECT pg_catalog.set_config({}, {}, true)").format(Literal(name), Literal(value))
    return SQL("{}; {} FROM CURRENT").format(config, change)


async def find_database(session: Session) -> Database | None:
    """Read the tenant's database. One that is left of an interrupted DROP DATABASE is none."""
    rows = await session.run(_DATABASE, database=session.names.database, owner=session.names.owner)
    return Database(*rows[0]) if rows else None


async def read_database(session: Session) -> Database:
    """Read the tenant's database, or raise GrantError if it does not exist."""
    database = await find_database(session)
    if database is None:
        raise session.error(f"the database {session.names.database!r} does not exist")
    return database


def check_owner(session: Session, database: Database) -> None:
    """Raise GrantError for a database of which the administrator may not change the rights."""
    if database.owner != session.admin:
        raise session.error(
            f"the database {session.names.database!r} belongs to {database.owner!r}, not to the administrator "
            f"{session.admin!r}: run ALTER DATABASE {Identifier(session.names.database).as_string(None)} OWNER TO "
            f"{Identifier(session.admin).as_string(None)}"
        )


async def read_logins(session: Session, wanted: Collection[str] = ()) -> list[Login]:
    """Read all logins that have the form of the tenant's, also ended ones, and those that are ``wanted``."""
    names = session.names
    form = {"stem": names.stem, "form": names.login_pattern}
    found = await session.run(_LOGINS, **form, setting=f"role={names.owner}", wanted=[*wanted])
    return [Login(*row) for row in found]


async def apply_database_rights(session: Session, wanted: Mapping[str, Role] | None) -> None:
    """Apply what ``missing_database_rights`` returns."""
    await apply(session, await missing_database_rights(session, wanted, await read_logins(session, wanted or ())))


async def missing_database_rights(
    session: Session, wanted: Mapping[str, Role] | None, found: Sequence[Login]
) -> list[Remedy]:
    """From another database: return what the database, its roles and the ``wanted`` logins lack, and others have of it.

    ``wanted`` is None for a suspended tenant. ``found`` are the logins that ``read_logins`` returns.
    """
    names, is_locked_out, wanted = session.names, wanted is None, wanted or {}
    database = await read_database(session)
    unknown = [login.name for login in found if login.name not in wanted]
    logins = {role: [login for login in found if wanted.get(login.name) is role] for role in Role}
    groups = [role for role in LIMITED_ROLES if role in wanted.values()]
    remedies = await role_remedies(session, names.owner, logins[Role.OWNER], unknown)
    for role in groups:
        remedies += await role_remedies(session, names.group(role), logins[role], unknown)
    if database.owner != session.admin:
        own = SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(Identifier(names.database))
        remedies.append(Remedy(own, needs=database.owner))
    if is_locked_out:
        return [*remedies, *database_remedies(session, database, {names.owner: CREATE})]
    entering = [*map(names.group, groups), *[login.name for login in logins[Role.OWNER]]]
    rights = {names.owner: ALL, **dict.fromkeys(entering, CONNECT)}
    remedies += database_remedies(session, database, rights, [*names.groups, *unknown])
    for login in found:
        if login.name in wanted:
            remedies += await _login_remedies(session, login, wanted[login.name])
    if session.options.settings:
        has = dict(await session.run(_SETTINGS, names.database))
        for name, value in session.options.settings:
            if has.get(name.lower()) != value:
                change = set_on_database(session, name, value)
                remedies.append(Remedy(change, [Problem(ProblemKind.SETTING_DIFFERS, name)]))
    if not database.allows_connections:  # last, so that nobody enters before others are locked out
        opening = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(Identifier(names.database))
        remedies.append(Remedy(opening))
    return remedies


async def role_remedies(session: Session, role: str, logins: Sequence[Login], unknown: Collection[str]) -> list[Remedy]:
    """Return what is missing so that ``role`` exists, and has only these ``logins`` and ``unknown`` ones as members."""
    found = await session.run(_MEMBERS, role)
    remedies = [] if found else [Remedy(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)))]
    members = [row for row in found if row[0] is not None]
    for login in logins:
        options = {(may_inherit, may_set) for name, _, _, may_inherit, may_set in members if name == login.name}
        wanted = (login.inherits, not login.inherits or role == session.names.owner)
        if not options or (session.knows_options and options != {wanted}):
            remedies.append(Remedy(grant_membership(session, role, login.name, *wanted)))
    keep = {session.admin, *unknown, *[login.name for login in logins]}
    for name, revoke, may_admin, *_ in members:
        if not may_admin and name not in keep:
            remedies.append(Remedy(verbatim(revoke), [Problem(ProblemKind.OPEN_TO_OTHERS, name)]))
    return remedies


async def _login_remedies(session: Session, login: Login, role: Role) -> list[Remedy]:
    if role is Role.OWNER and login.inherits:  # an adopted one goes on as it is
        return []
    remedies = list[Remedy]()
    if role is Role.OWNER and not login.starts_as_owner:  # an older server wants the administrator to be a member
        start = START_AS.format(Identifier(login.name), Literal(session.names.owner))
        remedies.append(Remedy(start, needs="" if session.knows_options else session.names.owner))
    if login.limit in _NO_LIMIT or session.connection_limit not in {None, login.limit}:
        change = SQL("ALTER ROLE {} CONNECTION LIMIT {}")
        remedies.append(Remedy(change.format(Identifier(login.name), Literal(await limit_of(session)))))
    return remedies


def database_remedies(
    session: Session,
    database: Database,
    rights: Mapping[str, Sequence[LiteralString]],
    may_connect: Collection[str] = (),
) -> Iterator[Remedy]:
    """Yield what is missing so that these roles have these ``rights`` on the database, and others none."""
    allowed = {session.admin: ALL, database.owner: ALL, **dict.fromkeys(may_connect, CONNECT), **rights}
    too_much = sorted([who for who, has in database.privileges.items() if not {*has} <= {*allowed.get(who, ())}])
    if too_much:  # one statement, however many they are
        revoke, of = SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE"), SQL(", ")
        roles = of.join(Identifier(each) if each else SQL("PUBLIC") for each in too_much)
        problems = [Problem(ProblemKind.OPEN_TO_OTHERS, each or "PUBLIC") for each in too_much]
        yield Remedy(revoke.format(Identifier(session.names.database), roles), problems)
    for who, wanted in rights.items():
        lacks = not {*wanted} <= {*database.privileges.get(who, ())}
        if lacks or who in too_much:
            missing = [Problem(ProblemKind.RIGHTS_MISSING)] if lacks and who not in too_much else []
            yield Remedy(grant_on_database(session, who, wanted), missing)


async def apply(session: Session, remedies: Sequence[Remedy]) -> None:
    """Run the statements in one transaction: those of the administrator, then those of the owner role."""
    if not remedies:
        return
    owner = session.names.owner
    statements: list[Statement] = [each.statement for each in remedies if not each.as_owner]
    joins = {each.needs for each in remedies if each.needs}
    if as_owner := [each.statement for each in remedies if each.as_owner]:
        statements += as_role(owner, *as_owner)
        joins.add(owner)
    await session.run_with(joins, *statements)
