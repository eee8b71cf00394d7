"""What ``doctor --try`` asks of the API about logins and databases that were made or changed by SQL.

Nobody has written the answers down. They are notes: no answer is wrong. Their texts have no names, since the report has
them. The names in its SQL need no quoting: ``doctor`` made them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

from attrs import frozen

from .. import ClusterClient, Connection
from .._libpq import one_line
from .._request.raw import JSON
from .._request.waits import waits
from ..clusters import request_below
from ..engines import POSTGRESQL, Engine
from ..errors import APIError, DatabaseClientError, GrantError
from ..tenants import Credential
from ..tenants._credential import Secret, verifying_context
from ..tenants._naming import names_of
from .doctor_api import answered
from .doctor_findings import Findings
from .running import message_of

# Runs a statement as the administrator, in a database that may be named, and returns its rows. Raises GrantError.
Run: TypeAlias = Callable[..., Awaitable[list[tuple[Any, ...]]]]

_POSTGRESQL = {
    "settings": "SELECT name, setting FROM pg_settings WHERE name IN ('createrole_self_grant', 'max_connections', "
    "'max_prepared_transactions', 'password_encryption')",
    "lock": 'ALTER ROLE "{0}" NOLOGIN',
    "account": "SELECT 'ACCOUNT LOCK' FROM pg_roles WHERE rolname = '{0}' AND NOT rolcanlogin",
    "drop": 'DROP ROLE IF EXISTS "{0}"',
    "create": "CREATE ROLE \"{0}\" LOGIN PASSWORD '{1}'",
    "join": 'GRANT "{0}" TO CURRENT_USER',
    "create database": 'CREATE DATABASE "{0}" TEMPLATE template0',
    "close database": 'REVOKE ALL ON DATABASE "{0}" FROM PUBLIC',
    "drop database": 'DROP DATABASE IF EXISTS "{0}" WITH (FORCE)',
    "own": 'CREATE SCHEMA own AUTHORIZATION "{0}"; SET ROLE "{0}"; CREATE TABLE own.doctor ()',
    "owner": "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'doctor'",
}
_MYSQL = {
    "settings": "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('event_scheduler', 'local_infile', 'partial_revokes', "
    "'sql_mode', 'sql_require_primary_key')",
    "lock": "ALTER USER '{0}'@'%%' ACCOUNT LOCK",
    "account": "SHOW CREATE USER '{0}'@'%%'",
    "drop": "DROP USER IF EXISTS '{0}'@'%%'",
    "grants": "SHOW GRANTS FOR '{0}'@'%%'",
}
_KNOWN = ("doadmin", "postgres", "_dodb")  # roles of the provider
_POOL_SECONDS = 10.0  # for which a new pool may not be ready


@frozen
class Asking:
    """Asks about one cluster. The names that it makes begin with ``name``."""

    findings: Findings
    cluster: ClusterClient
    engine: Engine | str
    name: str
    run: Run
    connection: Connection
    ca: str | None
    pending: set[str]  # the names that a request without an answer may still create

    async def ask_lists(self, made: Credential) -> None:
        """Whether the API lists what a tenant has by SQL."""
        await self._ask("lists", self._lists(made))

    async def ask_all(self, made: Credential) -> None:
        """What the API does with logins that SQL made, dropped or locked. ``made`` is a tenant's credential."""
        logins = dropped, shut, own = [f"{self.name}-{each}" for each in "dso"]
        await self._ask("settings", self._settings())
        try:
            await self._ask("dropped login", self._dropped(dropped))
            await self._ask("locked login", self._shut(shut))
            if self.engine in POSTGRESQL:
                await self._ask("login by SQL", self._deleted(own))
                await self._ask("pool", self._pool(made))
            else:
                await self._ask("rights", self._rights(own))
        finally:
            for login in logins:
                await self.run("drop", login)

    async def _ask(self, check: str, question: Awaitable[str]) -> None:
        try:
            self.findings.note(check, await question)
        except DatabaseClientError as error:
            self.findings.skip(check, f"there is no answer: {message_of(error, retried=True)}")

    async def _lists(self, made: Credential) -> str:
        users = [user.name for user in await self.cluster.users.list()]
        dbs = [db.name for db in await self.cluster.dbs.list()]
        said = f"of what SQL made, the API lists the login: {_yes(made.username in users)}, "
        if self.engine in POSTGRESQL:
            owner = names_of(made.name, self.engine).owner
            said += f"the role without LOGIN: {_yes(owner in users)}, "
        return said + f"the database: {_yes(made.database in dbs)}"

    async def _settings(self) -> str:
        return ", ".join(f"{name}={setting or 'none'}" for name, setting in sorted(await self.run("settings")))

    async def _dropped(self, login: str) -> str:
        await answered(self.cluster.users.create(login), login, self.pending)
        await self.run("drop", login)
        read, deleted = await _status(self.cluster.users.get(login)), await _status(self.cluster.users.delete(login))
        return f"after SQL dropped a login of the API, its read {read}, its deletion {deleted}"

    async def _shut(self, login: str) -> str:
        await answered(self.cluster.users.create(login), login, self.pending)
        await self.run("lock", login)
        read, reset = await _status(self.cluster.users.get(login)), await _status(self.cluster.users.reset_auth(login))
        locked = "locked" if "ACCOUNT LOCK" in str(await self.run("account", login)) else "open"
        return f"after SQL locked a login of the API, its read {read}, its reset {reset}, and it is {locked}"

    async def _rights(self, login: str) -> str:
        await answered(self.cluster.users.create(login), login, self.pending)
        grants = [str(grant).partition(" TO ")[0] for (grant,) in await self.run("grants", login)]
        return f"a login of the API has: {'; '.join(grants)}"

    async def _deleted(self, name: str) -> str:
        """What becomes of a login that owns a table, in a database of the same name."""
        from ..tenants._servers.postgres.scram import verifier

        password = Secret(secrets.token_urlsafe())
        try:
            await self.run("create database", name)
            await self.run("close database", name)
            await self.run("create", name, await verifier(password))
            await self.run("join", name)
            await self.run("own", name, inside=name)
            entered = _yes(await enters(self.connection, self.ca, name, password, "template1"))
            deleted = await _status(self.cluster.users.delete(name))
            owners = [owner for (owner,) in await self.run("owner", inside=name)]
        finally:
            await self.run("drop database", name)
        owner = f"belongs to {owners[0] if owners[0] in _KNOWN else 'another role'}" if owners else "is gone"
        owner = "is its own still" if owners == [name] else owner
        return f"it enters template1: {entered}; its deletion by the API {deleted}, and its table {owner}"

    async def _pool(self, made: Credential) -> str:
        name, login, database = f"{self.name}-p", made.username, made.database
        wanted: JSON = {"name": name, "mode": "transaction", "size": 1, "db": database, "user": login}
        try:
            answer = await request_below(self.cluster, "POST", "pools", json=wanted)
            where = answer["pool"]["connection"]["host"], answer["pool"]["connection"]["port"]
            for wait in waits(_POOL_SECONDS):
                await asyncio.sleep(wait)
                if await enters(self.connection, self.ca, login, made.password, name, where):
                    return "a pool of the provider takes a login that SQL made"
            return "a pool of the provider does not take a login that SQL made"
        finally:
            with suppress(APIError):
                await request_below(self.cluster, "DELETE", "pools", name)


async def _status(call: Awaitable[object]) -> str:
    try:
        await call
    except APIError as error:
        return f"is a {error.status}"
    return "is accepted"


def _yes(held: bool) -> str:
    return "yes" if held else "no"


def on_postgresql(admin: Secret, ca: str | None) -> Run:
    """Return what runs statements on PostgreSQL. Needs psycopg."""
    import psycopg

    from ..tenants._servers.postgres.sessions import CAFile, admin_options, connect

    options = admin_options(admin)
    file = None if ca is None or "sslmode" in options else CAFile(ca)

    async def run(what: str, *names: str, inside: str | None = None) -> list[tuple[Any, ...]]:
        different = {} if inside is None else {"dbname": inside}
        try:
            async with await connect(options | different, file, 0, "aiodbclient-doctor") as session:
                cursor = await session.execute(_POSTGRESQL[what].format(*names).encode())
                return [] if cursor.description is None else await cursor.fetchall()
        except psycopg.Error as error:
            reason = error.diag.message_primary or one_line(error)
        raise GrantError(f"PostgreSQL refused a statement: {reason}")

    return run


async def enters(
    connection: Connection,
    ca: str | None,
    login: str,
    password: str | None,
    database: str,
    where: tuple[str, int] | None = None,
) -> bool:
    """Whether a login may enter a database of PostgreSQL, or a pool that is ``where``."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    from ..tenants._servers.postgres.sessions import CAFile, clear

    host, port = where or (connection.host, connection.port)
    file = None if ca is None else CAFile(ca)
    verified = {} if file is None else {"sslmode": "verify-full", "sslrootcert": file.path()}
    options: dict[str, Any] = {"host": host, "port": port, "user": login, "dbname": database, "connect_timeout": 10}
    own = Secret(make_conninfo("", **options | verified, password=password))
    try:
        await (await psycopg.AsyncConnection.connect(own)).close()
    except psycopg.OperationalError as error:
        clear(error)  # psycopg's frames hold the password
        return False
    return True


def on_mysql(admin: Secret, ca: str | None) -> Run:
    """Return what runs statements on MySQL and MariaDB. Needs aiomysql."""
    from ..tenants._servers.mysql.session import opened, options_of
    from ..tenants._servers.server import LoginRefusedError, ServerAwayError

    tls = None if ca is None else verifying_context(ca)

    async def run(what: str, *names: str) -> list[tuple[Any, ...]]:
        try:
            session = await opened(options_of(admin), tls, prepared=True)
        except (LoginRefusedError, ServerAwayError) as error:
            reason = str(error)
        else:
            try:
                return await session.rows(_MYSQL[what].format(*names))
            finally:
                await session.aclose()
        raise GrantError(f"the administrator cannot log in: {reason}")

    return run
