"""Read and set the rights of a tenant's logins, and find out who else has rights in its schema."""

from __future__ import annotations

import re

from attrs import frozen

from ...errors import GrantError
from .._naming import Role
from .mysql_server import Work, quoted
from .rights import RIGHTS

_NO_SUCH_GRANT = (1141, 1147, 1403)
_NAME = r"`(?:[^`]|``)*`"
_GRANT = re.compile(
    rf"GRANT (?P<rights>(?:[^`]|{_NAME})+?) ON (?P<on>\*\.\*|(?:[A-Z ]+ )?{_NAME}\.(?:\*|{_NAME})) TO (?P<rest>.*)",
    re.DOTALL,
)
# PROXY: anybody may grant it on himself, and only he can revoke it. It lets the grantee act as him, and as nobody else.
# REVOKE: a restriction of a right on all schemas. Server roles are read from a table.
_HARMLESS = re.compile(rf"GRANT PROXY ON .*|REVOKE .*|SET DEFAULT ROLE .*|GRANT {_NAME}(@{_NAME})? TO .*", re.DOTALL)


@frozen
class Grantee:
    """An account or a role of the server. On MariaDB, roles and ``PUBLIC`` have no host."""

    user: str
    host: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.host else self.user

    @property
    def sql(self) -> tuple[str, tuple[str, ...]]:
        """Return its name for a statement: placeholders, and their values."""
        if not self.host:
            return ("PUBLIC", ()) if self.user == "PUBLIC" else ("%s", (self.user,))
        return "%s@%s", (self.user, self.host)


@frozen
class Access:
    """The rights of one grantee on one object."""

    grantee: Grantee
    on: str  # as in GRANT: a pattern of schemas, a table or a routine
    wide: bool  # whether it is a pattern for other schemas too; an unescaped ``_`` in the name does not count


@frozen
class Held:
    """A line of SHOW GRANTS: the rights that a login holds on an object, and whether it may grant them to others."""

    rights: frozenset[str]
    on: str
    grantable: bool


async def access(work: Work) -> list[Access]:
    """List the rights in the tenant's schema, except those that apply to every schema, and the administrator's own.

    Where the administrator has rights on every schema, REVOKE on one of them would restrict it there.
    """
    found, schema, own = [], work.schema, work.schema_in_grant
    literal = work.server.literal_names
    query = f"SELECT Host, User, Db FROM mysql.db WHERE %s {'=' if literal else 'LIKE'} Db"
    for host, user, db in await work.rows(query, schema):
        wide = not literal and db != own and (db != schema or "%" in db)
        found.append(Access(Grantee(user, host), f"{quoted(db)}.*", wide=wide))
    for host, user, table in await work.rows(
        "SELECT Host, User, Table_name FROM mysql.tables_priv WHERE Db = %s", schema
    ):
        found.append(Access(Grantee(user, host), f"{quoted(schema)}.{quoted(table)}", wide=False))
    for host, user, routine, kind in await work.rows(
        "SELECT Host, User, Routine_name, Routine_type FROM mysql.procs_priv WHERE Db = %s", schema
    ):
        found.append(Access(Grantee(user, host), f"{kind} {quoted(schema)}.{quoted(routine)}", wide=False))
    ((administrator,),) = await work.rows("SELECT CURRENT_USER()")
    return [one for one in found if str(one.grantee) != administrator]


async def access_of_others(work: Work) -> list[Access]:
    """List what ``access`` does, except the rights of the tenant's own logins."""
    return [one for one in await access(work) if one.grantee.user not in work.names.family]


async def revoke_others(work: Work) -> None:
    """Revoke the rights in the tenant's schema of everyone except its logins, or refuse a pattern for other schemas."""
    for one in await access_of_others(work):
        if one.wide:
            on = one.on.replace("%%", "%")
            raise work.error(
                f"{one.grantee} has rights on the schemas that match {on}, which include the tenant's: revoke them "
                f"(REVOKE ALL PRIVILEGES ON {on} FROM {one.grantee}) and run it again",
            )
        await revoke(work, one)


async def revoke(work: Work, one: Access) -> None:
    """Revoke ``one`` and the right to grant it."""
    who, values = one.grantee.sql
    for what in ("GRANT OPTION", "ALL PRIVILEGES"):
        await work.rows(f"REVOKE {what} ON {one.on} FROM {who}", *values, fine=_NO_SUCH_GRANT)


async def revoke_all(work: Work) -> None:
    """Revoke the rights in the tenant's schema of everyone, except by patterns for other schemas."""
    for one in await access(work):
        if not one.wide:
            await revoke(work, one)


async def set_rights(work: Work, username: str) -> None:
    """Give a login the rights of its role, and revoke all others. Rights that it rightly has stay all the time."""
    for grantee in await _server_roles(work, username):
        who, values = grantee.sql
        await work.rows(f"REVOKE {who} FROM %s@'%%'", *values, username)
    try:
        for one in await _held(work, username):
            await _revoke_beyond(work, username, one)
    except GrantError:  # a right that the administrator does not have itself; this takes the others too
        await work.rows("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", username)
    rights = ", ".join(sorted(RIGHTS[work.names.role].mysql))
    await work.rows(f"GRANT {rights} ON {quoted(work.schema_in_grant)}.* TO %s@'%%'", username)


async def has_exactly(work: Work, username: str) -> bool:
    """Whether a login has the rights of its role on the tenant's schema, and no other rights."""
    if await _server_roles(work, username):
        return False
    return await _held(work, username) == [Held(RIGHTS[work.names.role].mysql, _own(work), grantable=False)]


async def _server_roles(work: Work, username: str) -> list[Grantee]:
    if work.server.is_mariadb:
        query = "SELECT Role, '' FROM mysql.roles_mapping WHERE User = %s AND Host = '%%'"
    else:
        query = "SELECT FROM_USER, FROM_HOST FROM mysql.role_edges WHERE TO_USER = %s AND TO_HOST = '%%'"
    return [Grantee(user, host) for user, host in await work.rows(query, username)]


def _own(work: Work) -> str:
    return f"{quoted(work.schema_in_grant)}.*".replace("%%", "%")


async def _held(work: Work, username: str) -> list[Held]:
    """Return what a login holds, by SHOW GRANTS. A line that this cannot read is a right on ``on`` of "?"."""
    found = []
    for (line,) in await work.rows("SHOW GRANTS FOR %s@'%%'", username):
        if _HARMLESS.fullmatch(line):
            continue
        parsed = _GRANT.fullmatch(line)
        if parsed is None:
            found.append(Held(frozenset({line}), "?", grantable=False))
            continue
        # Columns have commas too: SELECT (`a`, `b`)
        rights = frozenset(re.split(r", ?(?![^(]*\))", parsed["rights"])) - {"USAGE"}
        grantable = " WITH GRANT OPTION" in re.sub(_NAME, "", parsed["rest"])
        if rights or grantable:
            found.append(Held(rights, parsed["on"], grantable))
    return found


async def _revoke_beyond(work: Work, username: str, one: Held) -> None:
    """Revoke what ``one`` has beyond the rights of the role."""
    beyond = one.rights
    if one.on == _own(work):
        wanted = RIGHTS[work.names.role].mysql
        beyond = frozenset() if wanted == RIGHTS[Role.OWNER].mysql else beyond - wanted
    for what in (["GRANT OPTION"] if one.grantable else []) + ([", ".join(sorted(beyond))] if beyond else []):
        statement = f"REVOKE {what} ON {one.on}".replace("%", "%%")
        await work.rows(f"{statement} FROM %s@'%%'", username)
