"""``Server``: what a database server does for the tenants of one cluster, by SQL, as the administrator.

``postgres/`` and ``mysql/`` implement it. A verb is a list of these steps. Each step is safe to repeat, so after a
crash a verb can begin again with its first one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from .._credential import Secret
from .._naming import Names
from .._outcomes import Problem
from ..errors import GrantError

SessionT = TypeVar("SessionT")
T = TypeVar("T")

TEMPORARY_CONNECTIONS = 4  # of the login that dumps a database
_SESSIONS = 2  # that read at a time; a tenant whose rights take long to read delays only one of them
_READ_SECONDS = 30.0  # for what is read about one tenant


class LoginRefusedError(Exception):
    """The server refuses a login or its password. The message says why and holds no secret."""


class ServerAwayError(Exception):
    """The server is unreachable or has no free connection. The message says why and holds no secret."""


class SessionLostError(GrantError):
    """The session ended before the answer to a statement came."""


def of_tenant(names: Names, reason: str) -> GrantError:
    """Make the error that names a tenant."""
    return GrantError(f"tenant {names.tenant!r}: {reason}", tenant=names.tenant)


@frozen
class Administrator:
    """The administrator's login and its server."""

    name: str
    version: str
    lacks: tuple[str, ...]  # the missing rights that tenants need, by the engine's names
    connections: int  # that the server allows to all logins together
    clock: datetime  # in UTC


@frozen
class Found:
    """What exists on the server with the names of a tenant."""

    database: bool
    logins: tuple[str, ...]  # of the role, in their order, that may log in
    ended: tuple[str, ...] = ()  # of the role, that may not

    def __bool__(self) -> bool:
        return self.database or bool(self.logins or self.ended)


@frozen
class Work:
    """The work on one tenant, under its claim."""

    names: Names
    # Called before each statement; raises ClaimLostError if the lease has expired.
    check_lease: Callable[[], object] = lambda: None
    ended: set[str] = field(factory=set[str])  # others whose sessions were ended, because they were in the way


class Server(ABC):
    """The server of one cluster.

    Every method is safe to repeat and to cancel, leaves no connection open (see ``SharedSessions``), and ends within a
    bounded time. Each raises GrantError if the server is unreachable, refuses the administrator or a statement, or if
    something is in the way, which the error names.
    """

    sessions: SharedSessions[Any]  # of the administrator

    # The cluster.

    @abstractmethod
    async def administrator(self) -> Administrator:
        """Log in as the administrator, and read what it may do."""

    async def open_databases(self) -> tuple[str, ...]:
        """PostgreSQL: return the databases that every login may enter, such as ``defaultdb``."""
        return ()

    @abstractmethod
    async def tenants(self) -> tuple[str, ...]:
        """Return the whole names of all databases that ``create`` made, also of tenants that are not on record."""

    @abstractmethod
    async def usage(self) -> Mapping[str, tuple[int, int]]:
        """Return the bytes and the open connections of each database that ``create`` made, by its name."""

    # Looking at a tenant.

    @abstractmethod
    async def find(self, names: Names) -> Found:
        """Find what exists with the names of the tenant."""

    @abstractmethod
    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        """Log in to the tenant's database. Return why the server refuses it, or None.

        A full database or a reached limit is no refusal: the password was right.
        """

    @abstractmethod
    async def count_sessions(self, login: str) -> int:
        """Return how many sessions of a login are open."""

    @abstractmethod
    async def problems(self, names: Names, logins: Sequence[str] | None) -> frozenset[Problem]:
        """Compare the database, the roles and rights on the server with those that ``logins``, which work, should have.

        ``logins`` is None if the tenant is suspended.

        Another login of the role that is not ended, as after a failover, is UNKNOWN_LOGIN. Tests no password.
        """

    # Steps of the verbs.

    @abstractmethod
    async def end_work(self, work: Work) -> None:
        """End the sessions in which a process that lost its claim, or died, still works on the tenant."""

    @abstractmethod
    async def create(self, work: Work) -> bool:
        """Create the database of an owner, closed to all, or the rights of a role. Return whether it is new.

        Does nothing if it exists.
        """

    @abstractmethod
    async def set_login(self, work: Work, login: str, password: Secret, *, may_exist: bool = True) -> None:
        """Create the login with its rights or, if it exists, end it as ``end_logins`` does and reset it.

        ``names.temporary`` may read the whole database, also after ``shut``, and nothing else.
        Raises ConflictError if it exists and may not. Then nothing is changed.
        """

    @abstractmethod
    async def end_logins(self, work: Work, logins: Collection[str], /) -> None:
        """End logins for good: no session of them is open, none can begin, and nothing runs as them.

        First all of them lose their rights, then sessions are ended. Does nothing for those that are gone. Sessions may
        resist: the ending is bounded in time, then GrantError names what is in the way.
        """

    @abstractmethod
    async def drop_login(self, work: Work, login: str) -> bool:
        """Give what an ended login owns in the tenant's database to the tenant, drop the rest, and drop the login.

        Ends no session of others. Returns False if others hold that up for some seconds: the login stays, ended, and
        ``repair`` tries again.
        """

    @abstractmethod
    async def repair(self, work: Work, logins: Sequence[str]) -> None:
        """Mend what ``problems`` finds of the database, its roles and rights. The passwords of ``logins`` stay."""

    @abstractmethod
    async def shut(self, work: Work, *, still: bool = False) -> None:
        """After all logins of a tenant were ended: let nobody else keep access to its database, nor a session there.

        ``still``, for a move: if a transaction is left that somebody could commit, raise GrantError.
        """

    @abstractmethod
    async def adopt(self, work: Work, login: str | None) -> None:
        """Make a database and what is in it the tenant's. ``login``, which was there, works until it is ended.

        Raises ConflictError if the database or the login is not the tenant's to take: it is reserved, has rights that
        no tenant has, or the administrator may not alter it.
        """

    @abstractmethod
    async def drop_database(self, work: Work) -> None:
        """Drop the database, and end every session in it, whosever it is."""

    @abstractmethod
    async def forget(self, work: Work) -> None:
        """Drop the roles that ``create`` made for this role. The database is dropped already."""

    # Moving and dumping.

    @abstractmethod
    async def other_grantees(self, names: Names) -> tuple[str, ...]:
        """Return who else has rights on the database, which ``shut`` revokes."""

    async def drop_temporary(self, work: Work) -> None:
        """End and drop ``names.temporary``. Does nothing if it is gone."""
        await self.end_logins(work, [work.names.temporary])
        await self.drop_login(work, work.names.temporary)

    async def programs(self, names: Names) -> tuple[str, str]:
        """MySQL: return the statements that make what ``dump`` leaves out: routines, views, triggers; and events."""
        return "", ""

    async def add_extensions(self, work: Work, extensions: Sequence[tuple[str, str]]) -> None:
        """PostgreSQL: make extensions, each a name and its schema, in the new and empty database of ``create``."""
        return


@define(eq=False)
class SharedSessions(Generic[SessionT]):
    """Sessions of the administrator that the work on many tenants shares, each for one task at a time.

    A login costs both sides more than the statements of a step: TLS, a password exchange, and a new server process.
    """

    _log_in: Callable[[], Awaitable[SessionT]]
    _close: Callable[[SessionT], Awaitable[None]]
    _turns: asyncio.Semaphore = field(factory=partial(asyncio.Semaphore, _SESSIONS), init=False)
    _idle: list[SessionT] = field(factory=list[SessionT], init=False)
    _sharing: int = field(default=0, init=False)

    @asynccontextmanager
    async def shared(self) -> AsyncGenerator[None]:
        """Keep sessions open for the next task, while any task is in such a block. The last one closes them."""
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            async with AsyncExitStack() as closing:  # closes each, even if it is cancelled meanwhile
                while self._idle and not self._sharing:
                    closing.push_async_callback(self._close, self._idle.pop())

    async def read(self, work: Callable[[SessionT], Awaitable[T]]) -> T:
        """Call ``work`` with a session. It only reads, so it may be called again with another one."""
        try:
            async with self._turns, asyncio.timeout(_READ_SECONDS), self.session(work) as (_, found):
                return found
        except TimeoutError:
            pass
        raise GrantError(f"the database server did not answer within {_READ_SECONDS:.0f} s")

    @asynccontextmanager
    async def session(self, begin: Callable[[SessionT], Awaitable[T]]) -> AsyncGenerator[tuple[SessionT, T]]:
        """Yield a session, and what ``begin`` returned in it. One that ended while it was idle is replaced."""
        while True:
            was_idle = bool(self._idle)
            session = self._idle.pop() if was_idle else await self._log_in()
            async with AsyncExitStack() as ending:
                ending.push_async_callback(self._close, session)
                try:
                    begun = await begin(session)
                except SessionLostError:
                    if was_idle:
                        continue
                    raise
                yield session, begun
                if self._sharing:
                    ending.pop_all()
                    self._idle.append(session)
                return
