"""The owner's rights on PostgreSQL: a role without login owns the database, and the tenant's logins begin as that role.

As the administrator (the cluster's primary user: LOGIN, CREATEDB, CREATEROLE, no superuser), from its own database::

    CREATE ROLE owner NOLOGIN
    GRANT owner TO CURRENT_USER WITH INHERIT FALSE, SET TRUE    without WITH before PostgreSQL 16
    GRANT owner TO login WITH INHERIT FALSE, SET TRUE           so it can give the database to nobody, itself included
    ALTER DATABASE d OWNER TO owner
    SET ROLE owner
    REVOKE ALL ON DATABASE d FROM PUBLIC                        and from everybody else
    GRANT CONNECT ON DATABASE d TO login, CURRENT_USER          since neither inherits the owner's rights

and as the login, in its database::

    ALTER ROLE CURRENT_USER SET role = 'owner'                  only a role itself may do so, since the API made it
    REASSIGN OWNED BY CURRENT_USER TO owner                     what it made before it got the owner role

Each statement runs only if it changes something, so that a session which holds a lock on the database's row does not
keep ``give`` from being repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import field, frozen
from psycopg import AsyncConnection
from psycopg.sql import SQL, Composed, Identifier, Literal

from ...engines import Engine
from ...errors import GrantError
from ..naming import Names, names_of
from ..problems import Problem
from ..roles import Role
from .postgres_sessions import become, knows_options, run

PUBLIC = ""  # no role can have this name

# What a tenant may set on its database so that nobody can log in, or write. Its other settings stay.
_HOSTILE = frozenset(
    {"role", "session_authorization", "default_transaction_read_only", "local_preload_libraries", "transaction_timeout"}
)
_ALL = frozenset({"CREATE", "TEMPORARY", "CONNECT"})

_DATABASE = SQL("""
SELECT pg_get_userbyid(datdba), datallowconn, datistemplate, datconnlimit,
       ARRAY(SELECT split_part(setting, '=', 1) FROM pg_db_role_setting, unnest(setconfig) AS setting
             WHERE setrole = 0 AND setdatabase = d.oid)
FROM pg_database d WHERE datname = %s
""")
_PRIVILEGES = SQL("""
SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE datname = %s
""")
_MEMBERS = SQL("""
SELECT pg_get_userbyid(member), pg_get_userbyid(grantor), admin_option, {inherit}, {set}
FROM pg_auth_members WHERE roleid = (SELECT oid FROM pg_roles WHERE rolname = %s)
""")


_HALF = SQL("SELECT greatest(1, current_setting('max_connections')::int / 2)")


@frozen
class Step:
    """A statement that the server lacks.

    Attributes:
        problem: What is wrong as long as it has not run; None if nothing is.
        statement: The statement.
        as_owner: Whether it runs as the owner role, and not as the administrator.
        of_login: Whether only one of the tenant's own logins lacks it.
    """

    problem: Problem | None
    statement: Composed
    as_owner: bool = False
    of_login: bool = False


@frozen(kw_only=True)
class Database:
    """A tenant's database as it is on the server.

    Attributes:
        owner: The role that owns it.
        connections: Whether it takes any.
        template: Whether it is a template, which cannot be dropped.
        limit: How many connections it takes; -1 for any number.
        settings: The names of the settings on it.
        privileges: What each role has on it. ``PUBLIC`` is everybody.
        granting: The roles that may pass a privilege on.
    """

    owner: str
    connections: bool
    template: bool
    limit: int
    settings: frozenset[str]
    privileges: dict[str, set[str]] = field(factory=dict)
    granting: set[str] = field(factory=set)


@frozen(kw_only=True)
class Member:
    """One membership in a role, as ``grantor`` gave it. See GRANT in PostgreSQL's manual for its options."""

    name: str
    grantor: str
    admin: bool
    inherit: bool
    set: bool


async def read_database(names: Names, server: AsyncConnection[Any]) -> Database:
    """Read the tenant's database.

    Raises:
        GrantError: There is none.
    """
    assert names.database is not None
    rows = await run(names, server, _DATABASE, names.database)
    if not rows:
        raise GrantError(
            f"tenant {names.tenant!r}: the database {names.database!r} does not exist", tenant=names.tenant
        )
    owner, connections, template, limit, settings = rows[0]
    database = Database(
        owner=owner, connections=connections, template=template, limit=limit, settings=frozenset(settings)
    )
    for grantee, privilege, grantable in await run(names, server, _PRIVILEGES, names.database):
        database.privileges.setdefault(grantee, set()).add(privilege)
        if grantable and grantee != owner:
            database.granting.add(grantee)
    return database


async def members(names: Names, server: AsyncConnection[Any], role: str) -> list[Member] | None:
    """Read the members of ``role``; None if there is no such role."""
    if not await run(names, server, SQL("SELECT FROM pg_roles WHERE rolname = %s"), role):
        return None
    columns = ("inherit_option", "set_option") if knows_options(server) else ("true", "true")
    query = _MEMBERS.format(inherit=SQL(columns[0]), set=SQL(columns[1]))
    return [
        Member(name=name, grantor=grantor, admin=admin, inherit=inherit, set=can_set)
        for name, grantor, admin, inherit, can_set in await run(names, server, query, role)
    ]


async def lacking(
    names: Names, server: AsyncConnection[Any], usernames: Sequence[str], limit: int | None
) -> list[Step]:
    """What the database and the owner role lack, for these logins of the owner. Changes nothing.

    A login can enter before it stops to inherit, so that nobody who uses it is refused for a moment.
    """
    database, present = await read_database(names, server), await members(names, server, names.owner)
    member = list(membership_steps(names.owner, present, usernames, server, keep=logins_of(names)))
    if database.owner in usernames and knows_options(server):  # it alone can give it back, when it logs in
        return [*member, inherit_step(names, server, database.owner)]
    if limit is None:
        ((limit,),) = await run(names, server, _HALF)
        assert limit is not None
    return [
        *(step for step in member if not step.of_login),
        *_database_steps(names, database, server, usernames, limit),
        *(step for step in member if step.of_login),
    ]


def membership_steps(
    role: str,
    present: list[Member] | None,
    usernames: Sequence[str],
    server: AsyncConnection[Any],
    *,
    inherit: bool = False,
    keep: Sequence[str] = (),
) -> Iterator[Step]:
    """What it lacks that ``role`` exists, that the administrator can become it, and that exactly these logins have it.

    Args:
        role: The role.
        present: Its members; None if it does not exist.
        usernames: The logins that are to be members.
        server: The server.
        inherit: Whether the logins have its rights in every session; else they become the role by ``SET ROLE``.
        keep: Logins that may be members, too.
    """
    admin, options = server.info.user, knows_options(server)
    if present is None:
        yield Step(Problem.RIGHTS_MISSING, SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)))
    wanted = {admin: (False, True)} | dict.fromkeys(usernames, (inherit, not inherit))
    for name, (inherits, sets) in wanted.items():
        found = [member for member in present or () if member.name == name]
        has = (any(member.inherit for member in found), any(member.set for member in found))
        if has != (inherits, sets) and (options or not found):
            chosen = SQL(" WITH INHERIT {}, SET {}").format(Literal(inherits), Literal(sets))
            grant = SQL("GRANT {} TO {}{}").format(Identifier(role), Identifier(name), chosen if options else SQL(""))
            yield Step(Problem.RIGHTS_MISSING, grant, of_login=name != admin)
    for member in present or ():
        if not member.admin and member.name not in {*wanted, *keep}:
            by = SQL(" GRANTED BY {}").format(Identifier(member.grantor)) if options else SQL("")
            revoke = SQL("REVOKE {} FROM {}{}").format(Identifier(role), Identifier(member.name), by)
            yield Step(Problem.OPEN_TO_OTHERS, revoke)


def inherit_step(names: Names, server: AsyncConnection[Any], username: str) -> Step:
    """Let a login inherit the owner's rights, until they are given once more."""
    text = "GRANT {} TO {}" + (" WITH INHERIT TRUE" if knows_options(server) else "")
    return Step(Problem.RIGHTS_MISSING, SQL(text).format(Identifier(names.owner), Identifier(username)))


def _database_steps(
    names: Names, database: Database, server: AsyncConnection[Any], usernames: Sequence[str], limit: int
) -> Iterator[Step]:
    name, owner, admin = Identifier(names.database or ""), Identifier(names.owner), server.info.user
    if database.owner != names.owner:
        stolen = Identifier(database.owner) if database.owner in logins_of(names) else None  # before PostgreSQL 16
        if stolen:
            yield Step(Problem.RIGHTS_MISSING, SQL("GRANT {} TO CURRENT_USER").format(stolen))
        yield Step(Problem.RIGHTS_MISSING, SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner))
        if stolen:
            yield Step(Problem.RIGHTS_MISSING, SQL("REVOKE {} FROM CURRENT_USER").format(stolen))
    changes = [SQL("RESET {}").format(Identifier(setting)) for setting in database.settings & _HOSTILE]
    if database.template:
        changes.append(SQL("IS_TEMPLATE false").format())
    if not database.connections:
        changes.append(SQL("ALLOW_CONNECTIONS true").format())
    for change in changes:
        yield Step(Problem.RIGHTS_MISSING, SQL("ALTER DATABASE {} {}").format(name, change), as_owner=True)

    if database.limit != limit:
        problem = Problem.RIGHTS_MISSING if 0 <= database.limit < limit else None
        change = SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, Literal(limit))
        yield Step(problem, change, as_owner=True)
    if not database.privileges.get(names.owner, set()) >= _ALL and database.owner == names.owner:
        yield Step(Problem.RIGHTS_MISSING, SQL("GRANT ALL ON DATABASE {} TO {}").format(name, owner), as_owner=True)
    yield from closing_steps(database, name, {database.owner, names.owner, admin, *logins_of(names), *groups_of(names)})
    for member in (*usernames, admin):
        if "CONNECT" not in database.privileges.get(member, ()) or member == database.owner:
            grant = SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, Identifier(member))
            yield Step(Problem.RIGHTS_MISSING, grant, as_owner=True, of_login=member != admin)


def closing_steps(database: Database, name: Identifier, keep: set[str]) -> Iterator[Step]:
    """What it lacks that nobody but ``keep`` has a privilege on the database, and that nobody may pass one on."""
    for grantee in sorted(database.granting):
        text = SQL("REVOKE GRANT OPTION FOR ALL ON DATABASE {} FROM {} CASCADE")
        yield Step(Problem.OPEN_TO_OTHERS, text.format(name, _grantee(grantee)), as_owner=True)
    for grantee in sorted(set(database.privileges) - keep):
        text = SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE")
        yield Step(Problem.OPEN_TO_OTHERS, text.format(name, _grantee(grantee)), as_owner=True)


def _grantee(name: str) -> Composed:
    return SQL("{}").format(Identifier(name) if name != PUBLIC else SQL("PUBLIC"))


async def take(names: Names, server: AsyncConnection[Any], steps: Sequence[Step]) -> None:
    """Run ``steps`` in their order."""
    acting = False
    for step in steps:
        if step.as_owner and not acting:
            await become(names, server, names.owner)
        elif acting and not step.as_owner:
            await run(names, server, SQL("RESET ROLE"))
        acting = step.as_owner
        await run(names, server, step.statement)
    if acting:
        await run(names, server, SQL("RESET ROLE"))


def with_role(names: Names, role: Role) -> Names:
    """The names that the same tenant has for another role."""
    return names_of(names.tenant, Engine.PG, names.whole.removesuffix(names.tenant), role)


def logins_of(names: Names) -> tuple[str, ...]:
    """The logins of the tenant's owner."""
    return with_role(names, Role.OWNER).logins


def groups_of(names: Names) -> tuple[str, ...]:
    """The roles that have the rights of the tenant's readers and writers."""
    return tuple(with_role(names, role).group for role in Role if role is not Role.OWNER)
