"""The tenants of a server, also those that are not on record, and what they use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ....engines import Engine
from ....errors import InvalidArgumentError
from ..._naming import names_of
from .session import Session


async def _families(session: Session) -> dict[str, frozenset[str]]:
    """Return the logins of each tenant's schema. Nobody else's accounts have a limit."""
    users = await session.rows("SELECT User FROM mysql.user WHERE Host = '%%' AND max_user_connections > 0")
    existing, found = {str(user) for (user,) in users}, dict[str, frozenset[str]]()
    for (schema,) in await session.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA"):
        try:
            names = names_of(schema, Engine.MYSQL)
        except InvalidArgumentError:
            continue
        if not existing.isdisjoint(names.owner_logins):
            found[schema] = names.all_logins | {names.temporary}
    return found


async def tenants(session: Session) -> Sequence[str]:
    return sorted(await _families(session))


async def _sessions(session: Session) -> list[tuple[str, str | None]]:
    """Return the user and the schema of each session.

    On MySQL, SHOW PROCESSLIST hangs while a session changes its user.
    """
    if not session.is_mariadb and await session.rows("SELECT @@performance_schema") == [(1,)]:
        table = "performance_schema.threads WHERE PROCESSLIST_ID IS NOT NULL"
        query = f"SELECT PROCESSLIST_USER, PROCESSLIST_DB FROM {table}"
        return [(str(user), schema) for user, schema in await session.rows(query)]
    return [(thread.user, thread.schema) for thread in await session.threads()]


async def usage(session: Session) -> Mapping[str, tuple[int, int]]:
    families = await _families(session)
    of_login = {login: schema for schema, logins in families.items() for login in logins}
    connections = dict.fromkeys(families, 0)
    for user, schema_in_use in await _sessions(session):
        schema = of_login.get(user) or schema_in_use
        if schema in connections:
            connections[schema] += 1
    used = dict.fromkeys(families, 0)
    table = "INNODB_SYS_TABLESPACES" if session.is_mariadb else "INNODB_TABLESPACES"
    for name, size in await session.rows(
        f"SELECT NAME, FILE_SIZE FROM information_schema.{table} WHERE NAME LIKE '%%/%%'"
    ):
        schema = re.sub("@([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), str(name).partition("/")[0])
        if schema in used:
            used[schema] += int(size)
    return {schema: (used[schema], connections[schema]) for schema in families}
