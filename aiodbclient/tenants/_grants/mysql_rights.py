"""Read, from the ``mysql`` tables, which accounts have rights in a schema, and revoke them."""

from __future__ import annotations

import re
from collections.abc import Collection

from attrs import frozen

from ...errors import GrantError
from .._roles import Role
from .mysql_server import MySQLSession, pattern, quoted

# The rights of each role in the tenant's schema, by their names in GRANT.
RIGHTS = {
    Role.OWNER: ("ALL PRIVILEGES",),
    Role.WRITER: ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE"),
    Role.READER: ("SELECT", "SHOW VIEW"),
}
_NO_SUCH_GRANT = (1141, 1147, 1403)
_GRANT = re.compile(r"GRANT (?P<rights>[A-Z ,]+) ON (?P<on>.+) TO .*", re.DOTALL)


@frozen
class Grantee:
    """An account or a role of the server. On MariaDB, roles and ``PUBLIC`` have no host.

    Attributes:
        user: Its name.
        host: Where it may connect from; empty for ``PUBLIC`` and for a role of MariaDB.
    """

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
    """The rights of one grantee on one object.

    Attributes:
        grantee: Who has it.
        on: The object, as in GRANT: a pattern of schemas, a table or a routine.
        wide: Whether it is a pattern for other schemas too. (An unescaped ``_`` in the name does not count.)
    """

    grantee: Grantee
    on: str
    wide: bool


async def access(server: MySQLSession, tenant: str, schema: str) -> list[Access]:
    """List the rights in ``schema``, except those that apply to every schema.

    Raises:
        GrantError: The administrator may not read the schema ``mysql``.
    """
    found = []
    own = pattern(schema)
    for host, user, db in await server.rows(tenant, "SELECT Host, User, Db FROM mysql.db WHERE %s LIKE Db", schema):
        found.append(Access(Grantee(user, host), f"{quoted(db)}.*", wide=db != own and (db != schema or "%" in db)))
    for host, user, table in await server.rows(
        tenant, "SELECT Host, User, Table_name FROM mysql.tables_priv WHERE Db = %s", schema
    ):
        found.append(Access(Grantee(user, host), f"{quoted(schema)}.{quoted(table)}", wide=False))
    for host, user, routine, kind in await server.rows(
        tenant, "SELECT Host, User, Routine_name, Routine_type FROM mysql.procs_priv WHERE Db = %s", schema
    ):
        found.append(Access(Grantee(user, host), f"{kind} {quoted(schema)}.{quoted(routine)}", wide=False))
    return found


async def revoke_others(server: MySQLSession, tenant: str, schema: str, logins: Collection[str]) -> None:
    """Revoke the rights in ``schema`` of everyone except ``logins``.

    Raises:
        GrantError: A pattern also gives rights on other schemas, which this must not revoke.
    """
    for one in await access(server, tenant, schema):
        if one.grantee.user in logins:
            continue
        if one.wide:
            raise GrantError(
                f"tenant {tenant!r}: {one.grantee} has rights on the schemas that match {_shown(one.on)}, which "
                f"include the tenant's: revoke them (REVOKE ALL PRIVILEGES ON {_shown(one.on)} FROM {one.grantee}) "
                "and run it again",
                tenant=tenant,
            )
        await revoke(server, tenant, one)


async def revoke(server: MySQLSession, tenant: str, one: Access) -> None:
    """Revoke ``one`` and the right to grant it."""
    who, values = one.grantee.sql
    for what in ("GRANT OPTION", "ALL PRIVILEGES"):
        await server.rows(tenant, f"REVOKE {what} ON {one.on} FROM {who}", *values, fine=_NO_SUCH_GRANT)


async def hosts(server: MySQLSession, tenant: str, username: str) -> set[str]:
    """Return the hosts of the accounts of that name."""
    return {str(host) for (host,) in await server.rows(tenant, "SELECT Host FROM mysql.user WHERE User = %s", username)}


async def revoke_all(server: MySQLSession, tenant: str, username: str) -> None:
    """Revoke every right and every role of an account."""
    await server.rows(tenant, "REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", username)
    for grantee in await roles(server, tenant, username):
        who, values = grantee.sql
        await server.rows(tenant, f"REVOKE {who} FROM %s@'%%'", *values, username)


async def roles(server: MySQLSession, tenant: str, username: str) -> list[Grantee]:
    """Return the server roles of an account."""
    if server.is_mariadb:
        query = "SELECT Role, '' FROM mysql.roles_mapping WHERE User = %s AND Host = '%%'"
    else:
        query = "SELECT FROM_USER, FROM_HOST FROM mysql.role_edges WHERE TO_USER = %s AND TO_HOST = '%%'"
    return [Grantee(user, host) for user, host in await server.rows(tenant, query, username)]


async def has_exactly(server: MySQLSession, tenant: str, username: str, role: Role, schema: str) -> bool:
    """Whether an account has the rights of ``role`` on ``schema``, and no other rights."""
    if await roles(server, tenant, username):
        return False
    given: dict[str, set[str]] = {}
    for (line,) in await server.rows(tenant, "SHOW GRANTS FOR %s@'%%'", username):
        parsed = _GRANT.fullmatch(line)
        if parsed is None or " WITH GRANT OPTION" in line.rpartition("TO ")[2]:
            return False
        rights = set(parsed["rights"].split(", "))
        if rights != {"USAGE"}:
            given[parsed["on"]] = rights
    return given == {f"{quoted(pattern(schema)).replace('%%', '%')}.*": set(RIGHTS[role])}


def _shown(on: str) -> str:
    return on.replace("%%", "%")
