"""The accounts of a tenant's logins.

A new account has no rights. Its login can change neither its limits nor PASSWORD REQUIRE CURRENT, so no session of it
can set another password without the current one.

The server removes the password from its logs. While the statement runs, who has PROCESS can see it: the administrator
and the users that the API makes. Each of them may set the password of any login.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from ....errors import ConflictError
from ...errors import GrantError
from .connection import Schema

LIMITS = (
    "WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 MAX_USER_CONNECTIONS {} "
    "PASSWORD REQUIRE CURRENT"
)


@frozen
class Account:
    login: str
    is_locked: bool
    connections: int  # at a time; 0 is no limit
    keeps_password: bool  # a session needs the current password to set another one

    @property
    def is_ours(self) -> bool:
        """Whether a tenant's login was made or ended here. The API makes its users without a limit."""
        return self.connections > 0 or self.keeps_password


async def accounts(schema: Schema, others: Collection[str] = ()) -> dict[str, Account]:
    """Return the accounts of the tenant's form, in the order of their numbers, and those of ``others``."""
    names, more = schema.names, [schema.names.stem, *others]  # IN takes no empty list
    query = (
        "SELECT User, account_locked = 'Y', max_user_connections, COALESCE(Password_require_current, 'N') = 'Y' "
        "FROM mysql.user WHERE Host = '%%' "
        f"AND (User BETWEEN %s AND %s OR User IN ({', '.join(['%s'] * len(more))})) ORDER BY User"
    )
    rows = await schema.run(query, names.stem, f"{names.stem}g", *more)
    return {
        str(login): Account(str(login), bool(locked), int(most), bool(keeps))
        for login, locked, most, keeps in rows
        if names.is_login(login) or login in others
    }


async def check_adoption(schema: Schema, login: str) -> None:
    """Raise ConflictError for a login that the administrator may not end later."""
    reason = "it is the administrator"
    if login != schema.session.user:
        try:
            await schema.run("ALTER USER %s@'%%' ACCOUNT UNLOCK", login)  # as it is
            return
        except GrantError as refused:
            reason = f"the administrator may not alter it ({refused})"
    raise ConflictError(f"the login {login!r} is not the tenant's to take: {reason}; nothing was changed", status=409)
