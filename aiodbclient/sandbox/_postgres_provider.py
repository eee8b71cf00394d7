"""What the provider's PostgreSQL has besides PostgreSQL's own: roles, and rights. Needs psycopg.

docs/why/provider.md says where each fact comes from.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, LiteralString

from psycopg import AsyncConnection, errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from ._backends import PRIMARY
from ._embedded import OWN_DATABASE

_log = logging.getLogger("aiodbclient.sandbox")

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
# Which databases of the server itself PUBLIC may enter.
_OPEN = SQL(
    "SELECT datname FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))"
    " WHERE grantee = 0 AND privilege_type = 'CONNECT' AND datname IN ('postgres', 'template1')"
)


async def hide_database(connection: AsyncConnection[Any]) -> None:
    """From a session in ``template1``: rename ``postgres``, which the provider does not have, and let nobody in."""
    await connection.execute(
        SQL("ALTER DATABASE postgres RENAME TO {own}; REVOKE ALL ON DATABASE {own} FROM PUBLIC").format(
            own=Identifier(OWN_DATABASE)
        )
    )


async def make_system_roles(connection: AsyncConnection[Any]) -> None:
    """Create the roles that the provider keeps for itself."""
    await connection.execute(_SYSTEM)


async def make_primary(connection: AsyncConnection[Any], version: int, verifier: str) -> None:
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


async def warn(connection: AsyncConnection[Any]) -> None:
    """Log how a server of one's own differs from the provider's in a way that tenants notice."""
    found = {name for (name,) in await (await connection.execute(_OPEN)).fetchall()}
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
