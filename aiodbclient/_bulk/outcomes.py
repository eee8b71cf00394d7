"""What a bulk run tells of each name. Pure.

``UserOutcome`` and ``DatabaseOutcome`` are unions of a success and ``Failed``, so that a type checker knows what a
success holds once ``outcome.error is None`` was asked (mypy also after ``if outcome.ok``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from attrs import frozen

from ..models import Database, User


class Action(StrEnum):
    """What became of a name.

    Attributes:
        CREATED: It was not there, and was made.
        KEPT: It was there as asked for, and was left as it is.
        ADOPTED: The login was there without a record. Its password was read from the API and put on record.
        RESET: It was there, and got a new password.
        UPDATED: It was there with other settings than asked for, and got these.
        ROTATED: The tenant's other login took over; the one before still works.
        RETIRED: The tenant's previous login got a password that nobody has.
        DELETED: It was there, and was deleted.
        ABSENT: It was to be deleted, and was not there.
        FAILED: ``error`` tells why.
    """

    CREATED = "created"
    KEPT = "kept"
    ADOPTED = "adopted"
    RESET = "reset"
    UPDATED = "updated"
    ROTATED = "rotated"
    RETIRED = "retired"
    DELETED = "deleted"
    ABSENT = "absent"
    FAILED = "failed"


@frozen(kw_only=True)
class Outcome:
    """What became of one name of a run.

    Attributes:
        name: The name, as it was given.
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
        error: Why. Its ``may_have_applied`` tells whether the server may have done it all the same.
        user: None.
        db: None.
        credential: None.
    """

    action: Literal[Action.FAILED] = Action.FAILED
    error: Exception
    user: None = None
    db: None = None
    credential: None = None

    @property
    def ok(self) -> Literal[False]:
        return False


@frozen(kw_only=True)
class UserDone(Done):
    """A user that is there now.

    Attributes:
        user: The user. Its password is known where it was CREATED or RESET, and else where the API tells it.
    """

    user: User


@frozen(kw_only=True)
class DatabaseDone(Done):
    """A database that is there now.

    Attributes:
        db: The database.
    """

    db: Database


@frozen(kw_only=True)
class Removed(Done):
    """A user or database that is not there any more: DELETED, or ABSENT where there was none.

    Attributes:
        user: None.
        db: None.
    """

    user: None = None
    db: None = None


UserOutcome: TypeAlias = UserDone | Failed
DatabaseOutcome: TypeAlias = DatabaseDone | Failed
RemovalOutcome: TypeAlias = Removed | Failed
PlanOutcome: TypeAlias = UserDone | Removed | Failed
