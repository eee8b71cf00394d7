"""``Server`` and ``TenantSteps``: what a database server does for tenants, by SQL, as the administrator.

``postgres/`` and ``mysql/`` implement both. ``server_of`` returns the server of a cluster.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import define, evolve, field, frozen

from ..._dsn import is_host
from ..._masking import Secret
from ...engines import POSTGRESQL, Engine
from ...errors import ConfigurationError
from ...models import ClusterInfo, Connection, User
from .._naming import Names, Role
from .._options import DatabaseOptions
from .._outcomes import Problem
from ..errors import GrantError

SessionT = TypeVar("SessionT")
T = TypeVar("T")

AdminLogin: TypeAlias = tuple[str, str]  # a user and its password

SHARE_OF_CONNECTIONS = 0.1  # of the server's, that a login may have; at least two
DROP_LOGINS_SECONDS = 2.0  # for ended logins: what others granted to them can take long
_SESSIONS = 2  # that read at a time; a tenant whose rights take long to read delays only one of them
_READ_SECONDS = 30.0  # for what is read about one tenant


class LoginRefusedError(Exception):
    """The server refuses a login or its password. The message says why and holds no secret."""


class ServerUnreachableError(Exception):
    """The server is unreachable or has no free connection. The message says why and holds no secret."""


class SessionLostError(GrantError):
    """The session ended before the answer to a statement came."""


def of_tenant(names: Names, reason: str) -> GrantError:
    return GrantError(f"tenant {names.tenant!r}: {reason}", tenant=names.tenant)


@frozen
class Administrator:
    """The administrator's login and its server."""

    name: str
    version: str
    lacks: tuple[str, ...]  # the missing rights that tenants need, by the engine's names
    clock: datetime  # in UTC
    open_databases: tuple[str, ...] = ()  # PostgreSQL: that every login may enter, such as ``defaultdb``


@frozen(kw_only=True)
class ServerState:
    """What a server has of a tenant."""

    database: bool = False
    logins: tuple[str, ...] = ()  # of the tenant's form, that may log in, in the order of their numbers
    disabled: tuple[str, ...] = ()  # of the tenant's form, that may not
    same_name_login: bool = False  # whether a login that others made has the name of the database, and may log in
    not_ours: bool = False  # whether the database shows that ``create`` did not make it
    is_locked_out: bool = False  # PostgreSQL: whether ``lock_out`` was its last step. MySQL cannot know it
    mismatch: str = ""  # PostgreSQL: why the database of the tenant's name, if there is one, is not the tenant's own

    def __bool__(self) -> bool:
        return self.database or self.same_name_login or bool(self.logins) or bool(self.mismatch)


@define(eq=False, repr=False)
class BaseTenant:
    """What a server needs to know of a tenant. ``Tenant`` adds the claim."""

    names: Names
    terminated: set[str] = field(factory=set[str], kw_only=True)  # logins of others whose sessions were in the way

    def check_lease(self) -> None:
        """Called before each statement. Raises ClaimLostError if the lease of the claim has expired."""


class Server(ABC):
    """The server of one cluster: what it reads needs no claim, and ``session`` has the steps that change a tenant.

    Each method, also of the steps, is bounded in time, safe to cancel, closes its connections, and raises GrantError if
    it fails.
    """

    sessions: SharedSessions[Any]  # of the administrator

    @abstractmethod
    async def administrator(self) -> Administrator:
        """Log in as the administrator, and read what it may do."""

    @abstractmethod
    async def tenants(self) -> tuple[str, ...]:
        """Return the whole names of all databases that ``create`` made, also of tenants that are not on record."""

    @abstractmethod
    async def usage(self) -> Mapping[str, tuple[int, int]]:
        """Return the bytes and the open connections of each database that ``create`` made, by its name."""

    @abstractmethod
    async def inspect(self, names: Names) -> ServerState:
        """Find what exists with the names of the tenant."""

    @abstractmethod
    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        """Log in to the tenant's database, and return why the server refuses the login or its password, or None.

        A full database or a reached limit is no refusal: the password was right.
        """

    async def test_login(self, names: Names, login: str, password: Secret) -> None:
        """Raise GrantError if the server refuses a new login."""
        if refused := await self.log_in(names, login, password):
            raise of_tenant(names, f"the server refuses the new login {login!r}: {refused}")

    @abstractmethod
    async def count_sessions(self, login: str) -> int:
        """Return how many sessions of a login are open."""

    @abstractmethod
    async def problems(self, names: Names, wanted: Mapping[str, Role] | None) -> frozenset[Problem]:
        """Compare the database, its logins and their rights with ``wanted``, but test no password.

        Args:
            names: The names of the tenant.
            wanted: The role of each login on record, by its name. Another login that may log in is UNKNOWN_LOGIN. None
                for a suspended tenant.
        """

    @abstractmethod
    def steps(self, tenant: BaseTenant) -> TenantSteps:
        """Return the steps that change one tenant. This connects to nothing yet."""

    @asynccontextmanager
    async def session(self, tenant: BaseTenant, *, was_interrupted: bool = True) -> AsyncGenerator[TenantSteps]:
        """Yield the steps for a tenant. They share sessions. First end what an interrupted process runs for it."""
        async with self.sessions.shared():
            steps = self.steps(tenant)
            if was_interrupted:
                await steps.end_stale_sessions()
            yield steps


class TenantSteps(ABC):
    """The steps that change one tenant on its server, as the administrator: an operation is a list of them.

    Each can be repeated, except ``add_login`` and ``add_dump_login``: after a crash, an operation makes new logins.
    Steps with a body here are PostgreSQL's: MySQL has no moves, templates and extensions, and no roles to drop.
    """

    @abstractmethod
    async def end_stale_sessions(self) -> None:
        """End the sessions in which a process that lost its claim, or died, still works on the tenant."""

    @abstractmethod
    async def create(self, source: Names | None = None) -> bool:
        """Create the database, which no login may enter yet, and return whether it is new.

        An existing database stays. On PostgreSQL, a new one can be a copy of the database of ``source``, a suspended
        tenant. Raise ConflictError if that cannot be copied.
        """

    @abstractmethod
    async def add_login(self, login: str, password: Secret, role: Role) -> None:
        """Create a login with the rights of its role, and its role, and test it. This opens a locked database."""

    async def add_dump_login(self, login: str, password: Secret) -> None:
        """Create a login that can read and dump the whole database, also after ``freeze``."""
        raise NotImplementedError

    @abstractmethod
    async def end_logins(self, logins: Collection[str], /) -> None:
        """End logins for good: none has a session or can open one, and nothing runs as them.

        The rights of all are revoked first, because a session may resist. A login that is gone is no error.
        """

    @abstractmethod
    async def drop_logins(self, logins: Collection[str], /) -> tuple[str, ...]:
        """Drop ended logins, give the tenant what they own in its database, and return those that others hold up.

        A login that owns something elsewhere stays. No session of others is ended. This tries for
        ``DROP_LOGINS_SECONDS`` in all.
        """

    @abstractmethod
    async def repair(self, wanted: Mapping[str, Role], /) -> None:
        """Repair all that ``problems`` finds, or raise GrantError for what cannot be repaired."""

    @abstractmethod
    async def lock_out(self) -> None:
        """Revoke all access to the database of a tenant whose logins are ended, and end all sessions in it.

        Until ``add_login``, no code of the tenant may let anybody in.
        """

    async def freeze(self, logins: Collection[str], /) -> None:
        """Revoke the rights of ``logins`` and of all others on the database, and end all sessions in it.

        Passwords stay, for ``unfreeze``. Raise GrantError for a prepared transaction, because somebody could commit it.
        """
        raise NotImplementedError

    async def unfreeze(self, wanted: Mapping[str, Role], /) -> None:
        """Undo ``freeze``: the same passwords work again. Rights of others on the database have ended."""
        raise NotImplementedError

    @abstractmethod
    async def adopt(self) -> str | None:
        """Make a database the tenant's, end its logins but one, and return that.

        It is the newest one, or the one named like the database. Raise ConflictError, before any change, for what is
        not the tenant's to take.
        """

    @abstractmethod
    async def drop_database(self) -> None:
        """Drop the database, and end every session in it, whosever it is."""

    async def drop_roles(self, role: Role | None = None) -> tuple[str, ...]:
        """Drop the group of readers or writers, or all roles of a tenant whose database is dropped.

        Return the databases in which they own something: they are left, under other names.
        """
        return ()

    async def copy_settings(self, limit: int, settings: Sequence[tuple[str, str]]) -> None:
        """Give the database a limit of connections and settings, each a name and a value."""
        raise NotImplementedError

    async def add_extensions(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Make extensions, each a name and its schema, in the new and empty database of ``create``."""
        raise NotImplementedError

    async def restore_extensions(self, *, is_new: bool) -> None:
        """Make the missing extensions of ``Tenants``: in a new database as the administrator, else as the owner role.

        The owner role makes trusted ones alone. Raise GrantError for others.
        """
        return


# A login costs more than the statements of a step: TLS, a password exchange, and a new server process.
@define(eq=False)
class SharedSessions(Generic[SessionT]):
    """Sessions of the administrator that the work on many tenants shares, each for one task at a time."""

    _log_in: Callable[[], Awaitable[SessionT]]
    _close: Callable[[SessionT], Awaitable[None]]
    _limit: asyncio.Semaphore = field(factory=partial(asyncio.Semaphore, _SESSIONS), init=False)
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

    async def read(self, do: Callable[[SessionT], Awaitable[T]]) -> T:
        """Call ``do`` with a session. It only reads, so it may be called again with another one."""
        try:
            async with self._limit, asyncio.timeout(_READ_SECONDS), self.session(do) as (_, found):
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


def new_password() -> Secret:
    """A random password of a form that fits the password policies of MySQL."""
    return Secret(f"Aa1-{secrets.token_urlsafe(24)}")


def server_of(
    engine: Engine | str,
    connection: Connection,
    ca: str | None,
    admin: AdminLogin | None,
    connection_limit: int | None,
    options: DatabaseOptions = DatabaseOptions(),
) -> Server:
    """Import the driver, and return the server of a cluster, with ``admin`` or its primary user as administrator."""
    dsn = _admin_dsn(engine, connection, admin)
    try:
        if engine in POSTGRESQL:
            from .postgres import PostgresServer

            return PostgresServer(dsn, ca, connection_limit=connection_limit, options=options)
        from .mysql import MySQLServer

        return MySQLServer(dsn, ca, connection_limit=connection_limit)
    except ImportError as error:
        raise ConfigurationError(f"tenants on {engine} need {error.name}: pip install 'aiodbclient[tenants]'") from None


def connection_of(cluster: ClusterInfo, *, private: bool) -> Connection:
    """Return the connection for the tenants' programs, public or private."""
    connection = cluster.private_connection if private else cluster.connection
    if connection is None or not connection.host:
        which = "private connection" if private else "connection"
        raise ConfigurationError(
            f"the API returns no {which} for the cluster {cluster.name!r} (its status is {cluster.status}): "
            "wait until it is online, or choose the other connection"
        )
    if not is_host(connection.host):
        raise ConfigurationError(
            f"the cluster {cluster.name!r} has an invalid host in its connection: ask the provider"
        )
    return connection


def _admin_dsn(engine: Engine | str, connection: Connection, admin: AdminLogin | None) -> Secret:
    """Return the DSN of ``admin``, or of the cluster's primary user, without TLS options."""
    user, password = (connection.user, connection.password) if admin is None else admin
    if not (user and password):
        raise ConfigurationError(
            "the API does not return the password of the primary user, who makes the tenants' logins: give the token "
            "the scope database:view_credentials, or pass admin=, the user and password of an administrator"
        )
    uri = evolve(connection, engine=engine, uri=None).uri_for(User(user, password=password))
    return Secret(uri.partition("?")[0])  # a traceback may show it
