"""The outcome of each name of a bulk run. Pure.

``UserOutcome`` and the others are unions of a success and ``Failed``. After ``if outcome.error is None`` (with mypy
also after ``if outcome.ok``) a type checker knows that the outcome is the success, and what that holds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias

from attrs import frozen

from ..models import Database, User


class Action(StrEnum):
    """What became of a name.

    Attributes:
        CREATED: It was not there, and was made.
        KEPT: It was there as asked for, and was left as it is.
        ADOPTED: The login was there without a record. Its password was read from the API and put on record.
        RESET: It was there, and got a new password.
        UPDATED: It was there with other settings than asked for, and got those asked for.
        ROTATED: The tenant's other login took over; the one before still works.
        CHECKED: The tenant was checked. ``problems`` says what is wrong with it.
        REPAIRED: Something was wrong with the tenant, and was mended.
        RETIRED: The tenant's previous login got a password that nobody has.
        DELETED: It was there, and was deleted.
        ABSENT: It was to be deleted, and was not there.
        FAILED: ``error`` says why.
    """

    CREATED = "created"
    KEPT = "kept"
    ADOPTED = "adopted"
    RESET = "reset"
    UPDATED = "updated"
    ROTATED = "rotated"
    CHECKED = "checked"
    REPAIRED = "repaired"
    RETIRED = "retired"
    DELETED = "deleted"
    ABSENT = "absent"
    FAILED = "failed"


@frozen(kw_only=True, repr=False, eq=False)  # a base alone, so that it needs neither
class Outcome:
    """What became of one name of a run.

    Attributes:
        name: The name that was given; the repr of what was given if it has no name.
        action: What became of it.
        error: Why it failed; None where it did not.
        tries: The number of requests that were sent for it.
    """

    name: str
    action: Action
    error: Exception | None
    tries: int = 0

    @property
    def ok(self) -> bool:
        """Whether it did not fail."""
        return self.error is None


@frozen(kw_only=True)
class Done(Outcome):
    """The outcome of a name that did not fail."""

    error: None = None

    @property
    def ok(self) -> Literal[True]:
        return True


@frozen(kw_only=True)
class Failed(Outcome):
    """The outcome of a name that failed.

    Attributes:
        error: Why. Its ``may_have_applied`` says whether the server may have done it anyway.
        user: Always None.
        db: Always None.
        credential: Always None.
        problems: Always empty: nothing is known of the tenant.
    """

    action: Literal[Action.FAILED] = Action.FAILED
    error: Exception
    user: ClassVar[None] = None
    db: ClassVar[None] = None
    credential: ClassVar[None] = None
    problems: ClassVar[tuple[()]] = ()

    @property
    def ok(self) -> Literal[False]:
        return False


@frozen(kw_only=True)
class UserDone(Done):
    """A user that is there now.

    Attributes:
        user: The user. Its password is known if it was CREATED or RESET, or if the API returns it.
    """

    user: User


@frozen(kw_only=True)
class DatabaseDone(Done):
    """A database that is there now.

    Attributes:
        db: The database.
    """

    db: Database


class Removed(Done):
    """A user or database that is not there any more: DELETED, or ABSENT where there was none.

    Attributes:
        user: Always None.
        db: Always None.
    """

    __slots__ = ()
    user: ClassVar[None] = None
    db: ClassVar[None] = None


UserOutcome: TypeAlias = UserDone | Failed
DatabaseOutcome: TypeAlias = DatabaseDone | Failed
RemovalOutcome: TypeAlias = Removed | Failed
PlanOutcome: TypeAlias = UserDone | Removed | Failed
