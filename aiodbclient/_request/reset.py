"""Reset the password of a user, and recover a password that the API did not return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from attrs import evolve

from .._json.converter import setting_names, write
from ..engines import Capabilities
from ..errors import DatabaseClientError
from ..models import MySQLSettings, User
from .context import ClusterContext
from .operations import GET_USER, RESET_AUTH
from .waits import FIRST, until_seen

_LONGEST = 10.0  # seconds to wait for a lost reset that the server may still perform
_LOOKS = 4  # how long to read the password, which can be empty right after a reset: 0 + 1 + 2 + 4 times ``base_delay``


async def reset_password(context: ClusterContext, name: str, mysql_settings: MySQLSettings | None = None) -> User:
    """Give the user ``name`` a new password. The old one stops working at once.

    If the answer to a first try is lost and a second try succeeds, the server may perform the two in either order. The
    password of the last one counts. So the client waits, then reads the password back. It waits for the call's timeout
    if the first try timed out, otherwise for twice ``base_delay``, and at most for 10 seconds. It cannot detect a
    server that performs the lost try even later.
    """
    body = {} if mysql_settings is None else {"mysql_settings": write(mysql_settings)}
    answer = await context.send(RESET_AUTH, name, body, setting_names(mysql_settings, None))
    user = answer.read(User)
    if not answer.call.lost or user.password is None:
        return user
    options = answer.call.options
    await asyncio.sleep(min(options.timeout if answer.call.timed_out else 2 * options.retry.base_delay, _LONGEST))
    user = evolve(user, password=None)
    if (Capabilities.of(context.engine or "") or Capabilities()).returns_passwords:
        delay = options.retry.base_delay
        user = await with_password(user, lambda: _read(context, name), _LOOKS * delay, first=delay)
    if user.password is None:
        raise answer.invalid(
            "followed another reset whose answer was lost. The server may have performed the two in either order, and "
            "the password could not be read back"
        )
    return user


async def with_password(
    user: User, read: Callable[[], Awaitable[User]], seconds: float, *, first: float = FIRST
) -> User:
    """Return ``user`` with its password: read it until the API returns one, which may take a moment after a change.

    Without a password the user comes back as it was. An error of a read does not count: the caller has a better one.
    """

    async def look() -> User | None:
        with suppress(DatabaseClientError):
            found = await read()
            return evolve(user, password=found.password) if found.password else None
        return None

    return user if user.password else await until_seen(look, seconds, first=first) or user


async def _read(context: ClusterContext, name: str) -> User:
    return (await context.send(GET_USER, name)).read(User)
