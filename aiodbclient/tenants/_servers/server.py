"""``Server``: what a database server does for the tenants of one cluster, by SQL, as the administrator.

``postgres/`` and ``mysql/`` implement it. A verb is a list of these steps. Each step is safe to repeat, so after a
crash the verb that is on record runs again from its first step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from attrs import field, frozen

from ...errors import GrantError
from .._credential import Secret
from .._naming import Names
from .._outcomes import Problem


class LoginRefusedError(Exception):
    """The server refuses a login or its password. The message says why and holds no secret."""


class ServerAwayError(Exception):
    """The server is unreachable or has no free connection. The message says why and holds no secret."""


def of_tenant(names: Names, reason: str, kind: type[GrantError] = GrantError) -> GrantError:
    """Make the error that names a tenant."""
    return kind(f"tenant {names.tenant!r}: {reason}", tenant=names.tenant)


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
    check: Callable[[], object]  # called before each statement; raises ClaimLostError if the lease has expired
    ended: set[str] = field(factory=set[str])  # others whose sessions were ended, because they were in the way


class Server(ABC):
    """The server of one cluster.

    Every method is safe to repeat and to cancel, leaves no connection open (see ``shared``), and ends within a bounded
    time. Each raises GrantError if the server is unreachable, refuses the administrator or a statement, or if something
    is in the way, which the error names.
    """

    # The cluster.

    @abstractmethod
    async def administrator(self) -> Administrator:
        """Log in as the administrator, and read what it may do."""

    @abstractmethod
    async def open_databases(self) -> tuple[str, ...]:
        """Return the databases that every login may enter, such as ``defaultdb``."""

    @abstractmethod
    async def tenants(self) -> tuple[str, ...]:
        """Return the whole names of all databases that ``create`` made, also of tenants that are not on record."""

    @abstractmethod
    def shared(self) -> AbstractAsyncContextManager[None]:
        """Keep the sessions of ``find`` and ``problems`` open for the next tenant, while any task is in a block."""

    @abstractmethod
    async def usage(self) -> Mapping[str, tuple[int, int]]:
        """Return the bytes and the open connections of each database that ``create`` made, by its name."""

    # Looking at a tenant.

    @abstractmethod
    async def find(self, names: Names) -> Found:
        """Find what exists with the names of the tenant."""

    @abstractmethod
    async def why_no_roles(self, names: Names) -> str:
        """Why the tenant's database cannot keep readers and writers within their rights; "" if it can."""

    @abstractmethod
    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        """Log in to the tenant's database. Return why the server refuses it, or None.

        A full database or a reached limit is no refusal: the password was right.
        """

    @abstractmethod
    async def problems(self, names: Names, logins: Sequence[str]) -> frozenset[Problem]:
        """Compare the database, the roles and rights on the server with those that ``logins``, which work, should have.

        Another login of the role that is not ended, as after a failover, is LOGIN_BACK. Tests no password.
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
        """Create the login with its rights or, if it exists, end it as ``end_login`` does and reset it.

        Raises ConflictError if it exists and may not. Then nothing is changed.
        """

    @abstractmethod
    async def end_login(self, work: Work, login: str) -> None:
        """End a login for good: no session of it is open, none can begin, and nothing runs as it.

        Does nothing if it is gone. Its sessions may resist: the ending is bounded in time, then GrantError names what
        is in the way.
        """

    @abstractmethod
    async def drop_login(self, work: Work, login: str) -> bool:
        """Give what an ended login owns in the tenant's database to the tenant, drop the rest, and drop the login.

        Ends no session of others. Returns False if others hold that up: the login stays, ended, and ``repair`` tries
        again.
        """

    @abstractmethod
    async def mend(self, work: Work, logins: Sequence[str]) -> None:
        """Mend what ``problems`` finds of the database, its roles and rights. The passwords of ``logins`` stay."""

    @abstractmethod
    async def shut(self, work: Work) -> None:
        """After all logins of a tenant were ended: let nobody else keep access to its database, nor a session there."""

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
    async def release(self, work: Work) -> None:
        """Instead of ``drop_database``: keep the database and leave it to nobody who can log in."""

    @abstractmethod
    async def forget(self, work: Work) -> None:
        """Drop the roles that ``create`` made for this role. The database is dropped or released already."""

    # Moving and dumping.

    @abstractmethod
    async def guests(self, names: Names) -> tuple[str, ...]:
        """Return the rights of others on the database, which ``shut`` takes, as a text each that ``reopen`` takes."""

    @abstractmethod
    async def unknown(self, names: Names, guests: Sequence[str]) -> tuple[str, ...]:
        """Return who of the ``guests`` of another server does not exist on this one."""

    @abstractmethod
    async def reopen(self, work: Work, guests: Sequence[str]) -> None:
        """After ``shut``: give others their rights back. Passes over those who are gone."""

    @abstractmethod
    async def temporary_login(self, work: Work, password: Secret) -> str:
        """Create ``names.temporary``, or end and reset it: it may read the whole database, also after ``shut``."""

    @abstractmethod
    async def drop_temporary(self, work: Work) -> None:
        """End and drop ``names.temporary``. Does nothing if it is gone."""

    @abstractmethod
    async def programs(self, names: Names) -> tuple[str, str]:
        """MySQL: return the statements that make what ``dump`` leaves out: routines, views, triggers; and events."""

    @abstractmethod
    async def add_extensions(self, work: Work, extensions: Sequence[tuple[str, str]]) -> None:
        """PostgreSQL: make extensions, each a name and its schema, in the new and empty database of ``create``."""
