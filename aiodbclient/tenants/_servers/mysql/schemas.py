"""A tenant's schema: whether it exists, what it has besides tables, and what acts there without a session.

- Programs: events, routines, views and triggers. They run as the login that made them, which must keep its rights for
  those of others to work.
- A schema that is read-only.
- Prepared transactions, which keep their locks.

``read_stored_programs`` returns the statements that make the programs, without DEFINER. Only an administrator may make
something that runs with another login's rights. Without DEFINER it runs with the rights of the login that restores it:
the tenant's. ``mysqldump`` cannot leave it out, and without SHOW_ROUTINE it sees no routine of another definer.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence

from ..._naming import Role
from .rights import RIGHTS
from .session import Schema, identifier, in_backticks

# By the index, which ignores case: without it the server collects the locks of all tenants.
_HELD = """
SELECT DISTINCT OBJECT_NAME FROM performance_schema.data_locks
WHERE OBJECT_SCHEMA = %s AND OBJECT_SCHEMA COLLATE utf8mb4_bin = %s
UNION SELECT OBJECT_NAME FROM performance_schema.metadata_locks
WHERE OBJECT_SCHEMA COLLATE utf8mb4_bin = %s AND OBJECT_TYPE = 'TABLE' AND LOCK_STATUS = 'GRANTED' ORDER BY 1
"""

_ROUTINES = "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s ORDER BY 1, 2"
_TRIGGERS = """
SELECT 'TRIGGER', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s
ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER
"""
_EVENTS = "SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s ORDER BY 2"
_VIEWS = """
SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS JOIN information_schema.VIEWS
USING (TABLE_SCHEMA, TABLE_NAME) WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
_DEFINERS = """
SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s
UNION ALL SELECT DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s
UNION ALL SELECT DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s
UNION ALL SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s
"""
_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\")"
_DEFINER = re.compile(rf"(CREATE (?:ALGORITHM=\w+ )?)DEFINER={_NAME}(?:@{_NAME})? ")


async def exists(schema: Schema) -> bool:
    query = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
    return any(name == schema.name for (name,) in await schema.run(query, schema.name))


async def rights_of_ended(schema: Schema, ended: Collection[str]) -> Mapping[str, frozenset[str]]:
    """Return the rights of each ended login: the owner's while a program of the schema runs as it, otherwise none."""
    run_as = {str(definer).removesuffix("@%") for (definer,) in await schema.run(_DEFINERS, *[schema.name] * 4)}
    return {login: RIGHTS[Role.OWNER] if login in run_as else frozenset() for login in ended}


async def read_stored_programs(schema: Schema) -> tuple[str, str]:
    """Return the script for routines, views and triggers, and the one for events. Runs none of them."""
    routines, triggers, events = [
        await _shown(schema, await schema.run(query, schema.name)) for query in (_ROUTINES, _TRIGGERS, _EVENTS)
    ]
    return _script([*routines, *await _views(schema), *triggers]), _script(events)


async def _shown(schema: Schema, programs: Sequence[tuple[str, str]]) -> list[str]:
    """The statements that make programs, each after its settings."""
    statements = list[str]()
    for kind, name in programs:
        [shown] = await schema.run(f"SHOW CREATE {kind} {identifier(schema.name)}.{identifier(name)}")
        zone = f", time_zone = '{shown[2]}'" if kind == "EVENT" else ""
        mode, statement, collation = shown[1], shown[3 if zone else 2], shown[5 if zone else 4]
        if statement is None:
            raise schema.error(f"the administrator may not read the {kind.lower()} {name!r}")
        statements += [
            f"SET sql_mode = '{mode}', collation_connection = '{collation}'{zone}",
            _DEFINER.sub(r"\1", statement, count=1),
        ]
    return statements


async def _views(schema: Schema) -> list[str]:
    """The statements that make the views: first each with its columns alone, because one may read another."""
    columns = dict[str, list[str]]()
    for view, column in await schema.run(_VIEWS, schema.name):
        columns.setdefault(view, []).append(f"1 AS {in_backticks(column)}")
    stubs = [f"CREATE VIEW {in_backticks(view)} AS SELECT {', '.join(of_view)}" for view, of_view in columns.items()]
    if not stubs:
        return []
    statements = ["SET sql_mode = ''", *stubs]
    await schema.run(f"USE {identifier(schema.name)}")  # otherwise the statements name the schema
    for view in columns:
        [(_, statement, _, collation)] = await schema.run(f"SHOW CREATE VIEW {identifier(view)}")
        statement = _DEFINER.sub(r"\1", statement, count=1).replace("CREATE ", "CREATE OR REPLACE ", 1)
        statements += [f"SET collation_connection = '{collation}'", statement]
    return statements


def _script(statements: Sequence[str]) -> str:
    """The statements for the client ``mysql``."""
    if not statements:
        return ""
    delimiter = f"//{secrets.token_hex(4)}"  # the client knows 15 characters of it
    lines = [f"{each} {delimiter}" for each in (*statements, "SET sql_mode = DEFAULT, time_zone = DEFAULT")]
    return "\n".join([f"DELIMITER {delimiter}", *lines, "DELIMITER ;", ""])


async def make_writable(schema: Schema) -> None:
    """Let a schema be written that ``freeze`` made read-only, or its tenant."""
    query = "SELECT OPTIONS FROM information_schema.SCHEMATA_EXTENSIONS WHERE SCHEMA_NAME = %s"
    if any("READ ONLY=1" in (options or "") for (options,) in await schema.run(query, schema.name)):
        await schema.run(f"ALTER DATABASE {identifier(schema.name)} READ ONLY = 0")


async def refuse_prepared(schema: Schema) -> None:
    """After all sessions in the schema were ended: raise GrantError if a prepared transaction holds tables of it."""
    held = [str(table) for (table,) in await schema.run(_HELD, schema.name, schema.name, schema.name)]
    if held:  # whoever knows the name of the transaction can commit it
        raise schema.error(
            f"a prepared transaction (XA) holds tables of the schema {schema.name!r}: {', '.join(held[:5])}. Run XA "
            "ROLLBACK with its name, or ask the provider to: XA RECOVER lists it to XA_RECOVER_ADMIN. Then run it again"
        )
