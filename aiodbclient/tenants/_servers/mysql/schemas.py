"""A tenant's schema: whether it exists, what it has besides tables, and what acts there without a session.

- Programs: events, routines, views and triggers. They run as the login that made them, which must keep its rights for
  those of others to work.
- A schema that is read-only.
- Prepared transactions, which keep their locks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..._naming import Role
from .rights import RIGHTS
from .session import Schema, identifier

# By the index, which ignores case: without it the server collects the locks of all tenants.
_HELD = """
SELECT DISTINCT OBJECT_NAME FROM performance_schema.data_locks
WHERE OBJECT_SCHEMA = %s AND OBJECT_SCHEMA COLLATE utf8mb4_bin = %s
UNION SELECT OBJECT_NAME FROM performance_schema.metadata_locks
WHERE OBJECT_SCHEMA COLLATE utf8mb4_bin = %s AND OBJECT_TYPE = 'TABLE' AND LOCK_STATUS = 'GRANTED' ORDER BY 1
"""

_DEFINERS = """
SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s
UNION ALL SELECT DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s
UNION ALL SELECT DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s
UNION ALL SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s
"""


async def exists(schema: Schema) -> bool:
    query = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
    return any(name == schema.name for (name,) in await schema.run(query, schema.name))


async def rights_of_ended(schema: Schema, ended: Collection[str]) -> Mapping[str, frozenset[str]]:
    """Return the rights of each ended login: the owner's while a program of the schema runs as it, otherwise none."""
    run_as = {str(definer).removesuffix("@%") for (definer,) in await schema.run(_DEFINERS, *[schema.name] * 4)}
    return {login: RIGHTS[Role.OWNER] if login in run_as else frozenset() for login in ended}


async def make_writable(schema: Schema) -> None:
    """Let a schema be written that its tenant made read-only."""
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
