"""A MySQL or MariaDB server behind a cluster, by its DSN. Needs PyMySQL."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from attrs import frozen
from pymysql.constants import ER
from pymysql.cursors import Cursor

from ..models import MySQLAuthPlugin, UserRole
from .answers import Refusal, name_taken, not_found
from .backends import PRIMARY, check_db_name, check_user_name, new_password, refuse_primary
from .validation import JSON, NewUser

T = TypeVar("T")

_log = logging.getLogger("aiodbclient.sandbox")
_SYSTEM_USERS = frozenset(
    {"", "root", "mysql", "mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint"}
)
_SYSTEM_DBS = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
# What the API's users and doadmin may do on the server as a whole, beside everything in every schema: none of it makes
# an administrator (SUPER, FILE, SHUTDOWN and the like are missing, as with the provider).
_SERVER_RIGHTS = frozenset(
    {"CREATE USER", "EVENT", "PROCESS", "RELOAD", "REPLICATION CLIENT", "REPLICATION SLAVE", "SHOW DATABASES"}
)
_BLANKS = " \t\n\v\f\r"  # what MySQL cuts off both ends of an account's name
_NATIVE = MySQLAuthPlugin.MYSQL_NATIVE_PASSWORD.value
# A role of MySQL is an account that CREATE ROLE left locked, expired and without a secret (manual, "CREATE ROLE").
_NO_ROLE = "NOT (account_locked = 'Y' AND password_expired = 'Y' AND authentication_string = '')"
_NO_SUCH_PLUGIN = 1524  # ER_PLUGIN_IS_NOT_LOADED, in the manual's list of errors


@frozen
class Account:
    """A row of ``mysql.user``: one API user may be several, one for each host that it may come from."""

    name: str
    host: str
    plugin: str
    secret: str


class MySQLBackend:
    """Accounts are the users and schemas the dbs; what the server says is what the API tells.

    The account of the DSN is the sandbox's own and out of sight, unless it is ``doadmin`` itself. The primary user is
    ``doadmin``: made here where it is missing, it may do everything in every schema and grant it, and is no
    administrator. A user made here may do the same, as the provider's may. MariaDB has no ``caching_sha2_password``:
    there every user gets ``mysql_native_password``, and that is what the API then tells.
    """

    def __init__(self, engine: str, dsn: str, secrets: MutableMapping[str, tuple[str, str]]) -> None:
        parts = urlsplit(dsn)
        if parts.scheme not in ("mysql", "mariadb") or not parts.hostname or not parts.username:
            raise ValueError(
                "the DSN must read mysql://USER:PASSWORD@HOST:PORT, with ?ssl-ca=FILE to verify the server"
            )
        self.engine = engine
        self._host, self._port = parts.hostname, parts.port or 3306
        self._login, self._login_password = unquote(parts.username), unquote(parts.password or "")
        own = self._login == PRIMARY
        self._password = self._login_password if own else _derived(self._login, self._login_password)
        self._database = unquote(parts.path.removeprefix("/"))
        options = dict(parse_qsl(parts.query))
        self._ca_file = options.get("ssl-ca")
        self._without_tls = options.get("ssl-mode", "").upper() == "DISABLED"
        self._version, self._tls = "", False
        self._secrets = secrets  # by user: the secret that the server keeps, and its password
        self._lock = threading.Lock()
        self._connected: pymysql.Connection[Cursor] | None = None

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self._open)
        except (pymysql.Error, OSError) as error:  # the second for the file of a CA
            raise RuntimeError(f"the MySQL server of the DSN cannot be used: {error}") from None

    async def stop(self) -> None:
        await asyncio.to_thread(self._close)

    def version(self) -> str | None:
        return self._version.partition("-")[0]

    def connection(self) -> JSON:
        return {
            "scheme": "mysql",
            "host": self._host,
            "port": self._port,
            "database": self._database,
            "user": PRIMARY,
            "password": self._password,
            "ssl": self._tls,
        }

    def ca(self) -> str | None:
        return self._ca_file and Path(self._ca_file).read_text()

    def has_failed(self) -> bool:
        return False

    async def users(self) -> list[JSON]:
        return await self._in_thread(self._users)

    async def user(self, name: str) -> JSON:
        return await self._in_thread(lambda: self._user(self._accounts_of(name)))

    async def create_user(self, new: NewUser) -> JSON:
        check_user_name(self.engine, new.name)
        _check_characters(new.name, "user")
        return await self._in_thread(lambda: self._create_user(new))

    async def update_user(self, name: str, settings: JSON) -> JSON:
        return await self.user(name)  # MySQL has no settings

    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        return await self._in_thread(lambda: self._reset_auth(name, auth_plugin))

    async def delete_user(self, name: str) -> None:
        refuse_primary(name, PRIMARY)
        await self._in_thread(lambda: self._delete_user(name))

    async def dbs(self) -> list[str]:
        return await self._in_thread(self._dbs)

    async def create_db(self, name: str) -> None:
        check_db_name(self.engine, name)
        _check_characters(name, "database")
        await self._in_thread(lambda: self._create_db(name))

    async def delete_db(self, name: str) -> None:
        await self._in_thread(lambda: self._delete_db(name))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do ``work`` in a thread, one at a time. What the server fails unexpectedly is the API's 500."""

        def alone() -> T:
            with self._lock:
                return work()

        try:
            return await asyncio.to_thread(alone)
        except pymysql.Error as error:
            code = error.args[0] if error.args else None
            if code in (ER.CANNOT_USER, ER.DB_CREATE_EXISTS):
                raise name_taken("user" if code == ER.CANNOT_USER else "database") from None
            if code in (ER.WRONG_DB_NAME, ER.INVALID_CHARACTER_STRING, ER.WRONG_STRING_LENGTH):
                raise Refusal(422, "the server does not take this name") from None
            if code == _NO_SUCH_PLUGIN:
                raise Refusal(422, "mysql_settings.auth_plugin is not one that the server has") from None
            _log.warning("MySQL failed an operation of the sandbox: error %s", code)
            raise Refusal(500, "Unexpected server-side error") from None

    def _open(self) -> None:
        self._version = str(self._rows("SELECT VERSION()")[0][0])
        self._tls = bool(self._rows("SHOW STATUS LIKE 'Ssl_cipher'")[0][1])
        if self._login != PRIMARY:
            self._make_primary()

    def _make_primary(self) -> None:
        """Make ``doadmin`` where it is missing. Sandboxes with the same DSN share it."""
        if not any(account.name == PRIMARY for account in self._accounts()):
            self._rows(f"CREATE USER IF NOT EXISTS %s@'%%' {self._identified(None)}", PRIMARY, self._password)
            self._grant(PRIMARY)
        try:
            self._connect(PRIMARY, self._password).close()
        except pymysql.OperationalError:
            raise RuntimeError(
                f"the MySQL server of the DSN has an account {PRIMARY!r} that is not the sandbox's: give the DSN of"
                f" {PRIMARY!r} itself, or drop that account"
            ) from None

    def _grant(self, name: str) -> None:
        """Everything in every schema, to give on, and nothing that makes an administrator."""
        told = self._rows("SHOW PRIVILEGES")
        in_schemas = {str(right).upper() for right, context, _ in told if not context.startswith(("Server", "File"))}
        rights = ", ".join(sorted(in_schemas - {"GRANT OPTION"} | _SERVER_RIGHTS))
        self._rows(f"GRANT {rights} ON *.* TO %s@'%%' WITH GRANT OPTION", name)

    @property
    def _mariadb(self) -> bool:
        return "MariaDB" in self._version

    def _connect(self, user: str, password: str) -> pymysql.Connection[Cursor]:
        return pymysql.connect(
            host=self._host,
            port=self._port,
            user=user,
            password=password,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=5,
            ssl_ca=self._ca_file,  # without one, TLS where the server has it
            ssl_verify_identity=self._ca_file is not None,
            ssl_disabled=self._without_tls,
        )

    def _close(self) -> None:
        with self._lock:
            if self._connected is not None and self._connected.open:
                self._connected.close()

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement, in which ``%`` is PyMySQL's."""
        with self._alive().cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def _alive(self) -> pymysql.Connection[Cursor]:
        if self._connected is not None:
            try:
                self._connected.ping()
            except pymysql.Error:
                self._connected = None
        if self._connected is None:
            self._connected = self._connect(self._login, self._login_password)
        return self._connected

    def _accounts(self) -> list[Account]:
        """The people among the accounts, the primary user first."""
        people = "is_role = 'N'" if self._mariadb else _NO_ROLE
        rows = self._rows(f"SELECT User, Host, plugin, authentication_string FROM mysql.user WHERE {people}")
        hidden = _SYSTEM_USERS | {self._login} - {PRIMARY}
        found = [Account(*map(str, row)) for row in rows]
        return sorted((one for one in found if one.name not in hidden), key=lambda one: one.name != PRIMARY)

    def _accounts_of(self, name: str) -> list[Account]:
        accounts = [account for account in self._accounts() if account.name == name]
        if not accounts:
            raise not_found()
        return accounts

    def _users(self) -> list[JSON]:
        by_name: dict[str, list[Account]] = {}
        for account in self._accounts():
            by_name.setdefault(account.name, []).append(account)
        return [self._user(accounts) for accounts in by_name.values()]

    def _user(self, accounts: list[Account]) -> JSON:
        name, plugin = accounts[0].name, accounts[0].plugin
        user: JSON = {"name": name, "role": (UserRole.NORMAL, UserRole.PRIMARY)[name == PRIMARY].value}
        if plugin in list(MySQLAuthPlugin):
            user["mysql_settings"] = {"auth_plugin": plugin}
        secret, password = self._secrets.get(name, ("", None))
        if name == PRIMARY:
            user["password"] = self._password
        elif password is not None and all(account.secret == secret for account in accounts):
            user["password"] = password
        return user

    def _create_user(self, new: NewUser) -> JSON:
        if new.name in _SYSTEM_USERS | {self._login}:
            raise name_taken("user")
        password = new_password()
        self._rows(f"CREATE USER %s@'%%' {self._identified(new.auth_plugin)}", new.name, password)
        if not any(account.name == new.name for account in self._accounts()):
            self._rows("DROP USER %s@'%%'", new.name)  # the server understands this name as it did the first time
            raise Refusal(422, "the server makes another name of this user name")
        self._grant(new.name)
        return self._remember(new.name, password)

    def _reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        accounts = self._accounts_of(name)
        if name == PRIMARY:
            raise Refusal(422, "the primary user's password belongs to the DSN and cannot be reset")
        password = new_password()
        plugin = auth_plugin or (accounts[0].plugin if accounts[0].plugin in list(MySQLAuthPlugin) else None)
        for account in accounts:
            self._rows(f"ALTER USER %s@%s {self._identified(plugin)}", name, account.host, password)
        return self._remember(name, password)

    def _identified(self, plugin: str | None) -> str:
        if self._mariadb:
            return f"IDENTIFIED VIA {_NATIVE} USING PASSWORD(%s)"
        return f"IDENTIFIED WITH {plugin or MySQLAuthPlugin.CACHING_SHA2_PASSWORD.value} BY %s"

    def _remember(self, name: str, password: str) -> JSON:
        accounts = self._accounts_of(name)
        self._secrets[name] = accounts[0].secret, password
        user = self._user(accounts)
        user["password"] = password
        return user

    def _delete_user(self, name: str) -> None:
        for account in self._accounts_of(name):
            self._rows("DROP USER %s@%s", name, account.host)
        self._kill("USER = %s", name)
        self._secrets.pop(name, None)

    def _dbs(self) -> list[str]:
        return [name for (name,) in self._rows("SHOW DATABASES") if name not in _SYSTEM_DBS]

    def _create_db(self, name: str) -> None:
        if name.lower() in _SYSTEM_DBS:
            raise name_taken("database")
        self._rows(f"CREATE DATABASE {_quoted(name)}")
        if name not in self._dbs():
            self._rows(f"DROP DATABASE {_quoted(name)}")
            raise Refusal(422, "the server makes another name of this database name")

    def _delete_db(self, name: str) -> None:
        if name not in self._dbs():
            raise not_found()
        self._kill("DB = %s", name)  # an open transaction of theirs would hold it
        self._rows(f"DROP DATABASE {_quoted(name)}")

    def _kill(self, which: str, value: str) -> None:
        schema = "information_schema" if self._mariadb else "performance_schema"
        for (process,) in self._rows(f"SELECT ID FROM {schema}.processlist WHERE {which}", value):
            try:
                self._rows("KILL %s", process)
            except pymysql.OperationalError as error:
                if error.args[0] != ER.NO_SUCH_THREAD:  # gone by itself meanwhile
                    raise


def _quoted(name: str) -> str:
    """A name as an identifier (manual, "Schema Object Names": a backtick within is doubled)."""
    escaped = name.replace("`", "``").replace("%", "%%")  # the second for PyMySQL, which reads % as its own
    return f"`{escaped}`"


def _check_characters(name: str, kind: str) -> None:
    """Refuse what the server would quietly make another name of: it cuts blanks off and knows no U+10000 and up."""
    if name != name.strip(_BLANKS) or any(ord(character) > 0xFFFF for character in name):
        raise Refusal(422, f"{kind} name must not begin or end with white space nor have characters past U+FFFF")


def _derived(user: str, password: str) -> str:
    """The password of the ``doadmin`` that belongs to a DSN: in the provider's style, for no other DSN the same."""
    digest = hmac.new(password.encode(), f"aiodbclient sandbox {PRIMARY} {user}".encode(), hashlib.sha256)
    return f"AVNS_{digest.hexdigest()[:20]}x0"
