"""What is read of tenants on MySQL: what exists, what is wrong, and how much they use."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

from ....engines import Engine
from ....errors import InvalidArgumentError
from ..._naming import Role, names_of
from ..._outcomes import Problem, ProblemKind
from .. import Found
from . import rights
from .accounts import accounts
from .leftovers import definers
from .session import Schema, Session

_NUMBER = 8  # digits at the end of a login's name
_ENDING_SECONDS = 0.2  # for which a session that was killed may still be listed


async def exists(schema: Schema) -> bool:
    query = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
    return any(name == schema.name for (name,) in await schema.read(query, schema.name))


async def _is_empty(schema: Schema) -> bool:
    queries = [
        f"SELECT 1 FROM information_schema.{what} WHERE {of}_SCHEMA = %s LIMIT 1"
        for what, of in (("TABLES", "TABLE"), ("ROUTINES", "ROUTINE"), ("EVENTS", "EVENT"))
    ]
    return not any([await schema.read(query, schema.name) for query in queries])


async def find(schema: Schema) -> Found:
    existing = await accounts(schema, [schema.name])
    others, is_there = existing.pop(schema.name, None), await exists(schema)
    return Found(
        database=is_there,
        # A tenant's schema has a login of the tenant, perhaps an ended one, before anybody can make something in it.
        is_foreign=is_there and not existing and not await _is_empty(schema),
        logins=tuple(each.login for each in existing.values() if not each.is_locked),
        ended=tuple(each.login for each in existing.values() if each.is_locked),
        namesake=others is not None and not others.is_locked,
    )


async def problems(schema: Schema, logins: Mapping[str, Role] | None) -> frozenset[Problem]:
    """See ``Server``. An ended login has rights only while code runs as it, and the tenant is not suspended."""
    existing, on_record = await accounts(schema, [schema.name, *(logins or ())]), logins or {}
    if (namesake := existing.get(schema.name)) and schema.name not in on_record and not namesake.is_locked:
        del existing[schema.name]  # that of others
    ended = {each.login for each in existing.values() if each.is_locked}
    run_as = await definers(schema) if ended and on_record else set[str]()
    most, open_to = await schema.most(), await rights.access_of_others(schema, existing)
    found = {Problem(ProblemKind.OPEN_TO_OTHERS, one.user) for one in open_to}
    found |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in {*existing} - ended - {*on_record}}
    found |= {Problem(ProblemKind.UNKNOWN_LOGIN, login) for login in await intruders(schema)}
    owners = rights.RIGHTS[Role.OWNER]
    wanted = {login: owners if login in run_as else frozenset[str]() for login in ended - {*on_record}}
    for account in existing.values():
        if account.login in on_record and account.is_ours:
            wanted[account.login] = rights.RIGHTS[on_record[account.login]]
            if not (0 < account.connections <= most and account.keeps_password):
                found.add(Problem(ProblemKind.RIGHTS_MISSING))
    for login, rights_of_login in wanted.items():
        found |= {problem for *_, problem in await rights.missing_grants(schema, login, rights_of_login)}
    return frozenset(found)


async def intruders(schema: Schema) -> set[str]:
    """Return the logins that are ended or gone, and have a session: it began to log in before the end."""
    query = (
        "SELECT DISTINCT PROCESSLIST_USER FROM performance_schema.threads "
        "WHERE PROCESSLIST_USER = %s OR PROCESSLIST_USER BETWEEN %s AND %s"
    )

    async def with_a_session() -> set[str]:
        rows = await schema.read(query, schema.name, schema.names.stem, f"{schema.names.stem}g")
        return {str(user) for (user,) in rows if schema.names.is_login(user) or user == schema.name}

    found = await with_a_session()
    if found:
        existing = await accounts(schema, [schema.name])
        found -= {each.login for each in existing.values() if not each.is_locked}
    if found:
        await asyncio.sleep(_ENDING_SECONDS)
        found &= await with_a_session()
    return found


async def stems(session: Session) -> dict[str, str]:
    """Return the schema of each tenant, by the beginning of its logins' names. Nobody else's accounts have a limit."""
    users = await session.rows("SELECT User FROM mysql.user WHERE Host = '%%' AND max_user_connections > 0")
    made, found = {str(user)[:-_NUMBER] for (user,) in users}, dict[str, str]()
    for (schema,) in await session.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA"):
        with suppress(InvalidArgumentError):
            if (stem := names_of(schema, Engine.MYSQL).stem) in made:
                found[stem] = schema
    return found


async def usage(session: Session) -> Mapping[str, tuple[int, int]]:
    made = await stems(session)
    connections = dict.fromkeys(made.values(), 0)
    # SHOW PROCESSLIST hangs while a session changes its user.
    query = "SELECT PROCESSLIST_USER, PROCESSLIST_DB FROM performance_schema.threads WHERE PROCESSLIST_USER IS NOT NULL"
    for user, schema_in_use in await session.rows(query):
        schema = made.get(user[:-_NUMBER]) or schema_in_use
        if schema in connections:
            connections[schema] += 1
    used = dict.fromkeys(connections, 0)
    for name, size in await session.rows(
        "SELECT NAME, FILE_SIZE FROM information_schema.INNODB_TABLESPACES WHERE NAME LIKE '%%/%%'"
    ):
        schema = re.sub("@([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), str(name).partition("/")[0])
        if schema in used:
            used[schema] += int(size)
    return {schema: (used[schema], connections[schema]) for schema in connections}
