"""What ``doctor --try`` asks of the API about logins and databases that were made or changed by SQL.

Nobody has written the answers down. They are notes: no answer is wrong. Their texts have no names, since the report has
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from .. import ClusterClient
from .._request.raw import JSON
from .._request.waits import waits
from ..clusters import request_below
from ..engines import POSTGRESQL, Engine
from ..errors import APIError, DatabaseClientError
from ..tenants import Credential
from ..tenants._naming import names_of
from .doctor_api import answered
from .doctor_findings import Findings
from .running import message_of

if TYPE_CHECKING:
    from .doctor_mysql import MySQLSql
    from .doctor_postgres import PostgresSql

_POOL_SECONDS = 10.0  # for which a new pool may not be ready


@frozen
class Asking:
    """Asks about one cluster. The names that it makes begin with ``name``."""

    findings: Findings
    cluster: ClusterClient
    engine: Engine | str
    name: str
    pending: set[str]  # the names that a request without an answer may still create

    async def ask_lists(self, made: Credential) -> None:
        """Whether the API lists what a tenant has by SQL."""
        await self._ask("lists", self._lists(made))

    async def ask_all(self, sql: PostgresSql | MySQLSql, made: Credential) -> None:
        """What the API does with logins that SQL made, dropped or locked. ``made`` is a tenant's credential."""
        logins = dropped, shut, own = [f"{self.name}-{each}" for each in "dso"]
        await self._ask("settings", sql.settings())
        try:
            await self._ask("dropped login", self._dropped(sql, dropped))
            await self._ask("locked login", self._shut(sql, shut))
            if self.engine in POSTGRESQL:
                from .doctor_postgres import PostgresSql

                assert isinstance(sql, PostgresSql)
                await self._ask("login by SQL", self._deleted(sql, own, own))
                await self._ask("pool", self._pool(sql, made))
            else:
                from .doctor_mysql import MySQLSql

                assert isinstance(sql, MySQLSql)
                await self._ask("rights", self._rights(sql, own))
        finally:
            for login in logins:
                await sql.drop(login)

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

    async def _dropped(self, sql: PostgresSql | MySQLSql, login: str) -> str:
        await answered(self.cluster.users.create(login), login, self.pending)
        await sql.drop(login)
        read, deleted = await _status(self.cluster.users.get(login)), await _status(self.cluster.users.delete(login))
        return f"after SQL dropped a login of the API, its read {read}, its deletion {deleted}"

    async def _shut(self, sql: PostgresSql | MySQLSql, login: str) -> str:
        await answered(self.cluster.users.create(login), login, self.pending)
        await sql.shut(login)
        read, reset = await _status(self.cluster.users.get(login)), await _status(self.cluster.users.reset_auth(login))
        locked = "locked" if await sql.is_shut(login) else "open"
        return f"after SQL locked a login of the API, its read {read}, its reset {reset}, and it is {locked}"

    async def _rights(self, sql: MySQLSql, login: str) -> str:
        await answered(self.cluster.users.create(login), login, self.pending)
        return f"a login of the API has: {await sql.grants(login)}"

    async def _deleted(self, sql: PostgresSql, login: str, database: str) -> str:
        try:
            await sql.make_owner(login, database)
            enters = _yes(await sql.enters(login, "template1"))
            deleted = await _status(self.cluster.users.delete(login))
            owner = await sql.owner_of(login, database)
        finally:
            await sql.drop_database(database)
        return f"it enters template1: {enters}; its deletion by the API {deleted}, and its table {owner}"

    async def _pool(self, sql: PostgresSql, made: Credential) -> str:
        name = f"{self.name}-p"
        wanted: JSON = {"name": name, "mode": "transaction", "size": 1, "db": made.database, "user": made.username}
        try:
            answer = await request_below(self.cluster, "POST", "pools", json=wanted)
            where = answer["pool"]["connection"]
            for wait in waits(_POOL_SECONDS):
                await asyncio.sleep(wait)
                if await sql.enters(made.username, name, made.password, (where["host"], where["port"])):
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
