"""``MySQLBackend``: the MySQL or MariaDB server of a DSN behind a cluster. Needs aiomysql."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Coroutine, MutableMapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote
from weakref import WeakValueDictionary

import pymysql
from attrs import frozen
from pymysql.constants import CR, ER

from .._dsn import mysql_parts
from ..models import MySQLAuthPlugin, UserRole
from ..tenants._aiomysql import NOT_MYSQL, Connection, Cursor
from ._backends import PRIMARY, Backend, Primary, derived_password, new_password
from ._protocol import JSON, Refusal, RequestedUser, name_taken, not_found

T = TypeVar("T")

_log = logging.getLogger("aiodbclient.sandbox")
_CONNECTIONS = 8
_CONNECT_SECONDS = 5
_LOCK_SECONDS = 5
_BLANKS = " \t\n\v\f\r"  # MySQL strips these from both ends of an account's name
_NO_SUCH_PLUGIN = 1524  # ER_PLUGIN_IS_NOT_LOADED, in the manual's list of errors
_SYSTEM_USERS = frozenset(
    {"", "root", "mysql", "mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint"}
)
_SYSTEM_DBS = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
# The server-wide rights of doadmin and of the API's users, besides all rights in every schema, WITH GRANT OPTION: no
# right of an administrator, such as SUPER, CONNECTION_ADMIN or SYSTEM_USER. See docs/why/provider.md.
_SERVER_RIGHTS = frozenset(
    {"CREATE USER", "EVENT", "PROCESS", "RELOAD", "REPLICATION CLIENT", "REPLICATION SLAVE", "SHOW DATABASES"}
)
_OF_MYSQL = "CREATE ROLE", "DROP ROLE"
_DYNAMIC = "REPLICATION_APPLIER, ROLE_ADMIN"  # of MySQL alone
# What they may not do in these schemas, where the server has partial revokes.
_GUARDED = ("mysql", "sys")
_READS = frozenset({"SELECT", "SHOW VIEW"})
# The settings of the provider's servers that tenants notice, and what this looks for in their values.
_SETTINGS = {
    "partial_revokes": {"1"},
    "sql_require_primary_key": {"1"},
    "sql_mode": {"ANSI_QUOTES", "PIPES_AS_CONCAT", "ONLY_FULL_GROUP_BY", "STRICT_ALL_TABLES"},
}
# A MySQL role is an account that CREATE ROLE leaves locked, expired and without a secret (manual, "CREATE ROLE").
_NO_ROLE = "NOT (account_locked = 'Y' AND password_expired = 'Y' AND authentication_string = '')"


@frozen
class _Account:
    """A row of ``mysql.user``, of which a user of the API has one per host that it may connect from."""

    name: str
    host: str
    plugin: str
    secret: str


class MySQLBackend(Backend):
    """Maps the API's users to the server's accounts, and its dbs to the server's schemas."""

    # The account of the DSN is hidden unless it is ``doadmin``, which has all rights in every schema, and may grant
    # them, but is not an administrator. Users created through the API have the same rights, as at the provider.

    def __init__(self, dsn: str, secrets: MutableMapping[str, tuple[str, str]]) -> None:
        parts = mysql_parts(dsn)
        if parts is None:
            raise ValueError(
                "the DSN must have the form mysql://USER:PASSWORD@HOST:PORT, with / ? and # in the password written as "
                "%2F, %3F and %23; add ?ssl-ca=FILE to verify the server"
            )
        options = dict(parse_qsl(parts.query))
        self._host, self._port = parts.hostname or "", parts.port or 3306
        self._database = unquote(parts.path.removeprefix("/"))
        self._ca_file = options.get("ssl-ca")  # verifies the server
        self._without_tls = options.get("ssl-mode", "").upper() == "DISABLED"
        self._login, self._login_password = unquote(parts.username or ""), unquote(parts.password or "")
        is_primary = self._login == PRIMARY
        self._password = self._login_password if is_primary else derived_password(self._login, self._login_password)
        self._reserved = _SYSTEM_USERS | {self._login}  # accounts of the server or the sandbox itself
        self._secrets = secrets
        self._context: ssl.SSLContext | None = None
        self._idle: list[Any] = []
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._changing: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        try:
            if not self._without_tls:
                self._context = _context(self._ca_file)
            version = str((await self._rows("SELECT VERSION()"))[0][0])
            self._tls = bool((await self._rows("SHOW STATUS LIKE 'Ssl_cipher'"))[0][1])
            self._is_mariadb = "MariaDB" in version  # which has only one of the API's plugins: mysql_native_password
            self._partial_revokes = False if self._is_mariadb else await self._read_settings()
            if self._login != PRIMARY:
                await self._make_primary()
        except (pymysql.Error, OSError) as error:
            raise RuntimeError(f"the MySQL server of the DSN cannot be used: {error.__cause__ or error}") from None
        self.version = version.partition("-")[0]

    async def _read_settings(self) -> bool:
        """Warn of settings that differ from the provider's, and return whether the server has partial revokes."""
        [found] = await self._rows("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in _SETTINGS))
        for (name, wanted), value in zip(_SETTINGS.items(), found, strict=True):
            if missing := wanted - set(str(value).split(",")):
                lacks = "=OFF" if missing == {"1"} else f" without {', '.join(sorted(missing))}"
                option = "ON" if missing == {"1"} else ",".join(sorted(wanted))
                _log.warning(
                    "MySQL runs with %s%s: start it with --%s=%s, as the provider does",
                    name,
                    lacks,
                    name.replace("_", "-"),
                    option,
                )
        return bool(found[0])

    async def _make_primary(self) -> None:
        """Create ``doadmin``, which sandboxes with the same DSN share, if it does not exist."""
        if not any(account.name == PRIMARY for account in await self._accounts()):
            await self._rows(f"CREATE USER IF NOT EXISTS %s@'%%' {self._identified(None)}", PRIMARY, self._password)
            await self._grant(PRIMARY)
        try:
            (await self._connect(PRIMARY, self._password)).close()
        except pymysql.OperationalError:
            raise RuntimeError(
                f"the MySQL server of the DSN has an account {PRIMARY!r} that the sandbox did not create: pass the DSN"
                f" of {PRIMARY!r} itself, or drop that account"
            ) from None

    async def stop(self) -> None:
        await asyncio.gather(*self._running, return_exceptions=True)
        while self._idle:
            self._idle.pop().close()

    def primary(self) -> Primary:
        return Primary("mysql", self._host, self._port, self._database, self._password, self._tls)

    def ca(self) -> str | None:
        return self._ca_file and Path(self._ca_file).read_text()

    async def users(self) -> list[JSON]:
        by_name: dict[str, list[_Account]] = {}
        for account in await self._run(self._accounts()):
            by_name.setdefault(account.name, []).append(account)
        return [self._user(accounts) for accounts in by_name.values()]

    async def user(self, name: str) -> JSON:
        return self._user(await self._run(self._accounts_of(name)))

    async def create_user(self, new: RequestedUser) -> JSON:
        _check_characters(new.name, "user")
        return await self._run(self._create_user(new), "user", new.name)

    async def _create_user(self, new: RequestedUser) -> JSON:
        if new.name in self._reserved:
            raise name_taken("user")
        password = new_password()
        await self._rows(f"CREATE USER %s@'%%' {self._identified(new.auth_plugin)}", new.name, password)
        if not any(account.name == new.name for account in await self._accounts()):
            await self._rows("DROP USER %s@'%%'", new.name)  # the server changes this name as in CREATE USER
            raise Refusal(422, "the server changes this user name")
        await self._grant(new.name)
        return await self._remember(new.name, password)

    async def update_user(self, name: str, settings: JSON) -> JSON:
        return await self.user(name)  # MySQL has no settings

    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        return await self._run(self._reset_auth(name, auth_plugin), "user", name)

    async def _reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        accounts = await self._accounts_of(name)
        if name == PRIMARY:
            raise Refusal(422, "the password of the primary user belongs to the DSN and cannot be reset")
        password = new_password()
        plugin = auth_plugin or (accounts[0].plugin if accounts[0].plugin in list(MySQLAuthPlugin) else None)
        for account in accounts:
            await self._rows(f"ALTER USER %s@%s {self._identified(plugin)}", name, account.host, password)
        return await self._remember(name, password)

    async def delete_user(self, name: str) -> None:
        await self._run(self._delete_user(name), "user", name)

    async def _delete_user(self, name: str) -> None:
        for account in await self._accounts_of(name):
            await self._rows("DROP USER %s@%s", name, account.host)
        await self._kill("USER", name)
        self._secrets.pop(name, None)

    async def dbs(self) -> list[str]:
        return await self._run(self._dbs())

    async def create_db(self, name: str) -> None:
        _check_characters(name, "database")
        await self._run(self._create_db(name), "db", name)

    async def _create_db(self, name: str) -> None:
        if name.lower() in _SYSTEM_DBS:
            raise name_taken("database")
        await self._rows(f"CREATE DATABASE {_quoted(name)}")
        if name not in await self._dbs():
            await self._rows(f"DROP DATABASE {_quoted(name)}")
            raise Refusal(422, "the server changes this database name")

    async def delete_db(self, name: str) -> None:
        await self._run(self._delete_db(name), "db", name)

    async def _delete_db(self, name: str) -> None:
        if name not in await self._dbs():
            raise not_found()
        await self._kill("DB", name)  # an open transaction would block DROP DATABASE
        await self._rows(f"DROP DATABASE {_quoted(name)}")

    async def _run(self, work: Coroutine[Any, Any, T], kind: str = "", name: str = "") -> T:
        """Run ``work`` to its end, even if this is cancelled: a half-made user would have no rights."""
        task = asyncio.ensure_future(self._answered(work, kind, name))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _answered(self, work: Coroutine[Any, Any, T], kind: str, name: str) -> T:
        try:
            async with self._changing.setdefault((kind, name), asyncio.Lock()) if kind else nullcontext():
                return await work
        except pymysql.Error as error:
            code = error.args[0] if error.args else None
            if code in (ER.CANNOT_USER, ER.DB_CREATE_EXISTS):
                raise name_taken("user" if code == ER.CANNOT_USER else "database") from None
            if code in (ER.WRONG_DB_NAME, ER.INVALID_CHARACTER_STRING, ER.WRONG_STRING_LENGTH):
                raise Refusal(422, "the server does not accept this name") from None
            if code == _NO_SUCH_PLUGIN:
                raise Refusal(422, "the server does not have this mysql_settings.auth_plugin") from None
            _log.warning("MySQL failed an operation of the sandbox: error %s", code)
            raise Refusal(500, "Unexpected server-side error") from None

    async def _accounts(self) -> list[_Account]:
        """The accounts of the API's users, the primary user first."""
        people = "is_role = 'N'" if self._is_mariadb else _NO_ROLE
        rows = await self._rows(f"SELECT User, Host, plugin, authentication_string FROM mysql.user WHERE {people}")
        hidden = self._reserved - {PRIMARY}
        found = [_Account(*map(str, row)) for row in rows]
        return sorted((one for one in found if one.name not in hidden), key=lambda one: one.name != PRIMARY)

    async def _accounts_of(self, name: str) -> list[_Account]:
        accounts = [account for account in await self._accounts() if account.name == name]
        if not accounts:
            raise not_found()
        return accounts

    async def _dbs(self) -> list[str]:
        return [name for (name,) in await self._rows("SHOW DATABASES") if name not in _SYSTEM_DBS]

    def _user(self, accounts: list[_Account]) -> JSON:
        name, plugin = accounts[0].name, accounts[0].plugin
        user: JSON = {"name": name, "role": (UserRole.NORMAL, UserRole.PRIMARY)[name == PRIMARY].value}
        if plugin in list(MySQLAuthPlugin):
            user["mysql_settings"] = {"auth_plugin": plugin}
        secret, password = self._secrets.get(name, ("", None))
        if name == PRIMARY:
            user["password"] = self._password
        elif password is not None:
            # Somebody may have made accounts for single hosts. The API does not know them.
            own = [account for account in accounts if account.host == "%"] or accounts
            if all(account.secret == secret for account in own):
                user["password"] = password
        return user

    async def _remember(self, name: str, password: str) -> JSON:
        accounts = await self._accounts_of(name)
        self._secrets[name] = accounts[0].secret, password
        return {**self._user(accounts), "password": password}

    async def _grant(self, name: str) -> None:
        """Grant all rights in every schema, with the grant option, but no rights of an administrator."""
        listed = await self._rows("SHOW PRIVILEGES")
        in_schemas = {str(right).upper() for right, context, _ in listed if not context.startswith(("Server", "File"))}
        in_schemas -= {"GRANT OPTION"}
        rights = sorted(in_schemas | _SERVER_RIGHTS)
        for each in [rights] if self._is_mariadb else [[*rights, *_OF_MYSQL], [_DYNAMIC]]:
            await self._rows(f"GRANT {', '.join(each)} ON *.* TO %s@'%%' WITH GRANT OPTION", name)
        if not self._partial_revokes or self._login == PRIMARY:  # what it grants has its own restrictions
            return
        withheld = ", ".join(sorted((in_schemas | {"EVENT"}) - _READS))
        for schema in _GUARDED:
            await self._rows(f"REVOKE {withheld} ON {schema}.* FROM %s@'%%'", name)

    def _identified(self, plugin: str | None) -> str:
        """The clause of CREATE USER and ALTER USER that sets a password, with ``plugin`` or the default plugin."""
        if self._is_mariadb:
            return f"IDENTIFIED VIA {MySQLAuthPlugin.MYSQL_NATIVE_PASSWORD.value} USING PASSWORD(%s)"
        return f"IDENTIFIED WITH {plugin or MySQLAuthPlugin.CACHING_SHA2_PASSWORD.value} BY %s"

    async def _kill(self, which: str, value: str) -> None:
        """End the connections that have this value in this column of the process list."""
        schema = "information_schema" if self._is_mariadb else "performance_schema"
        for process, found in await self._rows(f"SELECT ID, {which} FROM {schema}.processlist"):
            if found != value:  # the server would ignore case and accents, and end connections of other users
                continue
            try:
                await self._rows("KILL %s", process)
            except pymysql.OperationalError as error:
                if error.args[0] != ER.NO_SUCH_THREAD:  # it has ended meanwhile
                    raise

    async def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute ``statement``, with ``values`` for each ``%s`` in it, and return all rows."""
        async with self._connection() as connection, connection.cursor() as cursor:
            await cursor.execute(statement, values)
            return list(await cursor.fetchall())

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        """Borrow one of ``_CONNECTIONS`` connections, each of which is opened again if it is lost."""
        async with self._turns:
            connection = await self._alive()
            try:
                yield connection
            finally:
                if not connection.closed:
                    self._idle.append(connection)

    async def _alive(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.ping(reconnect=False)
                return connection
            except pymysql.Error:
                connection.close()
        return await self._connect(self._login, self._login_password)

    async def _connect(self, user: str, password: str) -> Any:
        """Log in, to wait at most ``_LOCK_SECONDS`` for a lock."""
        connection: Any = Connection(
            host=self._host,
            port=self._port,
            user=user,
            password=password,
            charset="utf8mb4",
            autocommit=True,
            init_command=f"SET SESSION lock_wait_timeout = {_LOCK_SECONDS}",
            cursorclass=Cursor,
            ssl=self._context,
        )
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await connection._connect()  # aiomysql.connect leaks the connection if it is cancelled
        except NOT_MYSQL as error:
            connection.close()
            raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, f"no MySQL answers: {type(error).__name__}") from None
        except BaseException:
            connection.close()
            raise
        return connection


def _context(ca_file: str | None) -> ssl.SSLContext:
    """Verify the server with ``ca_file``; without a file, use TLS if the server supports it, and verify nothing."""
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the CA that MySQL creates for itself lacks an extension
    if ca_file is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _quoted(name: str) -> str:
    """Quote a name as an identifier (manual, "Schema Object Names": backticks are doubled)."""
    escaped = name.replace("`", "``").replace("%", "%%")  # aiomysql formats statements with %
    return f"`{escaped}`"


def _check_characters(name: str, kind: str) -> None:
    """Refuse a name that the server would change: it strips blanks, and supports no character past U+FFFF."""
    if name != name.strip(_BLANKS) or any(ord(character) > 0xFFFF for character in name):
        raise Refusal(422, f"{kind} name must not begin or end with white space or contain characters past U+FFFF")
