"""Giving a user a new password, and making sure of it where the request was sent twice."""

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

_LONGEST = 10.0  # seconds to wait for a reset that may still be under way
_LOOKS = 4  # reads of a password that is empty, as a fresh one may be for a moment


async def reset_password(context: ClusterContext, name: str, mysql_settings: MySQLSettings | None = None) -> User:
    """Give the user ``name`` a new password; the old one ends at once.

    If the answer to a first try is lost and a second try is answered, the server may perform the two in either order,
    and the password of the last one counts. So the client waits and reads the password back. It waits for the call's
    timeout if the first try took too long, otherwise for twice the first delay of its retry policy, and never longer
    than 10 seconds. It cannot detect a server that performs the lost try even later.

    Args:
        context: The cluster.
        name: The user.
        mysql_settings: How it proves its password from now on.

    Raises:
        InvalidResponseError: Two resets were sent, and the API does not return the user's password:
            ``may_have_applied`` is set. Or it is no documented answer.
        DatabaseClientError: As ``ClusterContext.send``.
    """
    body = {} if mysql_settings is None else {"mysql_settings": write(mysql_settings)}
    answer = await context.send(RESET_AUTH, name, body, setting_names(mysql_settings, None))
    user = answer.read(User)
    if not answer.call.lost or user.password is None:
        return user
    return evolve(user, password=await _password_of(context, name, answer))


async def _password_of(context: ClusterContext, name: str, answer: Answer) -> str:
    """The password that counts after the resets of ``answer``, more than one of which may be performed."""
    options = answer.call.options
    await asyncio.sleep(min(options.timeout if answer.call.timed_out else 2 * options.retry.base_delay, _LONGEST))
    capabilities = Capabilities.of(context.engine or "") or Capabilities()
    for look in range(_LOOKS if capabilities.returns_passwords else 0):
        if look:
            await asyncio.sleep(options.retry.base_delay)
        # If it cannot be read, the caller must know that the reset was sent, not why it cannot be read.
        with suppress(DatabaseClientError):
            password = (await context.send(GET_USER, name)).read(User).password
            if password is not None:
                return password
    raise answer.invalid(
        "came after another reset whose answer was lost; either may be the last one that the server performed, and the "
        "password of the user could not be read back"
    )
