"""The routines of a tenant's schema. Without SHOW_ROUTINE only the administrator reads those of another definer."""

from __future__ import annotations

import re
import secrets

from .session import Schema, identifier

_LISTED = "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s ORDER BY 1, 2"
_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\")"
_DEFINER = re.compile(rf"CREATE DEFINER={_NAME}@{_NAME} ")


async def read_routines(schema: Schema) -> str:
    """Return the statements that make the routines, without their definers, for the client ``mysql``. Runs none."""
    delimiter, script = f"//{secrets.token_hex(4)}", list[str]()  # the client knows 15 characters of it
    for kind, name in await schema.read(_LISTED, schema.name):
        shown = await schema.read(f"SHOW CREATE {kind} {identifier(schema.name)}.{identifier(name)}")
        _, mode, statement, _, collation, _ = shown[0]
        if statement is None:
            raise schema.error(f"the administrator may not read the routine {name!r}")
        settings = f"SET sql_mode = '{mode}', collation_connection = '{collation}' {delimiter}"
        script += [settings, f"{_DEFINER.sub('CREATE ', statement, count=1)} {delimiter}"]
    if not script:
        return ""
    return "\n".join([f"DELIMITER {delimiter}", *script, f"SET sql_mode = DEFAULT {delimiter}", "DELIMITER ;", ""])
