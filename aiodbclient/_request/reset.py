"""Reset the password of a user, and read it back if the request was sent twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from attrs import evolve

from .._json.converter import setting_names, write
from ..engines import Capabilities
from ..errors import DatabaseClientError
from ..models import MySQLSettings, User
from .answer import Answer
from .context import ClusterContext
from .operations import GET_USER, RESET_AUTH

_LONGEST = 10.0  # seconds to wait for a lost reset that the server may still perform
_LOOKS = 4  # how often to read the password, which can be empty right after a reset


async def reset_password(context: ClusterContext, name: str, mysql_settings: MySQLSettings | None = None) -> User:
    """Give the user ``name`` a new password. The old one stops working at once.

    If the answer to a first try is lost and a second try succeeds, the server may perform the two in either order. The
    password of the last one counts. So the client waits, then reads the password back. It waits for the call's timeout
    if the first try timed out, otherwise for twice ``base_delay``, and at most for 10 seconds. It cannot detect a
    server that performs the lost try even later.

    Args:
        context: The cluster.
        name: The user.
        mysql_settings: The authentication plugin of a MySQL user from now on.

    Raises:
        InvalidResponseError: Two resets were sent, and the API does not return the user's password:
            ``may_have_applied`` is set. Or the answer is not the documented one.
        DatabaseClientError: As ``ClusterContext.send``.
    """
    body = {} if mysql_settings is None else {"mysql_settings": write(mysql_settings)}
    answer = await context.send(RESET_AUTH, name, body, setting_names(mysql_settings, None))
    user = answer.read(User)
    if not answer.call.lost or user.password is None:
        return user
    return evolve(user, password=await _password_of(context, name, answer))


async def _password_of(context: ClusterContext, name: str, answer: Answer) -> str:
    """Read the password that is valid after several resets."""
    options = answer.call.options
    await asyncio.sleep(min(options.timeout if answer.call.timed_out else 2 * options.retry.base_delay, _LONGEST))
    capabilities = Capabilities.of(context.engine or "") or Capabilities()
    for look in range(_LOOKS if capabilities.returns_passwords else 0):
        if look:
            await asyncio.sleep(options.retry.base_delay)
        # The caller must learn that a reset was sent, not why this read failed.
        with suppress(DatabaseClientError):
            password = (await context.send(GET_USER, name)).read(User).password
            if password is not None:
                return password
    raise answer.invalid(
        "followed another reset whose answer was lost. The server may have performed the two in either order, and the "
        "password could not be read back"
    )
