"""Check the rights of a cluster's administrator. Changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import frozen


@frozen
class Administrator:
    """The administrator's login, as the server reports it."""

    name: str
    server: str
    lacks: tuple[str, ...]  # the missing rights that tenants need, by the engine's names
    clock: datetime  # of the server, in UTC


# PostgreSQL: a superuser may do everything.
POSTGRESQL_STATEMENT = """
SELECT rolname, current_setting('server_version'), rolsuper OR rolcreaterole, rolsuper OR rolcreatedb, clock_timestamp()
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""

MYSQL_STATEMENT = "SELECT CURRENT_USER(), VERSION(), UTC_TIMESTAMP(6)"
MYSQL_PRIVILEGES = (
    "SELECT PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES"
    " WHERE REPLACE(GRANTEE, '''', '') = CURRENT_USER()"
)
_GRANTED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "CREATE VIEW"})


def on_postgresql(
    name: str, server: str, creates_roles: bool, creates_databases: bool, clock: datetime
) -> Administrator:
    """Read a row of ``POSTGRESQL_STATEMENT``."""
    lacks = [right for right, there in (("CREATEROLE", creates_roles), ("CREATEDB", creates_databases)) if not there]
    return Administrator(name, server, tuple(lacks), clock.astimezone(UTC))


def on_mysql(name: str, server: str, clock: datetime, privileges: dict[str, str]) -> Administrator:
    """Read a row of ``MYSQL_STATEMENT`` and the rows of ``MYSQL_PRIVILEGES``."""
    lacks = [] if "CREATE USER" in privileges else ["CREATE USER"]
    lacks += sorted(f"{right} WITH GRANT OPTION" for right in _GRANTED if privileges.get(right) != "YES")
    return Administrator(name, server, tuple(lacks), clock.replace(tzinfo=UTC))
