"""The accounts of a tenant's logins, and everything that a statement sets on one: password, limits, lock.

A new account has no rights. Its login can change neither its limits nor PASSWORD REQUIRE CURRENT, so no session of it
can set another password without the current one.

The server removes the password from its logs. While the statement runs, who has PROCESS can see it: the administrator
and the users that the API makes. Each of them may set the password of any login.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress

from attrs import frozen

from ....errors import ConflictError
from ..._credential import Secret, new_password
from ...errors import GrantError
from .session import DefinerError, Schema

_HELPER = "made by aiodbclient to end sessions for "  # how the comment on an account of ``helper`` begins
_COMMENT = "COALESCE(User_attributes->>'$.metadata.comment', '')"
_LIMITS = (
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
    rows = await schema.read(query, names.stem, f"{names.stem}g", *more)
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
            await schema.change("ALTER USER %s@'%%' ACCOUNT UNLOCK", login)  # as it is
            return
        except GrantError as refused:
            reason = f"the administrator may not alter it ({refused})"
    raise ConflictError(f"the login {login!r} is not the tenant's to take: {reason}; nothing was changed", status=409)


async def create_account(schema: Schema, login: str, password: Secret, connections: int) -> None:
    with suppress(DefinerError):
        await schema.change(f"CREATE USER %s@'%%' IDENTIFIED BY %s {_LIMITS.format(connections)}", login, password)
        return
    raise schema.error(
        f"the login {login!r} is gone, and an event, routine, trigger or view still runs as it, so MySQL does not "
        "create it again: drop that (information_schema shows its DEFINER), or rotate the tenant, and run it again"
    )


async def repair_account(schema: Schema, login: str, connections: int) -> None:
    """Unlock an account, and set its limits and that its password stays."""
    await schema.change(f"ALTER USER %s@'%%' {_LIMITS.format(connections)} ACCOUNT UNLOCK", login)


async def lock_account(schema: Schema, login: str, connections: int, password: Secret | None) -> None:
    """Lock an account, and stop its open sessions: each may run one statement an hour. None keeps its password."""
    limits = f"WITH MAX_QUERIES_PER_HOUR 1 MAX_USER_CONNECTIONS {connections} ACCOUNT LOCK"
    how, values = ("", (login,)) if password is None else ("IDENTIFIED BY %s ", (login, password))
    await schema.change(f"ALTER USER %s@'%%' {how}{limits}", *values)


async def drop_account(schema: Schema, login: str) -> bool:
    """Drop an account. Return False if code on the server runs as the login."""
    try:
        await schema.change("DROP USER IF EXISTS %s@'%%'", login)
    except DefinerError:
        return False
    return True


@asynccontextmanager
async def helper(schema: Schema, login: str) -> AsyncGenerator[Secret]:
    """Make an account of that name for our own host, which may kill the sessions of all of that name."""
    await drop_helpers(schema, login)
    ((host,),) = await schema.read("SELECT SUBSTRING_INDEX(USER(), '@', -1)")
    password = new_password()
    try:
        comment = f"{_HELPER}{schema.name}"
        await schema.change("CREATE USER %s@%s IDENTIFIED BY %s COMMENT %s", login, host, password, comment)
        yield password
    finally:
        with suppress(GrantError):  # ``end_work`` drops it
            await drop_helpers(schema, login)


async def drop_helpers(schema: Schema, login: str | None = None) -> None:
    """Drop the accounts of ``helper`` for ``login``, or those that earlier work on this tenant left.

    While one is there, nobody of that name can log in from its host.
    """
    query = f"SELECT User, Host, {_COMMENT} FROM mysql.user WHERE Host <> '%%' AND {_COMMENT} LIKE %s"
    for user, host, comment in await schema.read(query, f"{_HELPER}%"):
        if user == login or (login is None and comment == f"{_HELPER}{schema.name}"):
            await schema.change("DROP USER IF EXISTS %s@%s", user, host)
