"""``PostgresSession``: the steps of ``TenantSession`` on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from ..._credential import Secret
from ..._naming import ROLES, Role
from .. import TenantSession, Work, of_tenant
from . import adoption, closing, databases, logins, objects, objects_of_others, rights
from .sessions import BlockedError, ExistsError, Session, Watch, entered

if TYPE_CHECKING:
    from . import PostgresServer

ENDING_SECONDS = 30.0  # for a step that others block, and for the sessions of a login that resist
# For DROP DATABASE, which waits for each process of the server. A client that does not finish its login holds it up
# until the server ends the connection, after ``authentication_timeout``: 60 s by default.
REMOVAL_SECONDS = 70.0
_PAUSE_SECONDS = 0.2  # before a retry, if another session held a lock. Meanwhile the turn is free for others
_DROP_LOGINS_SECONDS = 2.0  # for ended logins: what others granted to them can take long

T = TypeVar("T")


class PostgresSession(TenantSession):
    """The steps for one tenant. See ``TenantSession``."""

    def __init__(self, server: PostgresServer, work: Work) -> None:
        self.names = work.names
        self._server = server
        self._work = work
        self._session = partial(server.opened, work)

    async def end_work(self) -> None:
        await self._step(logins.end_work)

    async def create(self) -> bool:
        try:
            return await self._step(databases.create)
        except ExistsError:  # it was made a moment ago, or is left of a DROP DATABASE that was interrupted
            await self._step(partial(closing.drop_remains, seconds=REMOVAL_SECONDS))
            return await self._step(databases.create)

    async def create_role(self, role: Role) -> None:
        await self._step(partial(databases.create_group, role=role))
        await self._step(partial(rights.complete_inside, roles=[role]), self.names.database)

    async def add_login(self, login: str, password: Secret, role: Role) -> None:
        stored = await logins.verifier(password)
        await self._step(closing.open_again)
        limit = self._server.connection_limit
        await self._step(partial(logins.create_login, login=login, stored=stored, role=role, limit=limit))

    async def add_dump_login(self, login: str, password: Secret) -> None:
        stored = await logins.verifier(password)
        await self._step(closing.open_again)
        await self._step(partial(logins.create_dump_login, login=login, stored=stored))

    async def end_logins(self, ending: Collection[str], /) -> None:
        await self._step(partial(logins.end, logins=ending, until=monotonic() + ENDING_SECONDS))

    async def drop_logins(self, ended: Collection[str], /) -> tuple[str, ...]:
        left = sorted(ended, key=self.names.number, reverse=True)  # first the one that was ended last
        async with self._server.drops:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DROP_LOGINS_SECONDS):
                    for login in [*left]:
                        if await objects.drop(self._session, login):
                            left.remove(login)
        return tuple(sorted(left))

    async def repair(self, on_record: Mapping[str, Role], /) -> None:
        await self._step(partial(databases.complete, logins=on_record, limit=self._server.connection_limit))
        if roles := [role for role in ROLES if role in on_record.values()]:
            await self._step(partial(rights.complete_inside, roles=roles), self.names.database)
        if left := await objects_of_others.reclaim(self._turn, on_record):
            raise of_tenant(
                self.names,
                f"the administrator cannot change all that is others' in the database {self.names.database!r}: "
                f"{'; '.join(left)}: a superuser has to, or the owner of these objects",
            )

    async def shut(self) -> None:
        await self._step(closing.shut)

    async def freeze(self, frozen: Collection[str], /) -> None:
        await self._step(partial(closing.freeze, logins=frozen))

    async def unfreeze(self, frozen: Mapping[str, Role], /) -> None:
        await self._step(partial(databases.complete, logins=frozen))

    async def adopt(self) -> str | None:
        login = await self._step(adoption.login_to_adopt)
        await self._step(partial(adoption.check_adoption, login=login))
        if login is not None and login == self.names.database:
            await self._step(partial(adoption.check_schema, login=login), self.names.database)
        found = await self._server.find(self.names)
        await self.end_logins([each for each in found.logins if each != login])  # somebody may know their passwords
        await self._step(partial(adoption.take_database, login=login))
        await objects_of_others.take_objects(self._turn)  # ``problems`` reports what the administrator may not give
        return login

    async def drop_database(self) -> None:
        await self._step(partial(closing.drop, seconds=REMOVAL_SECONDS))

    async def forget(self, role: Role | None = None) -> None:
        names = self.names
        if role is None and (await self._server.find(names)).database:
            raise of_tenant(names, f"its database {names.database!r} still exists: run it again")
        roles = [names.owner, *names.groups] if role is None else [names.group(role)]
        for (present,) in await self._server.ask(logins.PRESENT, roles):
            await objects.forget(self._session, present)

    async def add_extensions(self, extensions: Sequence[tuple[str, str]]) -> None:
        await self._step(partial(databases.add_extensions, extensions=extensions), self.names.database)

    async def _step(self, do: Callable[[Session], Awaitable[T]], database: str | None = None) -> T:
        """Do a step. If a lock blocks it, retry, and end the tenants that hold it."""
        watch, until = Watch(self._work), monotonic() + ENDING_SECONDS
        while True:
            try:
                opened = self._turn() if database is None else entered(self._turn, database)
                async with opened as session, watch.over(session):
                    return await do(session)
            except BlockedError as error:
                blocked = error
            if monotonic() > until:
                raise (
                    of_tenant(self.names, f"{watch.seen}, so it was not finished: {blocked}") if watch.seen else blocked
                )
            await asyncio.sleep(_PAUSE_SECONDS)

    @asynccontextmanager
    async def _turn(self, database: str | None = None) -> AsyncGenerator[Session]:
        """A session in a turn. Those that it opens need none, so nobody waits for a turn in a turn."""
        async with self._server.turns, self._session(database) as session:
            yield session
