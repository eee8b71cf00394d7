"""A MySQL or MariaDB server behind a cluster, by its DSN. Needs PyMySQL."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pymysql
from attrs import frozen
from pymysql.constants import ER
from pymysql.cursors import Cursor

from ..models import MySQLAuthPlugin, UserRole
from .answers import Refusal, name_taken, not_found
from .backends import check_db_name, check_user_name, new_password, refuse_primary
from .validation import JSON, NewUser

T = TypeVar("T")

_log = logging.getLogger("aiodbclient.sandbox")
_SYSTEM_USERS = frozenset(
    {"", "root", "mysql", "mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint"}
)
_SYSTEM_DBS = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
_NATIVE = MySQLAuthPlugin.MYSQL_NATIVE_PASSWORD.value
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

    A user made here may do everything in every db, those made later included, and nothing elsewhere. MariaDB has no
    ``caching_sha2_password``: there every user gets ``mysql_native_password``, and that is what the API then tells.
    """

    def __init__(self, engine: str, dsn: str) -> None:
        parts = urlsplit(dsn)
        if parts.scheme not in ("mysql", "mariadb") or not parts.hostname or not parts.username:
            raise ValueError("the DSN must read mysql://USER:PASSWORD@HOST:PORT")
        self.engine = engine
        self._host, self._port = parts.hostname, parts.port or 3306
        self._primary, self._password = unquote(parts.username), unquote(parts.password or "")
        self._database = unquote(parts.path.removeprefix("/"))
        self._version = ""
        self._secrets: dict[str, tuple[str, str]] = {}  # by user: the secret that the server keeps, and its password
        self._lock = threading.Lock()
        self._connected: pymysql.Connection[Cursor] | None = None

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self._open)
        except pymysql.Error as error:
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
            "user": self._primary,
            "password": self._password,
            "ssl": False,
        }

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
        refuse_primary(name, self._primary)
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

    @property
    def _mariadb(self) -> bool:
        return "MariaDB" in self._version

    def _connect(self) -> pymysql.Connection[Cursor]:
        return pymysql.connect(
            host=self._host,
            port=self._port,
            user=self._primary,
            password=self._password,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=5,
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
            self._connected = self._connect()
        return self._connected

    def _accounts(self) -> list[Account]:
        people = "is_role = 'N'" if self._mariadb else "account_locked = 'N'"  # a role of MySQL is a locked account
        rows = self._rows(f"SELECT User, Host, plugin, authentication_string FROM mysql.user WHERE {people}")
        found = [Account(*map(str, row)) for row in rows]
        return [one for one in found if one.name == self._primary or one.name not in _SYSTEM_USERS]

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
        user: JSON = {"name": name, "role": (UserRole.NORMAL, UserRole.PRIMARY)[name == self._primary].value}
        if plugin in list(MySQLAuthPlugin):
            user["mysql_settings"] = {"auth_plugin": plugin}
        secret, password = self._secrets.get(name, ("", None))
        if name == self._primary:
            user["password"] = self._password
        elif password is not None and all(account.secret == secret for account in accounts):
            user["password"] = password
        return user

    def _create_user(self, new: NewUser) -> JSON:
        if any(account.name == new.name for account in self._accounts()) or new.name in _SYSTEM_USERS:
            raise name_taken("user")
        password = new_password()
        self._rows(f"CREATE USER %s@'%%' {self._identified(new.auth_plugin)}", new.name, password)
        for db in self._dbs():
            self._rows(f"GRANT ALL ON {_pattern(db)}.* TO %s@'%%'", new.name)
        return self._remember(new.name, password)

    def _reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        accounts = self._accounts_of(name)
        if name == self._primary:
            raise Refusal(422, "the password of the DSN's own user is not the sandbox's to change")
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
        for user in {account.name for account in self._accounts()} & self._secrets.keys():
            self._rows(f"GRANT ALL ON {_pattern(name)}.* TO %s@'%%'", user)

    def _delete_db(self, name: str) -> None:
        if name not in self._dbs():
            raise not_found()
        self._kill("DB = %s", name)  # an open transaction of theirs would hold it
        self._rows(f"DROP DATABASE {_quoted(name)}")

    def _kill(self, which: str, value: str) -> None:
        for (process,) in self._rows(f"SELECT ID FROM information_schema.PROCESSLIST WHERE {which}", value):
            try:
                self._rows("KILL %s", process)
            except pymysql.OperationalError as error:
                if error.args[0] != ER.NO_SUCH_THREAD:  # gone by itself meanwhile
                    raise


def _quoted(name: str) -> str:
    """A name as an identifier (manual, "Schema Object Names": a backtick within is doubled)."""
    escaped = name.replace("`", "``").replace("%", "%%")  # the second for PyMySQL, which reads % as its own
    return f"`{escaped}`"


def _pattern(name: str) -> str:
    """A db's name for GRANT, where ``_`` and ``%`` are wildcards unless escaped (manual, "GRANT Statement")."""
    return _quoted(name.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"))


def _check_characters(name: str, kind: str) -> None:
    """Refuse what the server would quietly make another name of: it cuts blanks off and knows no U+10000 and up."""
    if name != name.rstrip(" ") or any(ord(character) > 0xFFFF for character in name):
        raise Refusal(422, f"{kind} name must not end with a space nor have characters past U+FFFF")
