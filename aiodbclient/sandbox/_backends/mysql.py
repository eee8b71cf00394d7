"""``MySQLBackend``: the MySQL server of a DSN behind a cluster. Needs PyMySQL."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from threading import Lock
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote

import pymysql
from attrs import frozen
from pymysql.constants import ER

from ..._dsn import mysql_parts
from ...models import MySQLAuthPlugin, UserRole
from .._protocol import JSON, Refusal, RequestedUser, name_taken, not_found
from . import PRIMARY, Backend, Primary, derived_password, new_password, provider

P = ParamSpec("P")
T = TypeVar("T")
Session: TypeAlias = "pymysql.Connection[Any]"

_log = logging.getLogger("aiodbclient.sandbox")
_CONNECT_SECONDS = 5
_LOCK_SECONDS = 5
_BLANKS = " \t\n\v\f\r"  # MySQL strips these from both ends of an account's name
_NO_SUCH_PLUGIN = 1524  # ER_PLUGIN_IS_NOT_LOADED, in the manual's list of errors
_SYSTEM_USERS = frozenset({"", "root", "mysql", "mysql.sys", "mysql.session", "mysql.infoschema", "debian-sys-maint"})
_SYSTEM_DBS = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
# The API makes users for every host, and knows no others. A MySQL role is an account that CREATE ROLE leaves locked,
# expired and without a secret (manual, "CREATE ROLE"). PyMySQL formats statements with %.
_ACCOUNTS = (
    "SELECT User, plugin, authentication_string FROM mysql.user WHERE Host = '%%'"
    " AND NOT (account_locked = 'Y' AND password_expired = 'Y' AND authentication_string = '')"
)


@frozen
class _Account:
    """A row of ``mysql.user``."""

    name: str
    plugin: str
    secret: str


def _in_session(
    operation: Callable[Concatenate[MySQLBackend, Session, P], T],
) -> Callable[Concatenate[MySQLBackend, P], CoroutineType[Any, Any, T]]:
    """Run an operation of the API in a thread, with a session of the DSN, and translate the errors of the server."""

    @wraps(operation)
    async def run(self: MySQLBackend, *given: P.args, **options: P.kwargs) -> T:
        def work() -> T:
            with closing(self.connect()) as session:
                return operation(self, session, *given, **options)

        try:
            return await asyncio.to_thread(work)  # to its end, also if the request is cancelled
        except pymysql.Error as error:
            code = error.args[0] if error.args else None
            if code in (ER.CANNOT_USER, ER.DB_CREATE_EXISTS):
                raise name_taken("user" if code == ER.CANNOT_USER else "database") from None
            if code == ER.DB_DROP_EXISTS:
                raise not_found() from None
            if code in (ER.WRONG_DB_NAME, ER.INVALID_CHARACTER_STRING, ER.WRONG_STRING_LENGTH):
                raise Refusal(422, "the server does not accept this name") from None
            if code == _NO_SUCH_PLUGIN:
                raise Refusal(422, "the server does not have this mysql_settings.auth_plugin") from None
            _log.warning("MySQL failed an operation of the sandbox: error %s", code)
            raise Refusal(500, "Unexpected server-side error") from None

    return run  # type: ignore[return-value]  # pyright and mypy differ on what an async function returns


class MySQLBackend(Backend):
    """Maps the API's users to the server's accounts, and its dbs to the server's schemas."""

    # The account of the DSN is hidden unless it is ``doadmin``, which has all rights in every schema, and may grant
    # them, but is not an administrator. Users created through the API have the same rights, as at the provider.

    def __init__(self, dsn: str) -> None:
        parts = mysql_parts(dsn)
        if parts is None:
            raise ValueError(
                "the DSN must have the form mysql://USER:PASSWORD@HOST:PORT, with / ? and # in the password written as "
                "%2F, %3F and %23; add ?ssl-ca=FILE to verify the server"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._host, self._port = parts.hostname or "", parts.port or 3306
        self._database = unquote(parts.path.removeprefix("/"))
        self._login = unquote(parts.username or ""), unquote(parts.password or "")
        del parts  # a traceback may show it
        self._ca_file = options.get("ssl-ca")  # verifies the server
        mode = options.get("ssl-mode", "REQUIRED").upper()
        self._without_tls = mode == "DISABLED"
        modes = ("DISABLED", "REQUIRED", "VERIFY_IDENTITY") if self._ca_file else ("DISABLED", "REQUIRED")
        valid = {"ssl-ca": bool(self._ca_file), "ssl-mode": mode in modes}
        if wrong := [name for name in options if not valid.get(name)]:
            raise ValueError(
                f"the option {wrong[0]!r} of the DSN is invalid. Valid are ssl-ca=FILE, to verify the server, and "
                "ssl-mode=DISABLED, REQUIRED or, with ssl-ca, VERIFY_IDENTITY"
            )
        login, password = self._login
        self._is_primary = login == PRIMARY
        self._password = password if self._is_primary else derived_password(login, password)  # of ``doadmin``
        self._reserved = _SYSTEM_USERS | {login}  # accounts of the server or the sandbox itself
        self._passwords: dict[str, tuple[str, str]] = {}  # the server's secret and the password of each user
        self._context: ssl.SSLContext | None = None
        self._user_lock = Lock()  # of users: each stores a password beside what the server has of it

    async def start(self) -> None:
        try:
            if not self._without_tls:
                self._context = _context(self._ca_file)
            await asyncio.to_thread(self._prepare)
        except (pymysql.Error, OSError) as error:
            raise RuntimeError(f"the MySQL server of the DSN cannot be used: {error.__cause__ or error}") from None

    def _prepare(self) -> None:
        """Read what the server is, and create ``doadmin``, which sandboxes with the same DSN share."""
        with closing(self.connect()) as session:
            version = str(_rows(session, "SELECT VERSION()")[0][0])
            if "MariaDB" in version:
                raise RuntimeError("the server of the DSN is MariaDB, which the provider does not have: pass a MySQL")
            self.version = version.partition("-")[0]
            self._tls = bool(_rows(session, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1])
            self._partial_revokes = bool(_rows(session, "SELECT @@GLOBAL.partial_revokes")[0][0])
            if self._is_primary:
                return
            if not any(account.name == PRIMARY for account in self._accounts(session)):
                _rows(session, f"CREATE USER IF NOT EXISTS %s@'%%' {_identified(None)}", PRIMARY, self._password)
                self._grant(session, PRIMARY)
        try:
            self.connect(PRIMARY, self._password).close()
        except pymysql.OperationalError:
            raise RuntimeError(
                f"the MySQL server of the DSN has an account {PRIMARY!r} that the sandbox did not create: pass the DSN"
                f" of {PRIMARY!r} itself, or drop that account"
            ) from None

    def connect(self, *login: str) -> Session:
        """Log in, by default as the DSN does, to wait at most ``_LOCK_SECONDS`` for a lock."""
        user, password = login or self._login
        return pymysql.connect(
            host=self._host,
            port=self._port,
            user=user,
            password=password,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            init_command=f"SET SESSION lock_wait_timeout = {_LOCK_SECONDS}",
            ssl=self._context,
            ssl_disabled=self._context is None,
        )

    def primary(self) -> Primary:
        return Primary("mysql", self._host, self._port, self._database, self._password, self._tls)

    def ca(self) -> str | None:
        return self._ca_file and Path(self._ca_file).read_text()

    @_in_session
    def users(self, session: Session) -> list[JSON]:
        return [self._user(account) for account in self._accounts(session)]

    @_in_session
    def user(self, session: Session, name: str) -> JSON:
        return self._user(self._account(session, name))

    @_in_session
    def create_user(self, session: Session, new: RequestedUser) -> JSON:
        _check_characters(new.name, "user")
        if new.name in self._reserved:
            raise name_taken("user")
        with self._user_lock:
            password = new_password()
            _rows(session, f"CREATE USER %s@'%%' {_identified(new.auth_plugin)}", new.name, password)
            self._grant(session, new.name)
            return self._remember(session, new.name, password)

    async def update_user(self, name: str, settings: JSON) -> JSON:
        return await self.user(name)  # MySQL has no settings

    @_in_session
    def reset_auth(self, session: Session, name: str, auth_plugin: str | None) -> JSON:
        with self._user_lock:
            account = self._account(session, name)
            if name == PRIMARY:
                raise Refusal(422, "the password of the primary user belongs to the DSN and cannot be reset")
            password = new_password()
            plugin = auth_plugin or (account.plugin if account.plugin in list(MySQLAuthPlugin) else None)
            _rows(session, f"ALTER USER %s@'%%' {_identified(plugin)}", name, password)
            return self._remember(session, name, password)

    @_in_session
    def delete_user(self, session: Session, name: str) -> None:
        with self._user_lock:
            self._account(session, name)
            _rows(session, "DROP USER %s@'%%'", name)
            _kill(session, "USER", name)
            self._passwords.pop(name, None)

    @_in_session
    def dbs(self, session: Session) -> list[str]:
        return _schemas(session)

    @_in_session
    def create_db(self, session: Session, name: str) -> None:
        _check_characters(name, "database")
        if name.lower() in _SYSTEM_DBS:
            raise name_taken("database")
        _rows(session, f"CREATE DATABASE {_quoted(name)}")

    @_in_session
    def delete_db(self, session: Session, name: str) -> None:
        if name not in _schemas(session):
            raise not_found()
        _kill(session, "DB", name)  # an open transaction would block DROP DATABASE
        _rows(session, f"DROP DATABASE {_quoted(name)}")

    def _accounts(self, session: Session) -> list[_Account]:
        """The accounts of the API's users, the primary user first."""
        hidden = self._reserved - {PRIMARY}
        found = [_Account(*map(str, row)) for row in _rows(session, _ACCOUNTS)]
        return sorted((one for one in found if one.name not in hidden), key=lambda one: one.name != PRIMARY)

    def _account(self, session: Session, name: str) -> _Account:
        found = [account for account in self._accounts(session) if account.name == name]
        if not found:
            raise not_found()
        return found[0]

    def _user(self, account: _Account) -> JSON:
        name, plugin = account.name, account.plugin
        user: JSON = {"name": name, "role": (UserRole.PRIMARY if name == PRIMARY else UserRole.NORMAL).value}
        if plugin in list(MySQLAuthPlugin):
            user["mysql_settings"] = {"auth_plugin": plugin}
        secret, password = self._passwords.get(name, ("", None))
        if name == PRIMARY:
            user["password"] = self._password
        elif password is not None and account.secret == secret:  # otherwise SQL has set another one
            user["password"] = password
        return user

    def _remember(self, session: Session, name: str, password: str) -> JSON:
        account = self._account(session, name)
        self._passwords[name] = account.secret, password
        return {**self._user(account), "password": password}

    def _grant(self, session: Session, name: str) -> None:
        """Grant all rights in every schema, with the grant option, but no rights of an administrator."""
        listed = _rows(session, "SHOW PRIVILEGES")
        in_schemas = {str(right).upper() for right, context, _ in listed if not context.startswith(("Server", "File"))}
        in_schemas -= {"GRANT OPTION"}
        for rights in (", ".join(sorted(in_schemas | provider.MYSQL_SERVER_RIGHTS)), provider.MYSQL_DYNAMIC_RIGHTS):
            _rows(session, f"GRANT {rights} ON *.* TO %s@'%%' WITH GRANT OPTION", name)
        if not self._partial_revokes or self._is_primary:
            return  # what ``doadmin`` grants has its own restrictions
        withheld = ", ".join(sorted((in_schemas | {"EVENT"}) - provider.MYSQL_READ_RIGHTS))
        for schema in provider.MYSQL_READ_ONLY_SCHEMAS:
            _rows(session, f"REVOKE {withheld} ON {schema}.* FROM %s@'%%'", name)


def _rows(session: Session, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Execute ``statement``, with ``values`` for each ``%s`` in it, and return all rows."""
    with session.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _schemas(session: Session) -> list[str]:
    return [name for (name,) in _rows(session, "SHOW DATABASES") if name not in _SYSTEM_DBS]


def _kill(session: Session, which: str, value: str) -> None:
    """End the connections that have this value in this column of the process list."""
    for process, found in _rows(session, f"SELECT ID, {which} FROM performance_schema.processlist"):
        if found != value:  # the server would ignore case and accents, and end connections of other users
            continue
        try:
            _rows(session, "KILL %s", process)
        except pymysql.OperationalError as error:
            if error.args[0] != ER.NO_SUCH_THREAD:  # it has ended meanwhile
                raise


def _identified(plugin: str | None) -> str:
    """The clause of CREATE USER and ALTER USER that sets a password, with ``plugin`` or the default plugin."""
    return f"IDENTIFIED WITH {plugin or MySQLAuthPlugin.CACHING_SHA2_PASSWORD.value} BY %s"


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
    escaped = name.replace("`", "``").replace("%", "%%")  # PyMySQL formats statements with %
    return f"`{escaped}`"


def _check_characters(name: str, kind: str) -> None:
    """Refuse a name that the server would change: it strips blanks, and supports no character past U+FFFF."""
    if name != name.strip(_BLANKS) or any(ord(character) > 0xFFFF for character in name):
        raise Refusal(422, f"{kind} name must not begin or end with white space or contain characters past U+FFFF")
