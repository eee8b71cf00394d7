"""The statements that make what is no table in a tenant's schema, without DEFINER, for the client ``mysql``.

Only an administrator may make something that runs with another login's rights. Without DEFINER it runs with the rights
of the login that restores it: the tenant's. ``mysqldump`` cannot leave it out, and without SHOW_ROUTINE it sees no
routine of another definer.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from .leftovers import EXACTLY
from .session import Schema, identifier, in_backticks

_ROUTINES = (
    "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s {} ORDER BY 1, 2"
)
_TRIGGERS = """
SELECT 'TRIGGER', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s {}
ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER
"""
_EVENTS = "SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s {} ORDER BY 2"
_VIEWS = """
SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS JOIN information_schema.VIEWS
USING (TABLE_SCHEMA, TABLE_NAME) WHERE TABLE_SCHEMA = %s {} ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\")"
_DEFINER = re.compile(rf"(CREATE (?:ALGORITHM=\w+ )?)DEFINER={_NAME}(?:@{_NAME})? ")


async def read_programs(schema: Schema) -> tuple[str, str]:
    """Return the script for routines, views and triggers, and the one for events. Runs none of them."""
    routines, triggers, events = [
        await _shown(schema, await schema.read(query.format(EXACTLY), schema.name))
        for query in (_ROUTINES, _TRIGGERS, _EVENTS)
    ]
    return _script([*routines, *await _views(schema), *triggers]), _script(events)


async def _shown(schema: Schema, programs: Sequence[tuple[str, str]]) -> list[str]:
    """The statements that make programs, each after its settings."""
    statements = list[str]()
    for kind, name in programs:
        [shown] = await schema.read(f"SHOW CREATE {kind} {identifier(schema.name)}.{identifier(name)}")
        zone = f", time_zone = '{shown[2]}'" if kind == "EVENT" else ""
        mode, statement, collation = shown[1], shown[3 if zone else 2], shown[5 if zone else 4]
        if statement is None:
            raise schema.error(f"the administrator may not read the {kind.lower()} {name!r}")
        statements += [
            f"SET sql_mode = '{mode}', collation_connection = '{collation}'{zone}",
            _without_definer(statement),
        ]
    return statements


async def _views(schema: Schema) -> list[str]:
    """The statements that make the views: first each with its columns alone, because one may read another."""
    columns = dict[str, list[str]]()
    for view, column in await schema.read(_VIEWS.format(EXACTLY), schema.name):
        columns.setdefault(view, []).append(f"1 AS {in_backticks(column)}")
    stubs = [f"CREATE VIEW {in_backticks(view)} AS SELECT {', '.join(of_view)}" for view, of_view in columns.items()]
    statements = ["SET sql_mode = ''", *stubs]
    await schema.read(f"USE {identifier(schema.name)}")  # otherwise the statements name the schema
    for view in columns:
        [(_, statement, _, collation)] = await schema.read(f"SHOW CREATE VIEW {identifier(view)}")
        statement = _without_definer(statement).replace("CREATE ", "CREATE OR REPLACE ", 1)
        statements += [f"SET collation_connection = '{collation}'", statement]
    return statements if stubs else []


def _without_definer(statement: str) -> str:
    return _DEFINER.sub(r"\1", statement, count=1)


def _script(statements: Sequence[str]) -> str:
    """The statements for the client ``mysql``."""
    if not statements:
        return ""
    delimiter = f"//{secrets.token_hex(4)}"  # the client knows 15 characters of it
    lines = [f"{each} {delimiter}" for each in (*statements, "SET sql_mode = DEFAULT, time_zone = DEFAULT")]
    return "\n".join([f"DELIMITER {delimiter}", *lines, "DELIMITER ;", ""])
