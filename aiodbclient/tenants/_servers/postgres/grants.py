"""The rights of a tenant's database and roles on PostgreSQL: what they are, and the steps that are missing.

A role without login, the *owner role*, owns the database. As the administrator (the cluster's primary user)::

    CREATE ROLE owner NOLOGIN
    CREATE DATABASE d TEMPLATE template0 ALLOW_CONNECTIONS false    closed: no other tenant may enter in between
    ALTER DATABASE d OWNER TO owner
    REVOKE ALL ON DATABASE d FROM PUBLIC                            as the owner role, and from all others
    GRANT CONNECT ON DATABASE d TO CURRENT_USER                     because it does not inherit the owner's rights
    ALTER DATABASE d ALLOW_CONNECTIONS true
    CREATE ROLE login LOGIN NOINHERIT ...                           a member of the owner role
    ALTER ROLE login SET role = 'owner'
    GRANT CONNECT ON DATABASE d TO login                            the last one

A *group*, a role without login, has the rights of readers or of writers, and their logins are its members. In the
tenant's database, as the owner role, on each object of the owner::

    GRANT USAGE ON SCHEMA s TO reader
    GRANT SELECT ON t TO reader
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader       for future objects

``missing_grants`` and ``missing_grants_inside`` return what is missing: ``repair`` runs it, ``problems`` reports it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import LiteralString

from attrs import frozen
from psycopg.sql import SQL, Composed, Identifier, Literal

from ..._naming import ROLES, Role
from ..._outcomes import Problem, ProblemKind
from .. import SHARE_OF_CONNECTIONS
from .sessions import Session, Statement, as_role, verbatim

CONNECTIONS: LiteralString = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
"""
# What is to be altered are settings with which a tenant could prevent logins, writes or the drop of its database. Its
# others stay, such as a limit of connections below the server's.
_DATABASE = SQL("""
SELECT pg_get_userbyid(datdba), datallowconn,
       ARRAY(SELECT format('RESET %%I', name)
             FROM pg_db_role_setting, unnest(setconfig) AS setting, split_part(setting, '=', 1) AS name
             WHERE setrole = 0 AND setdatabase = d.oid AND name IN ('role', 'session_authorization',
                   'default_transaction_read_only', 'local_preload_libraries', 'transaction_timeout') ORDER BY 1)
       || ARRAY(SELECT 'IS_TEMPLATE false' WHERE datistemplate)
       || ARRAY(SELECT 'CONNECTION LIMIT -1' WHERE datconnlimit = 0),
       (SELECT coalesce(json_object_agg(name, privileges), '{}') FROM (
            SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, json_agg(DISTINCT privilege_type)
            FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) GROUP BY 1) AS granted (name, privileges)),
       ARRAY(SELECT DISTINCT pg_get_userbyid(grantee)::text FROM aclexplode(datacl)
             WHERE is_grantable AND grantee <> datdba)
FROM pg_database d WHERE datname = %s AND datconnlimit <> -2
""")
# The memberships in a role, one for each who granted it. See GRANT in PostgreSQL's manual for the options.
_MEMBERS = SQL("""
SELECT pg_get_userbyid(member), pg_get_userbyid(grantor), admin_option,
       coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true), coalesce((to_jsonb(m) ->> 'set_option')::bool, true)
FROM pg_roles r LEFT JOIN pg_auth_members m ON roleid = r.oid WHERE rolname = %s
""")
# Whether a role has the name of a tenant's login. The bounds let the server use its index: it has some roles for each
# tenant, and compares a regular expression with all of them.
IS_LOGIN: LiteralString = "rolname > %(stem)s AND rolname < %(stem)s || 'g' AND rolname ~ %(form)s"
_LOGINS = SQL(f"""
SELECT rolname, rolcanlogin, rolinherit, rolconnlimit, EXISTS (
    SELECT FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = 0 AND %(setting)s = ANY (setconfig))
FROM pg_roles r WHERE {IS_LOGIN} OR rolname = ANY (%(wanted)s) ORDER BY 1
""")
# What no login of a tenant has.
ATTRIBUTES: LiteralString = """
SELECT rolname, attribute FROM pg_roles, LATERAL (VALUES (rolsuper, 'SUPERUSER'), (rolcreaterole, 'CREATEROLE'),
    (rolcreatedb, 'CREATEDB'), (rolbypassrls, 'BYPASSRLS'), (rolreplication, 'REPLICATION')) AS of (has, attribute)
WHERE rolname = ANY (%(ours)s) AND has
"""
_NO_LIMIT = {-1, 0}  # of the connections of a login: none, and one with which it cannot enter


@frozen
class GrantStep:
    """A missing statement, and the problems until it has run."""

    statement: Composed
    problems: Sequence[Problem] = (Problem(ProblemKind.RIGHTS_MISSING),)
    as_owner: bool = False  # run it as the owner role, not as the administrator
    creates: str = ""  # the role that it creates
    needs: str = ""  # another role whose rights the administrator needs for it


@frozen
class Database:
    """The state of a tenant's database on the server."""

    owner: str
    connections: bool  # whether it allows them
    to_alter: list[str]  # what ALTER DATABASE has to set
    privileges: dict[str, list[str]]  # of each role. PUBLIC is ""
    granting: list[str]  # the roles that may grant a privilege to others


@frozen
class Login:
    """A login of a role. Those of the owner that ``create_login`` made have NOINHERIT, an adopted one has not."""

    name: str
    enters: bool  # it has LOGIN
    inherits: bool
    limit: int
    starts_as_owner: bool


async def limit_of(session: Session) -> int:
    """Return the limit of a login. A quarter of the server's connections: three, as of a rotation and a reader, fit."""
    if session.limit is not None:
        return session.limit
    [(connections,)] = await session.run(SQL(CONNECTIONS))
    return max(1, int(connections * SHARE_OF_CONNECTIONS))


def revoke_membership(session: Session, role: str, member: str, grantor: str) -> Composed:
    by = SQL(" GRANTED BY {}").format(Identifier(grantor)) if session.knows_options else SQL("")
    return SQL("REVOKE {} FROM {}{}").format(Identifier(role), Identifier(member), by)


def grant_membership(session: Session, role: str, login: str, inherits: bool, sets: bool) -> Composed:
    """Make a login a member: the owner's logins act as their role after SET ROLE, others inherit."""
    options = SQL(" WITH INHERIT {}, SET {}").format(Literal(inherits), Literal(sets))
    return SQL("GRANT {} TO {}{}").format(
        Identifier(role), Identifier(login), options if session.knows_options else SQL("")
    )


def allow_connect(session: Session, grantee: str) -> Composed:
    database = Identifier(session.names.database)
    return SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, Identifier(grantee))


def start_as_owner(session: Session, login: str) -> Composed:
    return SQL("ALTER ROLE {} SET role = {}").format(Identifier(login), Literal(session.names.owner))


async def read_database(session: Session) -> Database | None:
    """Read the tenant's database. One that is left of an interrupted DROP DATABASE is none."""
    rows = await session.run(_DATABASE, session.names.database)
    return Database(*rows[0]) if rows else None


async def need_database(session: Session) -> Database:
    database = await read_database(session)
    if database is None:
        raise session.error(f"the database {session.names.database!r} does not exist")
    return database


async def read_logins(session: Session, wanted: Collection[str] = ()) -> list[Login]:
    """Read all logins that have the form of the tenant's, also ended ones, and those that are ``wanted``."""
    names = session.names
    form = {"stem": names.stem, "form": names.login_pattern}
    found = await session.run(_LOGINS, **form, setting=f"role={names.owner}", wanted=[*wanted])
    return [Login(*row) for row in found]


async def complete(session: Session, wanted: Mapping[str, Role] | None) -> None:
    """Take the steps of ``missing_grants``."""
    await take(session, await missing_grants(session, wanted, await read_logins(session, wanted or ())))


async def missing_grants(
    session: Session, wanted: Mapping[str, Role] | None, found: Sequence[Login]
) -> list[GrantStep]:
    """Return the missing steps of the database, its roles and the ``wanted`` logins, as seen from another database."""
    is_shut, wanted, database = wanted is None, wanted or {}, await need_database(session)
    unknown = [login.name for login in found if login.name not in wanted]
    logins = {role: [login for login in found if wanted.get(login.name) is role] for role in Role}
    steps = await role_steps(session, session.names.owner, logins[Role.OWNER], unknown)
    if is_shut:
        steps += _shut_steps(session, database)
    else:
        steps += _database_steps(session, database, logins[Role.OWNER], unknown)
    for role in ROLES:
        if role in wanted.values():
            steps += await group_steps(session, database, role, logins[role], unknown)
    for login in found:
        if login.name in wanted:
            steps += await _login_steps(session, login, wanted[login.name])
    return steps


async def group_steps(
    session: Session, database: Database, role: Role, logins: Sequence[Login], unknown: Collection[str]
) -> list[GrantStep]:
    group = session.names.group(role)
    steps = await role_steps(session, group, logins, unknown)
    if database.privileges.get(group) != ["CONNECT"]:
        steps.append(GrantStep(allow_connect(session, group), as_owner=True))
    return steps


async def role_steps(session: Session, role: str, logins: Sequence[Login], unknown: Collection[str]) -> list[GrantStep]:
    """Return what is missing so that ``role`` exists, and only these logins are members, and ``unknown`` ones."""
    found = await session.run(_MEMBERS, role)
    steps = [] if found else [GrantStep(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)), creates=role)]
    members = [row for row in found if row[0] is not None]
    for login in logins:
        options = {(may_inherit, may_set) for name, _, _, may_inherit, may_set in members if name == login.name}
        wanted = (login.inherits, not login.inherits or role == session.names.owner)
        if not options or (session.knows_options and options != {wanted}):
            steps.append(GrantStep(grant_membership(session, role, login.name, *wanted)))
    keep = {session.admin, *unknown, *(login.name for login in logins)}
    for name, grantor, may_admin, *_ in members:
        if not may_admin and name not in keep:
            revoke = revoke_membership(session, role, name, grantor)
            steps.append(GrantStep(revoke, [Problem(ProblemKind.OPEN_TO_OTHERS, name)]))
    return steps


async def _login_steps(session: Session, login: Login, role: Role) -> list[GrantStep]:
    if role is Role.OWNER and login.inherits:  # an adopted one goes on as it is
        return []
    steps = [GrantStep(start_as_owner(session, login.name))] if role is Role.OWNER and not login.starts_as_owner else []
    if login.limit in _NO_LIMIT or session.limit not in {None, login.limit}:
        change = SQL("ALTER ROLE {} CONNECTION LIMIT {}")
        steps.append(GrantStep(change.format(Identifier(login.name), Literal(await limit_of(session)))))
    return steps


def _shut_steps(session: Session, database: Database) -> Iterator[GrantStep]:
    if database.owner != session.admin:
        give = SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(Identifier(session.names.database))
        yield GrantStep(give, [Problem(ProblemKind.OPEN_TO_OTHERS, database.owner)], needs=database.owner)
    yield from closing_steps(session, database, session.names.groups, as_owner=False)


def _database_steps(
    session: Session, database: Database, logins: Sequence[Login], unknown: Collection[str]
) -> Iterator[GrantStep]:
    names = session.names
    name, owner, admin = Identifier(names.database), Identifier(names.owner), session.admin
    of_owner = [login.name for login in logins]
    if database.owner != names.owner:
        needs = database.owner if database.owner != admin else ""
        yield GrantStep(SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner), needs=needs)
    for change in database.to_alter:
        yield GrantStep(SQL("ALTER DATABASE {} {}").format(name, verbatim(change)), as_owner=True)
    yield from closing_steps(session, database, {*names.groups, *unknown, *of_owner})
    lacks = {"CREATE", "TEMPORARY", "CONNECT"}.difference(database.privileges.get(names.owner, ()))
    if lacks and database.owner == names.owner:
        yield GrantStep(SQL("GRANT ALL ON DATABASE {} TO {}").format(name, owner), as_owner=True)
    for member in (admin, *of_owner):
        if "CONNECT" not in database.privileges.get(member, ()) or member == database.owner:
            yield GrantStep(allow_connect(session, member), as_owner=True)
    if not database.connections:  # last, so that nobody enters before others are shut out
        yield GrantStep(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name), as_owner=True)


def closing_steps(
    session: Session, database: Database, keep: Collection[str], *, as_owner: bool = True
) -> Iterator[GrantStep]:
    """Yield what is missing so that only ``keep``, the owner and the administrator have rights on the database."""
    kept = {database.owner, session.names.owner, session.admin, *keep}
    others = sorted(set(database.privileges) - kept)
    for what, grantees in (("GRANT OPTION FOR ALL", database.granting), ("ALL", others)):
        if grantees:  # one statement, however many they are
            names = SQL(", ").join([Identifier(each) if each else SQL("PUBLIC") for each in grantees])
            revoke = verbatim(f"REVOKE {what} ON DATABASE {{}} FROM {{}} CASCADE")
            problems = [Problem(ProblemKind.OPEN_TO_OTHERS, each or "PUBLIC") for each in grantees]
            yield GrantStep(revoke.format(Identifier(session.names.database), names), problems, as_owner)


async def take(session: Session, steps: Sequence[GrantStep]) -> None:
    """Run the statements of ``steps`` in one transaction: of the administrator, then of the owner role."""
    if not steps:
        return
    owner, made = session.names.owner, [step.creates for step in steps if step.creates]
    first = [step.statement for step in steps if step.creates]
    then: list[Statement] = [step.statement for step in steps if not (step.creates or step.as_owner)]
    if as_owner := [step.statement for step in steps if step.as_owner]:
        then += as_role(owner, *as_owner)
    needed = [step.needs for step in steps if step.needs]
    await session.run_with([owner, *needed], *then, first=first, made=made)


# In the tenant's database: the rights of its groups.

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
_PRIVILEGES: Mapping[LiteralString, tuple[str, SQL, Mapping[Role, Sequence[LiteralString]]]] = {
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


async def missing_grants_inside(session: Session, roles: Sequence[Role]) -> list[GrantStep]:
    """In the tenant's database: return the missing steps of these groups on its objects."""
    steps, names = list[GrantStep](), session.names
    for schema, is_ours in await session.run(_OPEN_SCHEMAS, names.owner):
        if not is_ours:  # as in a database that the provider upgraded from 14
            raise session.error(
                f"every login may create objects in the schema {schema!r} of the database {names.database!r}, and "
                f"only a superuser can change that, so it can have no {roles[0]}"
            )
        revoke = SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(Identifier(schema))
        steps.append(GrantStep(revoke, as_owner=True))
    for role in roles:
        group = names.group(role)
        defaults = {tuple(row) for row in await session.run(_DEFAULTS, names.owner, group)}
        for word, (letter, query, of_roles) in _PRIVILEGES.items():
            privileges = of_roles.get(role, ())
            rows = await session.run(query, owner=names.owner, group=group, privileges=[*privileges])
            wanted = ", ".join(privileges)
            for start in range(0, len(rows), _AT_ONCE):
                objects = SQL(", ").join(verbatim(name) for (name,) in rows[start : start + _AT_ONCE])
                grant = SQL(f"GRANT {wanted} ON {word} {{}} TO {{}}").format(objects, Identifier(group))
                steps.append(GrantStep(grant, as_owner=True))
            if not {(letter, privilege) for privilege in privileges} <= defaults:
                default = SQL(f"ALTER DEFAULT PRIVILEGES GRANT {wanted} ON {word}S TO {{}}")
                steps.append(GrantStep(default.format(Identifier(group)), as_owner=True))
    return steps
