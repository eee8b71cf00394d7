"""The accounts of a tenant's logins, and everything that a statement sets on one: limits, locks, passwords."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple

from .._credential import Secret
from .mysql_server import Work, quoted

HELPER = "made by aiodbclient to end the sessions of this user"  # the comment on an account of ``end_on_mysql``


class Password(NamedTuple):
    """The password of an account, as the server stores it."""

    plugin: str
    digest: Secret


async def hosts(work: Work, username: str) -> set[str]:
    """Return the hosts of the accounts of that name."""
    return {str(host) for (host,) in await work.rows("SELECT Host FROM mysql.user WHERE User = %s", username)}


async def check_hosts(work: Work, username: str) -> None:
    """Refuse a login that also has accounts for single hosts. The API neither lists nor resets those."""
    others = sorted(await hosts(work, username) - {"%"})
    if others:
        accounts = [f"{username!r}@{host!r}" for host in others]
        raise work.error(
            f"there is also the account {' and '.join(accounts)}, and the client cannot reset its password: drop it "
            f"(DROP USER {', '.join(accounts)}) and run it again",
        )


async def lock(work: Work, username: str) -> None:
    """Let nobody log in."""
    await work.rows("ALTER USER %s@'%%' ACCOUNT LOCK", username)


async def limit(work: Work, username: str, *, connections: int, queries: int | None = None) -> None:
    """Set the limits of a login, including its open sessions: connections at a time, statements an hour; 0 is none."""
    how = f"WITH MAX_USER_CONNECTIONS {connections}"
    if queries is not None:
        how += f" MAX_QUERIES_PER_HOUR {queries}"
    if work.server.is_mariadb:  # MariaDB's ALTER USER does not change open sessions, and MySQL's GRANT has no limits
        await work.rows(f"GRANT USAGE ON *.* TO %s@'%%' {how}", username)
    else:
        await work.rows(f"ALTER USER %s@'%%' {how}", username)


async def unlocked(work: Work) -> dict[str, int]:
    """Return the logins of the tenant, of all roles, that are not locked: how many connections each may have."""
    logins = sorted(work.names.family)
    if work.server.is_mariadb:
        query = (
            "SELECT User, COALESCE(JSON_VALUE(Priv, '$.max_user_connections'), 0) FROM mysql.global_priv "
            "WHERE Host = '%%' AND NOT COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) AND User IN ({})"
        )
    else:
        query = (
            "SELECT User, max_user_connections FROM mysql.user "
            "WHERE Host = '%%' AND account_locked = 'N' AND User IN ({})"
        )
    found = await work.rows(query.format(", ".join(["%s"] * len(logins))), *logins)
    return {str(username): int(connections) for username, connections in found}


async def share_connections(work: Work, most: int, *, raises: bool) -> None:
    """Divide ``most`` connections among the logins that are not locked; ``raises`` lower limits only if asked to."""
    found = await unlocked(work)
    share = max(1, most // max(1, len(found)))  # 0 would be no limit
    for username, now in found.items():
        if now == 0 or now > share or (raises and now < share):
            await limit(work, username, connections=share)


async def drop_helpers(work: Work, username: str) -> None:
    """Drop the accounts of that name that ``end_on_mysql`` made, including those of dead processes."""
    if work.server.is_mariadb:
        return
    query = "SELECT Host FROM mysql.user WHERE User = %s AND User_attributes->>'$.metadata.comment' = %s"
    for (host,) in await work.rows(query, username, HELPER):
        await work.rows("DROP USER IF EXISTS %s@%s", username, host)


@asynccontextmanager
async def account(work: Work, username: str) -> AsyncGenerator[None]:
    """Recreate a dropped account on MariaDB without rights, and drop it at the end."""
    await work.rows("CREATE USER IF NOT EXISTS %s@'%%' ACCOUNT LOCK", username)
    try:
        yield
    finally:
        await work.rows("DROP USER IF EXISTS %s@'%%'", username)


@asynccontextmanager
async def kept_password(work: Work, username: str) -> AsyncGenerator[Password]:
    """Yield the password of a MariaDB account, whose digest the administrator can read, and restore it at the end."""
    read = "SELECT plugin, authentication_string FROM mysql.user WHERE User = %s AND Host = '%%'"
    [password] = [Password(plugin, Secret(digest)) for plugin, digest in await work.rows(read, username)]
    try:
        yield password
    finally:
        await work.rows(
            f"ALTER USER %s@'%%' IDENTIFIED VIA {quoted(password.plugin)} USING %s", username, password.digest
        )
