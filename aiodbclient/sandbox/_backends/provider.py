"""What the provider's servers have besides PostgreSQL's and MySQL's own: roles, rights and databases. Pure.

docs/why/provider.md has the facts on which users depend, and what each source is. Only the sandbox depends on these:

- PostgreSQL: ``doadmin`` inherits pg_stat_scan_tables too. It may not grant pg_read_all_data or pg_monitor, or create
  an event trigger (seen: 17.10 and 18). Before 16 it needs only CREATEROLE to manage a login (rule).
- A database that the API creates belongs to ``doadmin``. Logins may create temporary tables in it, and no tables in
  ``public`` (seen: eight clusters, 16 and 17).
- The API lists logins made by SQL, and no roles without LOGIN (seen: 2019 and 2026).
- ``password_encryption`` may be ``md5`` (seen: 18.4, 2026).
- MySQL: ``doadmin`` may not KILL sessions of others, SET GLOBAL, or name another DEFINER (twin; seen; rule). Revoking
  only REPLICATION_APPLIER and ROLE_ADMIN of the API's users fails with error 3879 (seen: 8.4.8; rule).
- Creating a user on Redis is a 500 (terraform 876).

Not known: who owns the objects of a deleted login (here ``doadmin``), whether the API lists databases that SQL created
(here yes), what it returns for a login that SQL dropped (here 404), ``max_prepared_transactions`` (here 0).
"""

from __future__ import annotations

from typing import LiteralString

MAINTENANCE_DATABASE = "_dodb"
"""The name of ``postgres`` on the provider's servers, which have no database ``postgres``."""

SYSTEM_ROLES = ("_dodb", "_dodb_repl", "_dodb_rewind", "_doadmin_monitor", "_doadmin_auditing")
"""PostgreSQL logins of the provider. The API does not list them."""

CREATE_SYSTEM_ROLES: LiteralString = (
    "CREATE ROLE _dodb SUPERUSER LOGIN; CREATE ROLE _dodb_repl REPLICATION LOGIN; CREATE ROLE _dodb_rewind LOGIN;"
    "CREATE ROLE _doadmin_monitor LOGIN IN ROLE pg_monitor; CREATE ROLE _doadmin_auditing LOGIN"
)
RENAME_DATABASE: LiteralString = (
    f"ALTER DATABASE postgres RENAME TO {MAINTENANCE_DATABASE};"
    f"REVOKE ALL ON DATABASE {MAINTENANCE_DATABASE} FROM PUBLIC"
)
"""Run in another database than ``postgres``."""

# The groups of ``doadmin``.
_GROUPS: LiteralString = (
    "CREATE ROLE _doadmin_managed; CREATE ROLE doadmin_group;"
    "GRANT pg_signal_backend, pg_stat_scan_tables TO _doadmin_managed;"
    "GRANT pg_read_all_stats TO _doadmin_managed WITH ADMIN OPTION"
)
_GROUPS_16: LiteralString = "; GRANT pg_create_subscription TO _doadmin_managed WITH ADMIN OPTION"
_PRIMARY: LiteralString = (
    "CREATE ROLE {primary} LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD {verifier};"
    "GRANT _doadmin_managed TO {primary}; GRANT doadmin_group TO {primary} WITH ADMIN OPTION"
)
_PRIMARY_16: LiteralString = "; ALTER ROLE {primary} SET createrole_self_grant = 'set, inherit'"
_LOGIN: LiteralString = "CREATE ROLE {login} LOGIN {attributes} PASSWORD {verifier}"
# From 16 on, CREATEROLE needs ADMIN on a role to alter it.
_LOGIN_16: LiteralString = "; GRANT {login} TO {primary} WITH ADMIN TRUE, INHERIT TRUE, SET TRUE"


def create_primary(version: int) -> tuple[LiteralString, LiteralString]:
    """The statements that create the groups of ``doadmin``, and ``doadmin`` itself, on this version of PostgreSQL."""
    return (_GROUPS + _GROUPS_16, _PRIMARY + _PRIMARY_16) if version >= 16 else (_GROUPS, _PRIMARY)


def create_login(version: int) -> LiteralString:
    """The statements in which the API creates a login on this version of PostgreSQL."""
    return _LOGIN + _LOGIN_16 if version >= 16 else _LOGIN


# The server-wide rights on MySQL of ``doadmin`` and of the API's users, besides all rights in every schema, WITH GRANT
# OPTION: no right of an administrator, such as SUPER, CONNECTION_ADMIN or SYSTEM_USER.
MYSQL_SERVER_RIGHTS = frozenset(
    {
        *("CREATE ROLE", "CREATE USER", "DROP ROLE", "EVENT", "PROCESS", "RELOAD"),
        *("REPLICATION CLIENT", "REPLICATION SLAVE", "SHOW DATABASES"),
    }
)
MYSQL_DYNAMIC_RIGHTS = "REPLICATION_APPLIER, ROLE_ADMIN"
# In these schemas they may only read, where the server has partial revokes.
MYSQL_READ_ONLY_SCHEMAS = ("mysql", "sys")
MYSQL_READ_RIGHTS = frozenset({"SELECT", "SHOW VIEW"})
