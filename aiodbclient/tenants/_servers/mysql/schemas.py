"""A tenant's schema: whether it exists, and the views and programs in it."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress

from ...errors import GrantError
from .connection import Schema, identifier

_VIEWS = "SELECT TABLE_NAME, DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s"
_PROGRAMS = """
SELECT ROUTINE_SCHEMA, ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s
UNION ALL SELECT TRIGGER_SCHEMA, 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s
UNION ALL SELECT EVENT_SCHEMA, 'event', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s
"""
# MySQL 9 has kinds of views too: MATERIALIZED stands before the definer, and JSON RELATIONAL DUALITY before VIEW.
_CREATE_VIEW = re.compile(r"CREATE ([^`]*)DEFINER=`[^`]+`@`%` SQL SECURITY \w+ ([A-Z ]*VIEW )")


async def exists(schema: Schema) -> bool:
    query = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
    return any(name == schema.name for (name,) in await schema.run(query, schema.name))


async def has_content(schema: Schema) -> bool:
    query = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s LIMIT 1"
    return bool(await schema.run(query, schema.name) or await programs(schema))


async def programs(schema: Schema) -> list[str]:
    """Return the routines, triggers and events of the schema."""
    found = await schema.run(_PROGRAMS, *[schema.name] * 3)
    # The server ignores the case of a schema's name here.
    return sorted(f"{kind.lower()} {program}" for where, kind, program in found if where == schema.name)


async def release_views(schema: Schema, logins: Collection[str]) -> None:
    """Let the views of logins run with the rights of who uses them, so that they work when the logins have none."""
    # Nobody but its definer may ALTER a view, but the administrator may replace it. Creating one runs nothing of it.
    for view, definer in await schema.run(_VIEWS, schema.name):
        if definer.removesuffix("@%") not in logins:
            continue
        of_view = f"{identifier(schema.name)}.{identifier(view)}"
        with suppress(GrantError):  # it reads a table that is gone, or a session holds it
            [(_, statement, _, collation)] = await schema.run(f"SHOW CREATE VIEW {of_view}")
            if made := _CREATE_VIEW.match(statement):
                await schema.run("SET SESSION collation_connection = %s", collation)
                rest = statement[made.end() :].replace("%", "%%")
                await schema.run(f"CREATE OR REPLACE {made[1]}SQL SECURITY INVOKER {made[2]}{rest}")


async def make_writable(schema: Schema) -> None:
    """Let a schema be written that its tenant made read-only."""
    query = "SELECT OPTIONS FROM information_schema.SCHEMATA_EXTENSIONS WHERE SCHEMA_NAME = %s"
    if any("READ ONLY=1" in (options or "") for (options,) in await schema.run(query, schema.name)):
        await schema.run(f"ALTER DATABASE {identifier(schema.name)} READ ONLY = 0")
