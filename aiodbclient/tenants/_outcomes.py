"""What a run says of the work on a tenant: its outcome, the problems that it may have, and the event with the times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from time import monotonic
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar

from attrs import frozen

from .._bulk.outcomes import Action, Done, Failed
from .._http.call import RequestStats
from .._http.events import logger
from ._credential import Credential
from ._naming import Role

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Problem(StrEnum):
    """A problem of a stored tenant.

    Attributes:
        LOGIN_MISSING: The stored login does not exist.
        PASSWORD_REFUSED: The server refuses the stored password.
        DATABASE_MISSING: The database does not exist. Its data is lost.
        RIGHTS_MISSING: The tenant's owner does not own the database, or the login lacks rights of its role.
        OPEN_TO_OTHERS: A login of another tenant or person can connect to the database, or has a session there.
        OWNED_BY_OTHERS: The administrator or a stranger owns something in the database, which runs with their rights,
            or the tenant owns something in another database.
        TOO_MANY_RIGHTS: A login has rights outside of its role, such as those of ``pg_read_all_data``.
        LOGIN_BACK: A login that is not on record can log in: an ended one, as after a failover, or a newer one, as
            after a restore of the store.
        PREVIOUS_REFUSED: The server refuses the previous credential, which is not revoked yet.
        UNFINISHED: A process started to change the tenant and did not finish.
        REMOVAL_UNFINISHED: A process started to remove the tenant and did not finish: run ``remove``.
        LEFT_BEHIND: The tenant was moved, and its earlier database is not dropped yet: run ``repair`` when that
            cluster can be reached. Nobody can log in to it.
        NOT_ON_RECORD: A tenant's database on the server is not on record here, as after a restore or a lost store.
    """

    LOGIN_MISSING = "login_missing"
    PASSWORD_REFUSED = "password_refused"
    DATABASE_MISSING = "database_missing"
    RIGHTS_MISSING = "rights_missing"
    OPEN_TO_OTHERS = "open_to_others"
    OWNED_BY_OTHERS = "owned_by_others"
    TOO_MANY_RIGHTS = "too_many_rights"
    LOGIN_BACK = "login_back"
    PREVIOUS_REFUSED = "previous_refused"
    UNFINISHED = "unfinished"
    REMOVAL_UNFINISHED = "removal_unfinished"
    LEFT_BEHIND = "left_behind"
    NOT_ON_RECORD = "not_on_record"


@frozen(kw_only=True)
class TenantDone(Done):
    """A tenant that exists now.

    Attributes:
        credential: The stored credential to use from now on.
    """

    credential: Credential


def done(action: Action, credential: Credential) -> TenantDone:
    """The outcome of the tenant of ``credential``."""
    return TenantDone(name=credential.name, action=action, credential=credential)


@frozen(kw_only=True)
class TenantRepaired(TenantDone):
    """A tenant without problems now. If its removal or suspension was unfinished, that was finished.

    Attributes:
        credential: The stored credential to use from now on. If the action is DELETED or SUSPENDED, it works no more.
        problems: The problems that were fixed.
    """

    problems: tuple[Problem, ...] = ()


@frozen(kw_only=True)
class TenantChecked(Done):
    """The result of a check.

    Attributes:
        credential: The stored credential; None if there is none to use.
        problems: The tenant's problems; empty if there are none.
    """

    action: Literal[Action.CHECKED] = Action.CHECKED
    credential: Credential | None
    problems: tuple[Problem, ...] = ()


@frozen(kw_only=True)
class TenantResult(Done, Generic[T_co]):
    """What the work of ``each`` returned for a tenant.

    Attributes:
        cluster: The id of the tenant's cluster.
        value: What it returned.
    """

    action: Literal[Action.DONE] = Action.DONE
    cluster: str
    value: T_co


@frozen(kw_only=True)
class TenantMoved(TenantDone):
    """A tenant that is on another cluster now (MOVED), or that stays where it is (KEPT).

    Attributes:
        frozen: How long no login of the tenant could enter.
        bytes: The size of the database before.
        left: Why the earlier database is not dropped yet, such as that its cluster is away; "" if it is. ``repair``
            drops it. Nobody can log in to it.
    """

    frozen: timedelta = timedelta(0)
    bytes: int = 0
    left: str = ""


class TenantRemoved(Done):
    """The result of a removal: DELETED, ABSENT if none was stored, or KEPT if it is not suspended for so long.

    Attributes:
        credential: Always None.
    """

    __slots__ = ()
    credential: ClassVar[None] = None


TenantCheckOutcome: TypeAlias = TenantChecked | Failed
TenantRepairOutcome: TypeAlias = TenantRepaired | Failed
TenantMoveOutcome: TypeAlias = TenantMoved | Failed
TenantOutcome: TypeAlias = TenantDone | Failed
TenantRemovalOutcome: TypeAlias = TenantRemoved | Failed


@frozen
class TenantEvent:
    """The finished work on one tenant. It holds no credential.

    Attributes:
        name: The tenant.
        role: The role of the login.
        action: The action of its outcome.
        duration: Seconds in all.
        requests: The number of requests to the API.
        error: The name of the exception's class; None if the work did not fail.
        ended: Logins of others whose sessions were ended, because they were in the way.
    """

    name: str
    role: Role
    action: Action
    duration: float
    requests: int
    error: str | None
    ended: tuple[str, ...] = ()


class Timer:
    """Counts the seconds and the requests of the work on one tenant."""

    __slots__ = ("_start", "ended", "meter")

    def __init__(self, meter: RequestStats) -> None:
        self.meter = meter
        self.ended = set[str]()  # others whose sessions were ended
        self._start = monotonic()

    def report(
        self, on_event: Callable[[TenantEvent], object] | None, name: str, role: Role, action: Action, error: str | None
    ) -> None:
        """Call ``on_event`` with the event. If it raises, log the exception."""
        if on_event is None:
            return
        event = TenantEvent(
            name=name,
            role=role,
            action=action,
            duration=monotonic() - self._start,
            requests=self.meter.requests,
            error=error,
            ended=tuple(sorted(self.ended)),
        )
        try:
            on_event(event)
        except Exception:  # noqa: BLE001 - the work is done, even if its event fails
            logger.exception("on_event raised")
