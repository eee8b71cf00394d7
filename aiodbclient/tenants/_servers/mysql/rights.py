"""Read and set the rights of a tenant's logins, and find out who else has rights in its schema."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import TypeAlias

from attrs import frozen

from ..._naming import Role
from ..._outcomes import Problem, ProblemKind
from .connection import Schema, identifier

# On the schema: none to store a program. A routine, trigger or event runs on after its login has ended, and locks
# tables that the login has no right on, such as those of the accounts.
_WRITES = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_DEFINES = frozenset({"CREATE", "DROP", "REFERENCES", "INDEX", "ALTER", "CREATE VIEW", "SHOW VIEW"})
_PROGRAMS = frozenset({"TRIGGER", "EVENT", "CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE"})
RIGHTS: Mapping[Role, frozenset[str]] = {
    Role.OWNER: _WRITES | _DEFINES | {"CREATE TEMPORARY TABLES", "LOCK TABLES"},
    Role.WRITER: _WRITES,
    Role.READER: frozenset({"SELECT", "SHOW VIEW"}),
}
_NO_SUCH_GRANT = (1141, 1147, 1403)
# Who may enter every schema: the provider's accounts, and the users that the API makes.
_EVERYWHERE = """
SELECT User FROM mysql.user WHERE 'Y' IN (Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv,
    References_priv, Index_priv, Alter_priv, Create_tmp_table_priv, Lock_tables_priv, Execute_priv, Create_view_priv,
    Show_view_priv, Create_routine_priv, Alter_routine_priv, Event_priv, Trigger_priv)
"""
_ROLES = "SELECT FROM_USER, TO_USER, FROM_HOST, TO_HOST FROM mysql.role_edges WHERE %s IN (FROM_USER, TO_USER)"
_NAME = r"`(?:[^`]|``)*`"
_GRANT = re.compile(
    rf"GRANT (?P<rights>(?:[^`]|{_NAME})+?) ON (?P<on>\*\.\*|(?:[A-Z ]+ )?{_NAME}\.(?:\*|{_NAME})) TO (?P<rest>.*)",
    re.DOTALL,
)
# PROXY: anybody may grant it on himself, and only he can revoke it. It lets the grantee act as him, and as nobody else.
# REVOKE: a restriction of a right on all schemas. Server roles are read from a table.
_HARMLESS = re.compile(rf"GRANT PROXY ON .*|REVOKE .*|SET DEFAULT ROLE .*|GRANT {_NAME}(@{_NAME})? TO .*", re.DOTALL)
# A statement, its values, and the problem until it has run.
RightsChange: TypeAlias = tuple[str, tuple[str, ...], Problem]


@frozen
class Access:
    """The rights of one account, or one role of the server, on one object."""

    user: str
    host: str
    on: str  # as in GRANT: a pattern of schemas, a table or a routine
    is_wide: bool  # a pattern for other schemas too; an unescaped ``_`` in the name does not count


async def access_of_others(schema: Schema, ours: Collection[str]) -> list[Access]:
    """List the rights in the tenant's schema of everyone except the logins ``ours``."""
    name, is_literal, found = schema.name, schema.session.literal_names, list[Access]()
    # Not the administrator's: where it has rights on every schema, REVOKE on one of them would restrict it there.
    query = (
        "SELECT * FROM ("
        f"SELECT Host, User, Db, NULL of_one, '' kind FROM mysql.db WHERE %s {'=' if is_literal else 'LIKE'} Db "
        "UNION ALL SELECT Host, User, Db, Table_name, '' FROM mysql.tables_priv WHERE Db = %s "
        "UNION ALL SELECT Host, User, Db, Routine_name, Routine_type FROM mysql.procs_priv WHERE Db = %s"
        ") granted WHERE CONCAT(User, '@', Host) <> CURRENT_USER()"
    )
    for host, user, db, of_one, kind in await schema.run(query, name, name, name):
        if user not in ours or host != "%":
            on = f"{kind} {identifier(db)}.{'*' if of_one is None else identifier(of_one)}".lstrip()
            is_wide = of_one is None and not is_literal and db != schema.in_grant and (db != name or "%" in db)
            found.append(Access(user, host, on, is_wide))
    return found


async def owners(schema: Schema) -> set[str]:
    """Return the logins that may make tables in the whole schema."""
    query = "SELECT User FROM mysql.db WHERE Db = %s AND Create_priv = 'Y'"
    return {str(user) for (user,) in await schema.run(query, schema.in_grant)}


async def revoke_access(schema: Schema, ours: Collection[str] = ()) -> None:
    """Revoke all rights in the tenant's schema except those of ``ours``. A session in it keeps them until it ends.

    Raises GrantError for a pattern that matches other schemas too.
    """
    for one in sorted(await access_of_others(schema, ours), key=attrgetter("is_wide")):
        if one.is_wide:
            on, who = one.on.replace("%%", "%"), f"{one.user}@{one.host}"
            raise schema.error(
                f"{who} has rights on the schemas that match {on}, which include the tenant's: revoke them "
                f"(REVOKE ALL PRIVILEGES ON {on} FROM {who}) and run it again"
            )
        for what in ("GRANT OPTION", "ALL PRIVILEGES"):
            await schema.run(f"REVOKE {what} ON {one.on} FROM %s@%s", one.user, one.host, fine=_NO_SUCH_GRANT)


async def may_enter_all(schema: Schema) -> set[str]:
    """Return the users who may enter every schema, and who has their rights because they are roles."""
    users = {schema.session.user, *(str(user) for (user,) in await schema.run(_EVERYWHERE))}
    edges = await schema.run("SELECT FROM_USER, TO_USER FROM mysql.role_edges")
    while more := {str(member) for role, member in edges if role in users} - users:
        users |= more
    return users


async def set_rights(schema: Schema, login: str, wanted: frozenset[str]) -> None:
    """Give a login the rights ``wanted``, and revoke all others, which an open session may keep."""
    for statement, values, _ in await missing_grants(schema, login, wanted):
        await schema.run(statement, *values)


async def missing_grants(schema: Schema, login: str, wanted: frozenset[str]) -> list[RightsChange]:
    """Return the missing statements: after them, a login has the rights ``wanted`` and no others."""
    steps = list[RightsChange]()
    for role, member, *hosts in await schema.run(_ROLES, login):
        is_role = role == login  # and the member may do what the login may
        problem = Problem(ProblemKind.OPEN_TO_OTHERS, member) if is_role else Problem(ProblemKind.TOO_MANY_RIGHTS, role)
        steps.append(("REVOKE %s@%s FROM %s@%s", (role, hosts[0], member, hosts[1]), problem))
    own, held = f"{identifier(schema.in_grant)}.*", await _held(schema, login)
    for on, rights in held.items():
        if on == own and "ALL PRIVILEGES" in rights and wanted:  # so that what it keeps is never revoked
            rights = rights - {"ALL PRIVILEGES"} | RIGHTS[Role.OWNER] | _PROGRAMS
        beyond = rights - wanted if on == own else rights
        whole = beyond & {"ALL PRIVILEGES"}
        for part in (beyond & {"GRANT OPTION"} if whole else beyond, whole):
            if what := ", ".join(sorted(part)):  # in one statement, or MySQL may keep dynamic rights
                problem = Problem(ProblemKind.TOO_MANY_RIGHTS, f"{what} on {on}")
                steps.append((f"REVOKE {what} ON {on} FROM %s@'%%'", (login,), problem))
    if not wanted <= held.get(own, set()) and "ALL PRIVILEGES" not in held.get(own, set()):
        statement = f"GRANT {', '.join(sorted(wanted))} ON {own} TO %s@'%%'"
        steps.append((statement, (login,), Problem(ProblemKind.RIGHTS_MISSING)))
    return steps


async def _held(schema: Schema, login: str) -> dict[str, set[str]]:
    """Return what a login holds on each object, by SHOW GRANTS, with each line that it cannot read under "?"."""
    held = defaultdict[str, set[str]](set)
    for (line,) in await schema.run("SHOW GRANTS FOR %s@'%%'", login):
        if _HARMLESS.fullmatch(line):
            continue
        if not (parsed := _GRANT.fullmatch(line)):
            held["?"].add(line)
            continue
        # Columns have commas too: SELECT (`a`, `b`)
        rights = {*re.split(r", ?(?![^(]*\))", parsed["rights"])} - {"USAGE"}
        if " WITH GRANT OPTION" in re.sub(_NAME, "", parsed["rest"]):
            rights.add("GRANT OPTION")
        # One set for all lines of an object: MySQL may refuse to revoke a dynamic right without a static one (3879).
        held[parsed["on"].replace("%", "%%")] |= rights
    return held
