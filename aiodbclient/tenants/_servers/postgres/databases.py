"""A tenant's database on PostgreSQL: its state, the steps that it lacks, and its end.

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

``lacking`` returns the statements that are missing: ``mend`` runs them, and ``problems`` reports them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from time import monotonic

from attrs import field, frozen
from psycopg.sql import SQL, Composed, Identifier, Literal

from ..._naming import Role
from ..._outcomes import Problem, ProblemKind
from .logins import allow_connect, default_limit, exists, grant_membership, revoke_membership, start_as_owner
from .sessions import Session, roll_back, verbatim

_EMPTY_SECONDS = 20.0
_LOOK_SECONDS = 0.02
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
       (SELECT coalesce(json_agg(json_build_array(
            CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable)), '[]')
        FROM aclexplode(coalesce(datacl, acldefault('d', datdba))))
FROM pg_database d WHERE datname = %s
""")
_MEMBERS = SQL("""
SELECT pg_get_userbyid(member), pg_get_userbyid(grantor), admin_option, {inherit}, {set}
FROM pg_roles r LEFT JOIN pg_auth_members ON roleid = r.oid WHERE rolname = %s
""")
_LOGINS = SQL("""
SELECT rolname, rolcanlogin, rolinherit, rolconnlimit, EXISTS (
    SELECT FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = 0 AND %s = ANY (setconfig))
FROM pg_roles r WHERE rolname = ANY (%s) ORDER BY 1
""")


_NO_LIMIT = {-1, 0}  # of the connections of a login: none, and one with which it cannot enter
_STATE = SQL("SELECT pg_get_userbyid(datdba), datconnlimit FROM pg_database WHERE datname = %s")
_IS_OPEN = SQL("SELECT FROM pg_database WHERE datname = %s AND datallowconn AND datconnlimit <> -2")
_END_OTHERS = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid
WHERE datname = %s AND NOT rolsuper AND pid <> pg_backend_pid() AND usename <> ALL (%s)
""")


_RIGHTS_MISSING = Problem(ProblemKind.RIGHTS_MISSING)


@frozen
class Step:
    """A missing statement, and the problem until it has run. Without a statement another verb solves it."""

    statement: Composed | None
    problem: Problem = _RIGHTS_MISSING
    as_owner: bool = False  # run it as the owner role, not as the administrator
    creates: str = ""  # the role that it creates
    needs: str = ""  # another role whose rights the administrator needs for it


@frozen(kw_only=True)
class Database:
    """The state of a tenant's database on the server."""

    owner: str
    connections: bool  # whether it allows them
    template: bool  # then it cannot be dropped
    limit: int  # of its connections; -1 for none
    settings: frozenset[str]  # their names
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


@frozen
class Login:
    """A login of a role. Those of the owner that ``create_login`` made have NOINHERIT, an adopted one has not."""

    name: str
    enters: bool  # it has LOGIN
    inherits: bool
    limit: int
    starts_as_owner: bool


async def read_database(session: Session) -> Database | None:
    """Read the tenant's database. One that is left of an interrupted DROP DATABASE is none."""
    names = session.names
    rows = await session.run(_DATABASE, names.database)
    if not rows or rows[0][3] == -2:
        return None
    owner, connections, template, limit, settings, privileges = rows[0]
    database = Database(
        owner=owner, connections=connections, template=template, limit=limit, settings=frozenset(settings)
    )
    for grantee, privilege, grantable in privileges:
        database.privileges.setdefault(grantee, set()).add(privilege)
        if grantable and grantee != owner:
            database.granting.add(grantee)
    return database


async def need_database(session: Session) -> Database:
    """Read the tenant's database. Raises GrantError if it does not exist."""
    database = await read_database(session)
    if database is None:
        raise session.error(f"the database {session.names.database!r} does not exist")
    return database


async def members(session: Session, role: str) -> list[Member] | None:
    """Read the members of ``role``; None if there is no such role."""
    columns = ("inherit_option", "set_option") if session.knows_options else ("true", "true")
    rows = await session.run(_MEMBERS.format(inherit=SQL(columns[0]), set=SQL(columns[1])), role)
    return [Member(name, *rest) for name, *rest in rows if name is not None] if rows else None


async def create(session: Session) -> bool:
    """Create the database, closed to all, or the rights of a role. Return whether it is new.

    A database that is somebody's already is left as it is.
    """
    names = session.names
    database = await read_database(session)
    is_new = database is None
    if names.role is not Role.OWNER:
        is_new = await members(session, names.group) is None
    elif database is None:
        name = Identifier(names.database)
        await session.run(SQL("CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false").format(name))
    elif database.owner != names.owner and (database.owner != session.admin or database.connections):
        return False
    await complete(session)
    return is_new


async def complete(session: Session, usernames: Sequence[str] = (), limit: int | None = None) -> None:
    """Take the missing steps."""
    await take(session, await lacking(session, usernames, limit))


async def lacking(session: Session, usernames: Sequence[str], limit: int | None) -> list[Step]:
    """Return the missing steps of the database and of the role's logins, as seen from another database."""
    names = session.names
    database, present = await need_database(session), await members(session, names.owner)
    rows = await session.run(_LOGINS, f"role={names.owner}", sorted({*names.logins, *usernames}))
    found = [Login(*row) for row in rows]
    logins = [login for login in found if login.name in usernames]
    of_owner = logins if names.role is Role.OWNER else []
    steps = [*_role_steps(session, names.owner, present, of_owner, names.owner_logins)]
    steps += _database_steps(session, database, [login.name for login in of_owner])
    if names.role is not Role.OWNER:
        steps += _role_steps(session, names.group, await members(session, names.group), logins, names.logins)
        if database.privileges.get(names.group, set()) != {"CONNECT"}:
            steps.append(Step(allow_connect(session, names.group), as_owner=True))
    is_needed = limit is None and any(login.limit in _NO_LIMIT for login in logins)
    default = await default_limit(session) if is_needed else 0
    for login in logins:
        steps += _login_steps(session, login, limit, default)
    return steps + [
        Step(None, Problem(ProblemKind.UNKNOWN_LOGIN, login.name))
        for login in found
        if login.enters and login not in logins
    ]


def _role_steps(
    session: Session, role: str, present: list[Member] | None, logins: Sequence[Login], keep: Collection[str]
) -> Iterator[Step]:
    """Yield what is missing so that ``role`` exists, and only these logins are members. Those in ``keep`` may be."""
    if present is None:
        yield Step(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)), creates=role)
    for login in logins:
        found = {(member.inherit, member.set) for member in present or () if member.name == login.name}
        wanted = (login.inherits, not login.inherits or role == session.names.owner)
        if not found or (session.knows_options and found != {wanted}):
            yield Step(grant_membership(session, role, login.name, *wanted))
    for member in present or ():
        if not member.admin and member.name not in {session.admin, *keep}:
            yield Step(
                revoke_membership(session, role, member.name, member.grantor),
                Problem(ProblemKind.OPEN_TO_OTHERS, member.name),
            )


def _login_steps(session: Session, login: Login, limit: int | None, default: int) -> Iterator[Step]:
    if session.names.role is Role.OWNER and login.inherits:  # an adopted one goes on as it is
        return
    if session.names.role is Role.OWNER and not login.starts_as_owner:
        yield Step(start_as_owner(session, login.name))
    if login.limit in _NO_LIMIT or limit not in {None, login.limit}:
        change = SQL("ALTER ROLE {} CONNECTION LIMIT {}")
        yield Step(change.format(Identifier(login.name), Literal(limit or default)))


def _database_steps(session: Session, database: Database, logins: Sequence[str]) -> Iterator[Step]:
    names = session.names
    name, owner, admin = Identifier(names.database), Identifier(names.owner), session.admin
    if database.owner != names.owner:
        needs = database.owner if database.owner != admin else ""
        yield Step(SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner), needs=needs)
    changes = [SQL("RESET {}").format(Identifier(setting)) for setting in sorted(database.settings & _HOSTILE)]
    if database.template:
        changes.append(SQL("IS_TEMPLATE false").format())
    if database.limit == 0:  # a lower one than the server's may be meant
        changes.append(SQL("CONNECTION LIMIT -1").format())
    for change in changes:
        yield Step(SQL("ALTER DATABASE {} {}").format(name, change), as_owner=True)
    yield from closing_steps(session, database, {*names.owner_logins, *names.groups, *logins})
    if not database.privileges.get(names.owner, set()) >= _ALL and database.owner == names.owner:
        yield Step(SQL("GRANT ALL ON DATABASE {} TO {}").format(name, owner), as_owner=True)
    for member in (admin, *logins):
        if "CONNECT" not in database.privileges.get(member, ()) or member == database.owner:
            yield Step(allow_connect(session, member), as_owner=True)
    if not database.connections:  # last, so that nobody enters before others are shut out
        yield Step(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name), as_owner=True)


def closing_steps(session: Session, database: Database, keep: Collection[str]) -> Iterator[Step]:
    """Yield what is missing so that only ``keep``, the owner and the administrator have rights on the database."""
    kept = {database.owner, session.names.owner, session.admin, *keep}
    others = set(database.privileges) - kept
    for what, grantees in (("GRANT OPTION FOR ALL", database.granting), ("ALL", others)):
        revoke = verbatim(f"REVOKE {what} ON DATABASE {{}} FROM {{}} CASCADE").format(
            Identifier(session.names.database), SQL(", ").join(map(grantee, sorted(grantees)))
        )
        for number, each in enumerate(sorted(grantees)):  # one statement, however many they are
            yield Step(
                None if number else revoke, Problem(ProblemKind.OPEN_TO_OTHERS, each or "PUBLIC"), as_owner=True
            )


def grantee(name: str) -> Composed:
    """The name of a role, or PUBLIC, in GRANT and REVOKE."""
    return SQL("{}").format(Identifier(name) if name != PUBLIC else SQL("PUBLIC"))


async def take(session: Session, steps: Sequence[Step]) -> None:
    """Run the statements of ``steps`` in one transaction: of the administrator, then of the owner role."""
    owner, todo = session.names.owner, [step for step in steps if step.statement]
    if not todo:
        return
    made = {step.creates for step in todo if step.creates}
    first = [step.statement for step in todo if step.statement and step.creates]
    then = [step.statement for step in todo if step.statement and not (step.creates or step.as_owner)]
    if as_owner := [step.statement for step in todo if step.statement and step.as_owner]:
        then += [SQL("SET LOCAL ROLE {}").format(Identifier(owner)), *as_owner, SQL("SET LOCAL ROLE NONE").format()]
    needed = {step.needs for step in todo if step.needs} | {owner}
    async with session.member_of(*needed, first=first, made=made):
        await session.run_all(*then)


async def guests(session: Session) -> list[str]:
    """Return the rights of others on the database: ``CONNECT neighbour``."""
    names, database = session.names, await need_database(session)
    kept = {database.owner, session.admin, *names.everything}
    others = {who: rights for who, rights in database.privileges.items() if who not in kept}
    return [f"{right} {who}" for who, rights in sorted(others.items()) for right in sorted(rights)]


async def give_back(session: Session, guests: Sequence[str]) -> None:
    """Give others their rights back."""
    statements = list[Composed]()
    for guest in guests:
        right, _, who = guest.partition(" ")
        if right in _ALL and (who == PUBLIC or await exists(session, who)):
            text = SQL("GRANT {} ON DATABASE {} TO {}")
            statements.append(text.format(verbatim(right), Identifier(session.names.database), grantee(who)))
    if statements:
        async with session.acting(session.names.owner):
            await session.run_all(*statements)


async def add_extensions(session: Session, extensions: Sequence[tuple[str, str]]) -> None:
    """In the tenant's database: make extensions, each a name and its schema."""
    schemas = {name for (name,) in await session.run(SQL("SELECT nspname::text FROM pg_namespace"))}
    for name, schema in extensions:
        if schema not in schemas:
            async with session.acting(session.names.owner):
                await session.run(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        create = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}")
        async with session.member_of(session.names.owner):
            await session.run(create.format(Identifier(name), Identifier(schema)))


# The end of a database.


async def end_sessions(session: Session, keep: frozenset[str] = frozenset()) -> int:
    """End the sessions in the tenant's database, except the administrator's and those of ``keep``. Return how many."""
    [(ended,)] = await session.run(_END_OTHERS, session.names.database, sorted({*keep, session.admin}))
    return int(ended)


async def shut(session: Session) -> None:
    """Revoke the rights of others on a tenant's database, and end all sessions and prepared transactions in it."""
    if session.names.role is Role.OWNER and await read_database(session) is not None:
        await complete(session)
        await _empty(session)


async def _empty(session: Session) -> None:
    """End every session in the database and every prepared transaction, whosever it is, and look again."""
    until = monotonic() + _EMPTY_SECONDS
    while await end_sessions(session):
        if monotonic() > until:
            raise session.error(f"sessions in the database {session.names.database!r} do not end: run it again")
        await asyncio.sleep(_LOOK_SECONDS)
    await roll_back(session.opened, database=session.names.database)
    await roll_back(session.opened, owner=session.names.owner)
    if await end_sessions(session):
        await _empty(session)


async def drop(session: Session) -> None:
    """Shut a database that is open, and drop it."""
    names, name = session.names, Identifier(session.names.database)
    if await session.run(_IS_OPEN, names.database):
        await shut(session)
    for owner, limit in await session.run(_STATE, names.database):
        if owner not in {session.admin, names.owner}:
            raise session.error(f"the database {names.database!r} belongs to {owner!r}, and was not dropped")
        if owner != session.admin:  # FORCE needs the rights of the owner and those of the administrator
            text = "ALTER DATABASE {0} IS_TEMPLATE false; ALTER DATABASE {0} ALLOW_CONNECTIONS false"
            async with session.member_of(names.owner):
                if limit != -2:
                    await session.run(SQL(text).format(name))
                await session.run(SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(name))
        await session.run(SQL("DROP DATABASE {} WITH (FORCE)").format(name))


async def drop_remains(session: Session) -> None:
    """Drop what an interrupted DROP DATABASE left. Nobody can enter it, and it can only be dropped."""
    if [limit for _, limit in await session.run(_STATE, session.names.database)] == [-2]:
        await drop(session)


async def release(session: Session) -> None:
    """Shut a database, and leave it to its owner role, without members, and closed to all others.

    So code that the tenant planted, such as the function of an index, never runs as the administrator by itself:
    autovacuum runs it as the owner role.
    """
    names = session.names
    await shut(session)
    if await read_database(session) is None:
        return  # an earlier removal has dropped it
    for member in await members(session, names.owner) or ():
        if not member.admin:
            await session.run(revoke_membership(session, names.owner, member.name, member.grantor))
    name = Identifier(names.database)
    async with session.acting(names.owner):
        await session.run(SQL("ALTER DATABASE {} RESET ALL").format(name))  # such as a search_path
        await session.run(SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
    await take(session, list(closing_steps(session, await need_database(session), ())))
