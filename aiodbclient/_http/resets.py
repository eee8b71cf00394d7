"""Reset a password, and find out which one counts if an answer was lost."""

from __future__ import annotations

from contextlib import suppress

from attrs import evolve

from .._backoff import poll
from .._json import UserChange
from ..engines import capabilities_of
from ..errors import DatabaseClientError
from ..models import MySQLSettings, User
from .context import ClusterContext
from .operations import GET_USER, RESET_AUTH
from .retry import was_lost

_MAX_PAUSE = 10.0  # seconds to wait for a lost reset that the server may still perform
_READING = 7  # times ``base_delay``: how long to read the password, which can be empty right after a reset


async def reset_auth(context: ClusterContext, name: str, mysql_settings: MySQLSettings | None) -> User:
    """Give a user a new password, as ``UsersAPI.reset_auth`` says."""
    response = await context.send(RESET_AUTH, name, UserChange(mysql_settings=mysql_settings))
    user = response.read(User)
    if user.password is None or not was_lost(response.earlier):
        return user
    # Wait for the lost reset, then read which password is valid. A reset that the server performs even later is not
    # noticed.
    options, delay = response.call.options, response.call.options.retry.base_delay
    timed_out = any(each.timed_out for each in response.earlier)
    await context.transport.sleep(min(options.timeout if timed_out else 2 * delay, _MAX_PAUSE))
    user = evolve(user, password=None)
    if capabilities_of(context.engine).returns_passwords:
        user = await with_password(context, user, _READING * delay, first=delay)
    if user.password is None:
        raise response.invalid(
            "followed another reset whose answer was lost. The server may have performed the two in either order, and "
            "the password could not be read back"
        )
    return user


async def with_password(context: ClusterContext, user: User, seconds: float, *, first: float) -> User:
    """Return ``user`` with its secrets, read until the API returns a password; as it was if the API returns none."""

    async def read() -> User | None:
        with suppress(DatabaseClientError):  # the caller has a better error
            found = await context.call(GET_USER, user.name, User)
            if found.password:
                return evolve(user, password=found.password, access_cert=found.access_cert, access_key=found.access_key)
        return None

    return user if user.password else await poll(read, seconds, first=first) or user
