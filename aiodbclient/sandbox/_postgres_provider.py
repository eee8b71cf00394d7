"""What the provider's PostgreSQL has besides PostgreSQL's own, and how it is removed again. Needs psycopg.

docs/why/provider.md says where each fact of the provider comes from.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, LiteralString

from psycopg import AsyncConnection, Error, OperationalError, errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier, Literal

from ._access import LOOPBACK
from ._backends import PRIMARY
from ._embedded import OWN_DATABASE, SUPERUSER, EmbeddedPostgres

Row = tuple[Any, ...]

_log = logging.getLogger("aiodbclient.sandbox")
_CONNECT_TRIES = 100
_EMPTY_SECONDS = 5.0

SYSTEM_ROLES = ("_dodb", "_dodb_repl", "_dodb_rewind", "_doadmin_monitor", "_doadmin_auditing")
"""Logins of the provider. The API does not list them."""

_SYSTEM: LiteralString = (
    "CREATE ROLE _dodb SUPERUSER LOGIN; CREATE ROLE _dodb_repl REPLICATION LOGIN; CREATE ROLE _dodb_rewind LOGIN;"
    "CREATE ROLE _doadmin_monitor LOGIN IN ROLE pg_monitor; CREATE ROLE _doadmin_auditing LOGIN"
)
_GROUPS: LiteralString = (
    "CREATE ROLE _doadmin_managed; CREATE ROLE doadmin_group;"
    "GRANT pg_signal_backend, pg_stat_scan_tables TO _doadmin_managed;"
    "GRANT pg_read_all_stats TO _doadmin_managed WITH ADMIN OPTION"
)
_PRIMARY: LiteralString = (
    "CREATE ROLE {primary} LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD {verifier};"
    "GRANT _doadmin_managed TO {primary}; GRANT doadmin_group TO {primary} WITH ADMIN OPTION"
)
_LOGIN: LiteralString = "CREATE ROLE {login} LOGIN {attributes} PASSWORD {verifier}"
# From 16 on, CREATEROLE needs ADMIN on a role to alter it.
_GROUPS_16: LiteralString = "; GRANT pg_create_subscription TO _doadmin_managed WITH ADMIN OPTION"
_PRIMARY_16: LiteralString = "; ALTER ROLE {primary} SET createrole_self_grant = 'set, inherit'"
_LOGIN_16: LiteralString = "; GRANT {login} TO {primary} WITH ADMIN TRUE, INHERIT TRUE, SET TRUE"
_HIDE = SQL("ALTER DATABASE postgres RENAME TO {own}; REVOKE ALL ON DATABASE {own} FROM PUBLIC").format(
    own=Identifier(OWN_DATABASE)
)
# Which databases of the server itself PUBLIC may enter.
_OPEN = SQL(
    "SELECT datname FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))"
    " WHERE grantee = 0 AND privilege_type = 'CONNECT' AND datname IN ('postgres', 'template1')"
)
SESSIONS = SQL(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"
)
"""Ends all other sessions, and returns a row for each."""

# Everything that initdb did not create: its oids are below 16384 (FirstNormalObjectId).
_MADE_DATABASES = SQL("SELECT datname FROM pg_database WHERE oid >= 16384")
_MADE_ROLES = SQL("SELECT rolname FROM pg_roles WHERE oid >= 16384")
_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"


async def rows(connection: AsyncConnection[Row], query: Composed | SQL) -> list[Row]:
    """Execute ``query`` and return all rows."""
    return await (await connection.execute(query)).fetchall()


async def connect(dsn: str, **different: Any) -> AsyncConnection[Row]:
    """Connect, with what is ``different`` from the DSN; a full server may still be ending a session that was closed."""
    for _ in range(_CONNECT_TRIES - 1):
        try:
            return await AsyncConnection.connect(dsn, autocommit=True, **different)
        except OperationalError as error:
            if "too many clients" not in str(error):
                raise
            await asyncio.sleep(0.01)
    return await AsyncConnection.connect(dsn, autocommit=True, **different)


async def end_sessions(connection: AsyncConnection[Row], sessions: Composed | SQL) -> None:
    """Execute a statement like ``SESSIONS`` until there are none."""
    while await rows(connection, sessions):  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def superusers_dsn(server: EmbeddedPostgres) -> str:
    """The DSN of the sandbox's own database on ``server``, which is ``postgres`` under another name."""
    dsn = make_conninfo(
        host=LOOPBACK,
        port=server.inner_port,
        user=SUPERUSER,
        password=server.password,
        dbname=OWN_DATABASE,
        sslmode="disable",
        gssencmode="disable",
    )
    if server.own_database != OWN_DATABASE:
        # The provider has no database ``postgres``.
        async with await connect(dsn, dbname="template1") as session:
            await session.execute(_HIDE)
        server.own_database = OWN_DATABASE
    return dsn


async def make_system_roles(connection: AsyncConnection[Row]) -> None:
    """Create the roles that the provider keeps for itself."""
    await connection.execute(_SYSTEM)


async def make_primary(connection: AsyncConnection[Row], version: int, verifier: str) -> None:
    """Create ``doadmin`` and its groups; on a server of one's own they may exist."""
    groups = SQL(_GROUPS + _GROUPS_16 if version >= 16 else _GROUPS).format()
    primary = SQL(_PRIMARY + _PRIMARY_16 if version >= 16 else _PRIMARY)
    for part in (groups, primary.format(primary=Identifier(PRIMARY), verifier=Literal(verifier))):
        with suppress(errors.DuplicateObject, errors.UniqueViolation):
            await connection.execute(part)


def login(version: int, name: str, attributes: SQL, verifier: str) -> Composed:
    """The statements in which the API creates a login."""
    return SQL(_LOGIN + _LOGIN_16 if version >= 16 else _LOGIN).format(
        login=Identifier(name), attributes=attributes, verifier=Literal(verifier), primary=Identifier(PRIMARY)
    )


async def warn(connection: AsyncConnection[Row]) -> None:
    """Log how a server of one's own differs from the provider's in a way that tenants notice."""
    found = {name for (name,) in await rows(connection, _OPEN)}
    if "postgres" in found:
        _log.warning(
            "every login may enter the database postgres, which the provider does not have: "
            "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC"
        )
    if "template1" not in found:
        _log.warning(
            "no login may enter template1, as every login may at the provider: "
            "GRANT CONNECT ON DATABASE template1 TO PUBLIC"
        )


async def empty(server: EmbeddedPostgres, dsn: str) -> bool:
    """Remove everything that was created on an embedded server with this ``superusers_dsn``, or return False."""
    if server.data is not None:
        return False
    try:
        server.ask(faults=[], open=True)
        async with asyncio.timeout(_EMPTY_SECONDS), await connect(dsn) as connection:
            await end_sessions(connection, SESSIONS)
            await connection.execute(_SLOTS)
            for (name,) in await rows(connection, _MADE_DATABASES):
                await connection.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false").format(Identifier(name)))
                await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            roles = SQL(", ").join([Identifier(name) for (name,) in await rows(connection, _MADE_ROLES)])
            await connection.execute(SQL("DROP ROLE {}").format(roles))
            await connection.execute(SESSIONS)  # sessions that began meanwhile
    except (Error, TimeoutError, RuntimeError) as error:
        _log.info("cannot empty an embedded PostgreSQL, so it is stopped: %s", type(error).__name__)
        return False
    server.is_new = True
    return True
