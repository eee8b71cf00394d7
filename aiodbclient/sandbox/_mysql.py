"""``MySQLBackend``: the MySQL or MariaDB server of a DSN behind a cluster. Needs aiomysql."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, MutableMapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import pymysql
from pymysql.constants import ER

from ..models import MySQLAuthPlugin, UserRole
from ._answers import Refusal, name_taken, not_found
from ._backends import PRIMARY, Backend, Primary, new_password
from ._mysql_server import SYSTEM_DBS, MySQLAccount, MySQLServer, quoted
from ._validation import JSON, RequestedUser

T = TypeVar("T")

_log = logging.getLogger("aiodbclient.sandbox")
_BLANKS = " \t\n\v\f\r"  # MySQL strips these from both ends of an account's name
_NO_SUCH_PLUGIN = 1524  # ER_PLUGIN_IS_NOT_LOADED, in the manual's list of errors


class MySQLBackend(Backend):
    """Maps the API's users to the server's accounts, and its dbs to the server's schemas."""

    # The account of the DSN is hidden unless it is ``doadmin``, which has all rights in every schema, and may grant
    # them, but is not an administrator. Users created through the API have the same rights, as at the provider.

    def __init__(self, engine: str, dsn: str, secrets: MutableMapping[str, tuple[str, str]]) -> None:
        self.engine = engine
        self._server = MySQLServer(dsn)
        self._secrets = secrets
        self._changing: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        try:
            await self._server.open()
        except (pymysql.Error, OSError) as error:
            raise RuntimeError(f"the MySQL server of the DSN cannot be used: {error.__cause__ or error}") from None

    async def stop(self) -> None:
        await asyncio.gather(*self._running, return_exceptions=True)
        self._server.close()

    def version(self) -> str:
        return self._server.version.partition("-")[0]

    def primary(self) -> Primary:
        server = self._server
        return Primary("mysql", server.host, server.port, server.database, server.password, server.tls)

    def ca(self) -> str | None:
        return self._server.ca_file and Path(self._server.ca_file).read_text()

    async def users(self) -> list[JSON]:
        return await self._run(self._users())

    async def user(self, name: str) -> JSON:
        return await self._run(self._read(name))

    async def create_user(self, new: RequestedUser) -> JSON:
        _check_characters(new.name, "user")
        return await self._run(self._create_user(new), "user", new.name)

    async def update_user(self, name: str, settings: JSON) -> JSON:
        return await self.user(name)  # MySQL has no settings

    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        return await self._run(self._reset_auth(name, auth_plugin), "user", name)

    async def delete_user(self, name: str) -> None:
        await self._run(self._delete_user(name), "user", name)

    async def dbs(self) -> list[str]:
        return await self._run(self._server.dbs())

    async def create_db(self, name: str) -> None:
        _check_characters(name, "database")
        await self._run(self._create_db(name), "db", name)

    async def delete_db(self, name: str) -> None:
        await self._run(self._delete_db(name), "db", name)

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

    async def _accounts_of(self, name: str) -> list[MySQLAccount]:
        accounts = [account for account in await self._server.accounts() if account.name == name]
        if not accounts:
            raise not_found()
        return accounts

    async def _read(self, name: str) -> JSON:
        return self._user(await self._accounts_of(name))

    async def _users(self) -> list[JSON]:
        by_name: dict[str, list[MySQLAccount]] = {}
        for account in await self._server.accounts():
            by_name.setdefault(account.name, []).append(account)
        return [self._user(accounts) for accounts in by_name.values()]

    def _user(self, accounts: list[MySQLAccount]) -> JSON:
        name, plugin = accounts[0].name, accounts[0].plugin
        user: JSON = {"name": name, "role": (UserRole.NORMAL, UserRole.PRIMARY)[name == PRIMARY].value}
        if plugin in list(MySQLAuthPlugin):
            user["mysql_settings"] = {"auth_plugin": plugin}
        secret, password = self._secrets.get(name, ("", None))
        if name == PRIMARY:
            user["password"] = self._server.password
        elif password is not None:
            # Somebody may have made accounts for single hosts. The API does not know them.
            own = [account for account in accounts if account.host == "%"] or accounts
            if all(account.secret == secret for account in own):
                user["password"] = password
        return user

    async def _create_user(self, new: RequestedUser) -> JSON:
        if new.name in self._server.reserved_users:
            raise name_taken("user")
        password = new_password()
        await self._server.rows(f"CREATE USER %s@'%%' {self._server.identified(new.auth_plugin)}", new.name, password)
        if not any(account.name == new.name for account in await self._server.accounts()):
            await self._server.rows("DROP USER %s@'%%'", new.name)  # the server changes this name as in CREATE USER
            raise Refusal(422, "the server changes this user name")
        await self._server.grant(new.name)
        return await self._remember(new.name, password)

    async def _reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        accounts = await self._accounts_of(name)
        if name == PRIMARY:
            raise Refusal(422, "the password of the primary user belongs to the DSN and cannot be reset")
        password = new_password()
        plugin = auth_plugin or (accounts[0].plugin if accounts[0].plugin in list(MySQLAuthPlugin) else None)
        for account in accounts:
            await self._server.rows(f"ALTER USER %s@%s {self._server.identified(plugin)}", name, account.host, password)
        return await self._remember(name, password)

    async def _remember(self, name: str, password: str) -> JSON:
        accounts = await self._accounts_of(name)
        self._secrets[name] = accounts[0].secret, password
        return {**self._user(accounts), "password": password}

    async def _delete_user(self, name: str) -> None:
        for account in await self._accounts_of(name):
            await self._server.rows("DROP USER %s@%s", name, account.host)
        await self._server.kill("USER", name)
        self._secrets.pop(name, None)

    async def _create_db(self, name: str) -> None:
        if name.lower() in SYSTEM_DBS:
            raise name_taken("database")
        await self._server.rows(f"CREATE DATABASE {quoted(name)}")
        if name not in await self._server.dbs():
            await self._server.rows(f"DROP DATABASE {quoted(name)}")
            raise Refusal(422, "the server changes this database name")

    async def _delete_db(self, name: str) -> None:
        if name not in await self._server.dbs():
            raise not_found()
        await self._server.kill("DB", name)  # an open transaction would block DROP DATABASE
        await self._server.rows(f"DROP DATABASE {quoted(name)}")


def _check_characters(name: str, kind: str) -> None:
    """Refuse a name that the server would change: it strips blanks, and supports no character past U+FFFF."""
    if name != name.strip(_BLANKS) or any(ord(character) > 0xFFFF for character in name):
        raise Refusal(422, f"{kind} name must not begin or end with white space or contain characters past U+FFFF")
