"""Find events that could set the password of an ended login.

An event runs as the login that made it, even while that login is locked. So an attacker with a leaked credential could
leave an event that sets a password, and return when ``rotate`` uses the login again.
"""

from __future__ import annotations

import re

from ...errors import GrantError
from .mysql_server import MySQLSession

# These set a password: SET PASSWORD, ALTER USER ... IDENTIFIED, or a statement that is built at run time.
# Functions and triggers cannot do any of this.
_SETS = re.compile(r"\b(PASSWORD|IDENTIFIED|PREPARE|EXECUTE)\b", re.IGNORECASE)
_CALLS = re.compile(r"\bCALL\b", re.IGNORECASE)


async def check_events(server: MySQLSession, tenant: str, schema: str, username: str) -> None:
    """Refuse a locked login if an event in the tenant's schema could set its password.

    Args:
        server: The administrator's session.
        tenant: The tenant.
        schema: The tenant's schema.
        username: The login, before it is used again.

    Raises:
        GrantError: There is such an event.
    """
    ((shown, *_),) = await server.rows(tenant, "SHOW CREATE USER %s@'%%'", username)
    if not re.search(r"\bACCOUNT LOCK\b", str(shown)):
        return
    query = (
        "SELECT EVENT_NAME, EVENT_DEFINITION FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s AND DEFINER = %s"
    )
    events = await server.rows(tenant, query, schema, f"{username}@%")
    if not events:
        return
    query = "SELECT ROUTINE_DEFINITION FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s"
    routines = [text for (text,) in await server.rows(tenant, query, schema)]
    calls_set = any(text is None or _SETS.search(text) for text in routines)
    for name, text in events:
        if text is None or _SETS.search(text) or (calls_set and _CALLS.search(text)):
            raise GrantError(
                f"tenant {tenant!r}: the event {name!r} runs as the login {username!r} and could set its password, so "
                f"the login stays locked: drop the event (DROP EVENT `{schema}`.`{name}`) and run it again",
                tenant=tenant,
            )
