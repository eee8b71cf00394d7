"""Read and set the rights of a tenant's logins, and find out who else has rights in its schema."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC
from typing import Literal, TypeAlias

from attrs import frozen

from ....errors import InvalidArgumentError
from ..._naming import Role
from ..._outcomes import Problem, ProblemKind
from .. import Administrator
from .accounts import accounts
from .session import Schema, Session, identifier

RIGHTS: Mapping[Role, frozenset[str]] = {
    Role.OWNER: frozenset({"ALL PRIVILEGES"}),
    Role.WRITER: frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE"}),
    Role.READER: frozenset({"SELECT", "SHOW VIEW"}),
}
OF_A_DUMP = frozenset({"SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "LOCK TABLES", "EXECUTE"})
_MAX_IN_GRANT = 64  # characters of a schema as GRANT takes it
_NO_SUCH_GRANT = (1141, 1147, 1403)
_PRIVILEGES = (
    "SELECT PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES"
    " WHERE REPLACE(GRANTEE, '''', '') = CURRENT_USER()"
)
_GRANTED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "CREATE VIEW"})
_NAME = r"`(?:[^`]|``)*`"
_GRANT = re.compile(
    rf"GRANT (?P<rights>(?:[^`]|{_NAME})+?) ON (?P<on>\*\.\*|(?:[A-Z ]+ )?{_NAME}\.(?:\*|{_NAME})) TO (?P<rest>.*)",
    re.DOTALL,
)
# PROXY: anybody may grant it on himself, and only he can revoke it. It lets the grantee act as him, and as nobody else.
# REVOKE: a restriction of a right on all schemas. Server roles are read from a table.
_HARMLESS = re.compile(rf"GRANT PROXY ON .*|REVOKE .*|SET DEFAULT ROLE .*|GRANT {_NAME}(@{_NAME})? TO .*", re.DOTALL)
Step: TypeAlias = tuple[str, tuple[str, ...], Problem]  # a statement, its values, and the problem until it has run


@frozen
class Access:
    """The rights of one account, or one role of the server, on one object."""

    user: str
    host: str
    on: str  # as in GRANT: a pattern of schemas, a table or a routine
    is_wide: bool  # a pattern for other schemas too; an unescaped ``_`` in the name does not count

    @property
    def grantee(self) -> str:
        return f"{self.user}@{self.host}"


@frozen
class Held:
    """The rights that a login holds on an object, and whether it may grant them to others."""

    rights: frozenset[str]
    on: str
    grantable: bool


async def administrator(session: Session) -> Administrator:
    [(name, version, connections, clock)] = await session.rows(
        "SELECT CURRENT_USER(), VERSION(), @@max_connections, UTC_TIMESTAMP(6)"
    )
    privileges = dict(await session.rows(_PRIVILEGES))
    lacks = [right for right in ("CREATE USER", "PROCESS") if right not in privileges]
    lacks += sorted(f"{right} WITH GRANT OPTION" for right in _GRANTED if privileges.get(right) != "YES")
    return Administrator(name, version, tuple(lacks), int(connections), clock.replace(tzinfo=UTC))


async def access_of_others(schema: Schema, ours: Collection[str]) -> list[Access]:
    """List the rights in the tenant's schema that are not of the logins ``ours``, nor for every schema.

    An account for one host is others'. Those of the administrator are left out: where it has rights on every schema,
    REVOKE on one of them would restrict it there.
    """
    name, is_literal, found = schema.name, schema.session.literal_names, list[Access]()
    query = (
        f"SELECT Host, User, Db, NULL, '' FROM mysql.db WHERE %s {'=' if is_literal else 'LIKE'} Db "
        "UNION ALL SELECT Host, User, Db, Table_name, '' FROM mysql.tables_priv WHERE Db = %s "
        "UNION ALL SELECT Host, User, Db, Routine_name, Routine_type FROM mysql.procs_priv WHERE Db = %s"
    )
    ((administrator,),) = await schema.read("SELECT CURRENT_USER()")
    for host, user, db, of_one, kind in await schema.read(query, name, name, name):
        on = f"{kind} {identifier(db)}.{'*' if of_one is None else identifier(of_one)}".lstrip()
        is_wide = of_one is None and not is_literal and db != schema.in_grant and (db != name or "%" in db)
        one = Access(user, host, on, is_wide)
        if one.grantee != administrator and (user not in ours or host != "%"):
            found.append(one)
    return found


async def grantees(schema: Schema, right: Literal["INSERT", "CREATE"]) -> set[str]:
    """Return the logins that have a right on the whole schema."""
    query = f"SELECT User FROM mysql.db WHERE Db = %s AND {right.capitalize()}_priv = 'Y'"
    return {str(user) for (user,) in await schema.read(query, schema.in_grant)}


async def revoke_access(schema: Schema, ours: Collection[str] = ()) -> set[str]:
    """Revoke the rights in the tenant's schema of everyone except ``ours``. Raises GrantError for a wide pattern.

    Return whose they were: a session that has entered the schema keeps them.
    """
    others = await access_of_others(schema, ours)
    for one in others:
        if not one.is_wide:
            for what in ("GRANT OPTION", "ALL PRIVILEGES"):
                statement = f"REVOKE {what} ON {one.on} FROM %s@%s"
                await schema.change(statement, one.user, one.host, fine=_NO_SUCH_GRANT)
    _refuse_wide(schema, others)
    return {one.user for one in others}


def _refuse_wide(schema: Schema, others: Collection[Access]) -> None:
    """Raise GrantError for a pattern that matches other schemas too."""
    for one in others:
        if one.is_wide:
            on = one.on.replace("%%", "%")
            raise schema.error(
                f"{one.grantee} has rights on the schemas that match {on}, which include the tenant's: revoke them "
                f"(REVOKE ALL PRIVILEGES ON {on} FROM {one.grantee}) and run it again",
            )


def check_name(schema: Schema) -> None:
    """Refuse the name of a schema on which the server could not grant rights. Raises InvalidArgumentError."""
    if len(schema.in_grant) > _MAX_IN_GRANT:
        raise InvalidArgumentError(
            f"{schema.name!r} is invalid as a tenant's name on this server: GRANT takes {_MAX_IN_GRANT} characters and "
            f"counts each _ twice, which makes {len(schema.in_grant)}; nothing was made"
        )


async def grant(schema: Schema, login: str, wanted: frozenset[str]) -> None:
    on = f"{identifier(schema.in_grant)}.*"
    await schema.change(f"GRANT {', '.join(sorted(wanted))} ON {on} TO %s@'%%'", login)


async def set_rights(schema: Schema, login: str, wanted: frozenset[str]) -> None:
    """Give a login the rights ``wanted``, and revoke all others. What it has of them stays."""
    for statement, values, _ in await missing_grants(schema, login, wanted):
        await schema.change(statement, *values)


async def missing_grants(schema: Schema, login: str, wanted: frozenset[str]) -> list[Step]:
    """Return the missing statements: after them, a login has the rights ``wanted`` and no others.

    What it has beyond these on an object is revoked in one statement, or MySQL may keep dynamic rights.
    """
    roles = "SELECT FROM_USER, FROM_HOST FROM mysql.role_edges WHERE TO_USER = %s AND TO_HOST = '%%'"
    steps: list[Step] = [
        ("REVOKE %s@%s FROM %s@'%%'", (role, host, login), Problem(ProblemKind.TOO_MANY_RIGHTS, role))
        for role, host in await schema.read(roles, login)
    ]
    own, held = f"{identifier(schema.in_grant)}.*", await _held(schema, login)
    for one in held:
        beyond = one.rights
        if one.on == own:
            beyond = frozenset() if wanted == RIGHTS[Role.OWNER] else one.rights - wanted
        whole = ["ALL PRIVILEGES"] if "ALL PRIVILEGES" in beyond else []
        rest = [*([] if whole else sorted(beyond)), *(["GRANT OPTION"] if one.grantable else [])]
        for what in (", ".join(rest), *whole):
            if what:
                problem = Problem(ProblemKind.TOO_MANY_RIGHTS, f"{what} on {one.on}")
                steps.append((f"REVOKE {what} ON {one.on} FROM %s@'%%'", (login,), problem))
    if wanted and not any(wanted <= one.rights and one.on == own for one in held):
        statement = f"GRANT {', '.join(sorted(wanted))} ON {own} TO %s@'%%'"
        steps.append((statement, (login,), Problem(ProblemKind.RIGHTS_MISSING)))
    return steps


async def other_grantees(schema: Schema) -> tuple[str, ...]:
    """Return who else has rights in the tenant's schema. Refuses a pattern for other schemas, as ``shut`` does."""
    others = await access_of_others(schema, await accounts(schema))
    _refuse_wide(schema, others)
    return tuple(sorted({one.user for one in others}))


async def _held(schema: Schema, login: str) -> list[Held]:
    """Return what a login holds on each object, by SHOW GRANTS. ``on`` is "?" where this cannot read a line.

    The lines of one object are one: without a static right beside it, MySQL may refuse to revoke a dynamic one (3879).
    """
    found = dict[str, Held]()
    for (line,) in await schema.read("SHOW GRANTS FOR %s@'%%'", login):
        if _HARMLESS.fullmatch(line):
            continue
        on, rights, grantable = "?", frozenset({line}), False
        if parsed := _GRANT.fullmatch(line):
            on = parsed["on"].replace("%", "%%")
            # Columns have commas too: SELECT (`a`, `b`)
            rights = frozenset(re.split(r", ?(?![^(]*\))", parsed["rights"])) - {"USAGE"}
            grantable = " WITH GRANT OPTION" in re.sub(_NAME, "", parsed["rest"])
        before = found.get(on, Held(frozenset(), on, grantable=False))
        found[on] = Held(before.rights | rights, on, before.grantable or grantable)
    return [one for one in found.values() if one.rights or one.grantable]
