"""End a tenant's login: close its sessions, and make its password useless.

The intent is stored first, and the claim is renewed before each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from .._request.waits import waits
from ..errors import GrantError, InvalidResponseError, NotFoundError
from ..models import User
from ._claims import ClaimedTenant, Tenant
from ._listing import read_user

T = TypeVar("T")

SOON = 2.0  # seconds until a server accepts a new password and the API returns it (Aiven's documentation of its API)
_VISIBLE = 1.0  # seconds until a new name no longer answers 404
_ENDINGS = 10  # resets of a login with hostile sessions before giving up


class Deletion:
    """Deletes a login through the API.

    Args:
        tenant: The tenant.
        login: One of its logins.
        certain: Whether the login was certainly created. A 404 may then mean that it is too new to be visible.

    Attributes:
        done: Whether the login was deleted or did not exist.
    """

    def __init__(self, tenant: ClaimedTenant, login: str, *, certain: bool = True) -> None:
        self._tenant = tenant
        self._login = login
        self._certain = certain
        self.done = False

    async def run(self) -> None:
        """Delete the login. Does nothing if it is gone."""
        await self._tenant.held.may_write(self._login)
        await if_there(partial(self._tenant.cluster.users.delete, self._login), certain=self._certain)
        self.done = True


async def end_login(
    tenant: ClaimedTenant,
    login: str,
    *,
    certain: bool,
    end_sessions: bool = True,
    password: str | None = None,
    deletion: Deletion | None = None,
) -> None:
    """Reset ``login`` to a discarded password and, on SQL engines, end its sessions. Does nothing if it is gone.

    Afterwards no session of the login is open, and no other password works, even if a logged-in attacker
    changes the password meanwhile. PostgreSQL needs to delete the login for that; on MySQL it is locked.

    Args:
        tenant: The tenant, with the intent for this login stored.
        login: One of its logins.
        certain: Whether the login was certainly created. A 404 may then mean that it is too new to be visible.
        end_sessions: Whether to end its sessions. Otherwise an open session can set another password.
        password: Its password, if no reset is needed because it is deleted afterwards.
        deletion: Deletes the login, if the engine needs it.

    Raises:
        GrantError: A session of the login was faster at each attempt.
    """
    names, sql = tenant.names, tenant.site.sql
    deletion = deletion or Deletion(tenant, login)
    reason = ""
    for ending in range(_ENDINGS):
        await tenant.held.may_write(login)
        if password is None:
            try:
                user = await if_there(partial(tenant.cluster.users.reset_auth, login), certain=certain)
            except InvalidResponseError:  # no password: an open session of the login was faster than the API
                if sql is None or not end_sessions:
                    raise
            else:
                if user is None or sql is None or not end_sessions:
                    return
                if ending == 0 and not user.password:
                    user = await read_with_password(tenant, login) or user
                if ending < _ENDINGS // 2:
                    password = user.password or None
        assert sql is not None
        refused = await tenant.spent.on_sql(sql.end_login(names, login, password, deletion.run))
        if refused is None:
            return
        reason, password = refused, None
    raise GrantError(
        f"tenant {names.tenant!r}: an open session of the login {login!r} keeps it from being ended: {reason}; run "
        "this again",
        tenant=names.tenant,
    )


async def if_there(end: Callable[[], Awaitable[T]], *, certain: bool) -> T | None:
    """Delete or reset a name with ``end``; None if it does not exist.

    A new name may answer 404 for a moment. If it is ``certain`` that it exists, ``end`` is sent again after a
    404, for one or two seconds.
    """
    for wait in waits(_VISIBLE if certain else 0.0):
        await asyncio.sleep(wait)
        with suppress(NotFoundError):
            return await end()
    return None


async def read_with_password(tenant: Tenant, login: str) -> User | None:
    """Read ``login`` for some seconds, until the API returns its password; None if it does not."""
    if not tenant.site.returns_passwords:
        return None
    for wait in waits(SOON):
        await asyncio.sleep(wait)
        found = await read_user(tenant.cluster, login)
        if found is not None and found.password:
            return found
    return None
