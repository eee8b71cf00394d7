"""Find what a test left on a cluster of a sandbox, and drop it where tests share the PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._backends.postgres import PostgresBackend

# Databases and roles that ``initdb`` did not make (FirstNormalObjectId), nor the sandbox.
_DATABASES = "SELECT datname FROM pg_database WHERE oid >= 16384 AND datname <> 'defaultdb'"
_ROLES = (
    "SELECT rolname FROM pg_roles WHERE oid >= 16384"
    " AND rolname <> ALL ('{doadmin,doadmin_group,_doadmin_managed,_doadmin_monitor,_doadmin_auditing}')"
    " AND NOT starts_with(rolname, '_dodb')"
)


async def names_on(sandbox: Sandbox, cluster_id: str, prefix: str = "") -> list[str]:
    """The users and databases of a cluster whose names begin with ``prefix``."""
    async with DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
        cluster = client.cluster(cluster_id)
        names = [user.name for user in await cluster.users.list()] + [db.name for db in await cluster.dbs.list()]
    return [name for name in names if name.startswith(prefix)]


def sweep(sandbox: Sandbox) -> None:
    """Drop all databases and roles that are not the sandbox's own. Removing tenants as a program does takes longer."""
    for cluster in sandbox._clusters.values():
        if not isinstance(cluster.backend, PostgresBackend) or cluster.backend.embedded is None:
            continue
        with psycopg.connect(cluster.backend._dsn, autocommit=True) as superuser:
            for database in _names(superuser, _DATABASES):
                with suppress(psycopg.errors.ObjectNotInPrerequisiteState):  # a DROP DATABASE was cut off
                    superuser.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false").format(database))
                with suppress(psycopg.errors.ObjectInUse):  # by a prepared transaction
                    superuser.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(database))
            if roles := _names(superuser, _ROLES):
                with suppress(psycopg.errors.DependentObjectsStillExist):  # they own something in ``defaultdb``
                    superuser.execute(SQL("DROP ROLE {}").format(SQL(", ").join(roles)))


def _names(superuser: psycopg.Connection[Any], query: str) -> list[Identifier]:
    return [Identifier(name) for (name,) in superuser.execute(query.encode()).fetchall()]
