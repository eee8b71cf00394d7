"""What a run says of the work on a tenant: its outcome, the problems that it may have, and the event with the times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import StrEnum
from time import monotonic
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar

from attrs import define, field, frozen

from .._bulk.outcomes import Done, Failed
from .._http.call import RequestStats
from .._http.events import logger
from ._credential import Credential
from ._naming import Role
from ._records import TenantRecord, credential_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class TenantAction(StrEnum):
    """The result for one tenant.

    Attributes:
        CREATED: It did not exist, and was created.
        KEPT: It existed as requested, and was not changed.
        ADOPTED: Its database existed without a record, and is on record now, with a new login.
        ROTATED: It has a new login. The previous one still works.
        CHECKED: It was checked. ``problems`` lists what is wrong.
        REPAIRED: Something was wrong with it, and was repaired.
        REVOKED: Its previous credential was ended.
        SUSPENDED: All its logins were ended. Its database stays.
        RESUMED: It was suspended, and has a new login.
        MOVED: It is on another cluster now.
        DONE: The work of ``each`` on it returned.
        SKIPPED: ``each`` did not call the work, since the tenant has that version.
        DELETED: It existed, and was removed.
        ABSENT: It was to be removed, but was not on record.
        FAILED: It failed. ``error`` says why.
    """

    CREATED = "created"
    KEPT = "kept"
    ADOPTED = "adopted"
    ROTATED = "rotated"
    CHECKED = "checked"
    REPAIRED = "repaired"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    MOVED = "moved"
    DONE = "done"
    SKIPPED = "skipped"
    DELETED = "deleted"
    ABSENT = "absent"
    FAILED = "failed"


class ProblemKind(StrEnum):
    """What is wrong with a tenant on record.

    Attributes:
        LOGIN_MISSING: The stored login does not exist.
        PASSWORD_REFUSED: The server refuses the stored password.
        DATABASE_MISSING: The database does not exist, has another name, or is another tenant's. NOT_ON_RECORD beside it
            names another cluster that has it.
        RIGHTS_MISSING: The administrator does not own the database, or a login lacks rights of its role.
        OPEN_TO_OTHERS: A login of another tenant or person can connect to the database, or has a session there.
        OWNED_BY_OTHERS: The administrator or a stranger owns something in the database, which runs with their rights.
        TOO_MANY_RIGHTS: A login has rights outside of its role, such as those of ``pg_read_all_data``, or a reader that
            may write.
        SETTING_DIFFERS: The database has another value for a setting of ``Tenants(settings=)``, or none.
        EXTENSION_MISSING: The database lacks an extension of ``Tenants(extensions=)``.
        UNKNOWN_LOGIN: A login that is not on record can log in: an ended one, as after a failover, or a newer one, as
            after a restore of the store.
        PREVIOUS_REFUSED: The server refuses the previous credential, which is not revoked yet.
        UNFINISHED: A process started to change the tenant and did not finish.
        MOVING: A process started to move the tenant and did not finish. No login of the tenant enters.
        REMOVAL_UNFINISHED: A process started to remove the tenant and did not finish: run ``remove``.
        LEFTOVER: A cluster where the tenant was, or was to be, may still have a database of it, which no program
            uses: run ``repair`` when that cluster can be reached.
        NOT_ON_RECORD: A tenant's database on the server is not on record here, as after a restore or a lost store.
    """

    LOGIN_MISSING = "login_missing"
    PASSWORD_REFUSED = "password_refused"
    DATABASE_MISSING = "database_missing"
    RIGHTS_MISSING = "rights_missing"
    OPEN_TO_OTHERS = "open_to_others"
    OWNED_BY_OTHERS = "owned_by_others"
    TOO_MANY_RIGHTS = "too_many_rights"
    SETTING_DIFFERS = "setting_differs"
    EXTENSION_MISSING = "extension_missing"
    UNKNOWN_LOGIN = "unknown_login"
    PREVIOUS_REFUSED = "previous_refused"
    UNFINISHED = "unfinished"
    MOVING = "moving"
    REMOVAL_UNFINISHED = "removal_unfinished"
    LEFTOVER = "leftover"
    NOT_ON_RECORD = "not_on_record"


@frozen
class Problem:
    """A problem of a tenant on record. Its ``str`` is ``KIND: DETAIL``.

    Attributes:
        kind: What is wrong.
        detail: Who or what: the name of a login, a database or a cluster; "" if the kind says all.
    """

    kind: ProblemKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else str(self.kind)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems, by their kind."""
    kinds = [*ProblemKind]
    return tuple(sorted(problems, key=lambda each: (kinds.index(each.kind), each.detail)))


@frozen(kw_only=True)
class TenantDone(Done):
    """A tenant that exists now.

    Attributes:
        credential: The stored credential to use from now on. That of a suspended tenant does not work.
        record: Its stored record.
        sessions: How many sessions of the previous login were open, if ``revoke_previous(unused=True)`` kept it.
    """

    action: TenantAction
    credential: Credential
    record: TenantRecord
    sessions: int = 0


def done(action: TenantAction, record: TenantRecord, role: Role) -> TenantDone:
    return TenantDone(name=record.name, action=action, credential=credential_of(record, role), record=record)


@frozen(kw_only=True)
class TenantRepaired(Done):
    """A tenant without problems now. If its removal or suspension was unfinished, that was finished.

    Attributes:
        credential: The stored credential to use from now on. If the action is SUSPENDED, it does not work. None if the
            action is DELETED.
        record: Its stored record; None if the action is DELETED.
        problems: The problems that were fixed.
    """

    action: TenantAction
    credential: Credential | None
    record: TenantRecord | None
    problems: tuple[Problem, ...] = ()


@frozen(kw_only=True)
class TenantChecked(Done):
    """The result of a check.

    Attributes:
        credential: The stored credential; None if there is none to use.
        record: The stored record; None if there is none.
        problems: The tenant's problems; empty if there are none.
    """

    action: Literal[TenantAction.CHECKED] = TenantAction.CHECKED
    credential: Credential | None
    record: TenantRecord | None
    problems: tuple[Problem, ...] = ()


@frozen(kw_only=True)
class TenantResult(Done, Generic[T_co]):
    """What the work of ``each`` returned for a tenant.

    Attributes:
        cluster: The id of the tenant's cluster.
        value: What it returned.
    """

    action: Literal[TenantAction.DONE] = TenantAction.DONE
    cluster: str
    value: T_co


@frozen(kw_only=True)
class TenantSkipped(Done):
    """A tenant that has the version of ``each`` already.

    Attributes:
        cluster: The id of the tenant's cluster.
        value: Always None.
    """

    action: Literal[TenantAction.SKIPPED] = TenantAction.SKIPPED
    cluster: str
    value: ClassVar[None] = None


@frozen(kw_only=True)
class TenantMoved(TenantDone):
    """A tenant that is on another cluster now (MOVED), or that stays where it is (KEPT).

    Attributes:
        frozen: How long no login of the tenant could enter.
        bytes: The size of the database before.
        leftover: Why the earlier database is not dropped yet, such as that its cluster is unreachable; "" if it is.
            ``repair`` drops it. Nobody can log in to it.
    """

    frozen: timedelta = timedelta(0)
    bytes: int = 0
    leftover: str = ""


@frozen(kw_only=True)
class TenantRemoved(Done):
    """The result of a removal: DELETED, ABSENT if none was stored, or KEPT if it is not suspended for so long.

    Attributes:
        credential: Always None.
        record: Always None.
        leftover: Other databases that have objects of the tenant, such as a copy that you made. The objects stay, and
            belong to a role ``aiodbclient_gone_...``.
    """

    action: TenantAction
    credential: ClassVar[None] = None
    record: ClassVar[None] = None
    leftover: tuple[str, ...] = ()


@frozen(kw_only=True)
class TenantFailed(Failed):
    """A tenant for which the work failed.

    Attributes:
        cluster: The id of the tenant's cluster, if it is known: in runs of ``Tenants.each``.

    Attributes that only a success has are None, empty or 0: ``credential``, ``record``, ``problems``,
    ``sessions``, ``value``, ``frozen``, ``bytes``, ``leftover``.
    """

    action: Literal[TenantAction.FAILED] = TenantAction.FAILED  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]  # is equal
    cluster: str | None = None
    # So ``outcome.credential`` needs no check of the error before.
    credential: ClassVar[None] = None
    record: ClassVar[None] = None
    problems: ClassVar[tuple[()]] = ()
    sessions: ClassVar[int] = 0
    value: ClassVar[None] = None
    frozen: ClassVar[None] = None
    bytes: ClassVar[int] = 0
    leftover: ClassVar[tuple[str, ...]] = ()


TenantCheckOutcome: TypeAlias = TenantChecked | TenantFailed
TenantRepairOutcome: TypeAlias = TenantRepaired | TenantFailed
TenantMoveOutcome: TypeAlias = TenantMoved | TenantFailed
TenantOutcome: TypeAlias = TenantDone | TenantFailed
TenantRemovalOutcome: TypeAlias = TenantRemoved | TenantFailed


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
        terminated: Logins of others whose sessions were terminated, because they were in the way.
    """

    name: str
    role: Role
    action: TenantAction
    duration: float
    requests: int
    error: str | None
    terminated: tuple[str, ...] = ()


@define(eq=False)
class Reporter:
    """Collects what is reported of the work on one tenant."""

    stats: RequestStats
    role: Role
    on_event: Callable[[TenantEvent], object] | None
    terminated: set[str] = field(init=False, factory=set[str])  # as in the event
    _start: float = field(init=False, factory=lambda: monotonic())

    def report(self, name: str, action: TenantAction, error: Exception | None = None) -> None:
        """Call ``on_event`` with the event, and log its exception if it raises."""
        if self.on_event is None:
            return
        event = TenantEvent(
            name=name,
            role=self.role,
            action=action,
            duration=monotonic() - self._start,
            requests=self.stats.requests,
            error=None if error is None else type(error).__name__,
            terminated=tuple(sorted(self.terminated)),
        )
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001 - the work is done, even if its event fails
            logger.exception("on_event raised")
