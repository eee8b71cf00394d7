"""The outcome of each name of a bulk run. Pure.

``UserOutcome`` and the others are unions of a success and ``Failed``. ``if outcome.error is None`` narrows the union to
the success for type checkers; for mypy ``if outcome.ok`` does too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias

from attrs import frozen

from ..models import Database, User


class Action(StrEnum):
    """The result for one name.

    Attributes:
        CREATED: It did not exist, and was created.
        KEPT: It existed as requested, and was not changed.
        RESET: It existed, and got a new password.
        UPDATED: It existed, and the requested settings were sent.
        DELETED: It existed, and was deleted.
        ABSENT: It was to be deleted, but did not exist.
        FAILED: It failed. ``error`` says why.
    """

    CREATED = "created"
    KEPT = "kept"
    RESET = "reset"
    UPDATED = "updated"
    DELETED = "deleted"
    ABSENT = "absent"
    FAILED = "failed"


@frozen(kw_only=True, repr=False, eq=False)  # a base class needs no repr and no eq
class Outcome:
    """The outcome of one name of a run.

    Attributes:
        name: The given name, or the repr of the given value if it has no name.
        action: The result.
        error: Why it failed, or None.
        tries: How many requests were sent for it.
    """

    name: str
    action: StrEnum
    error: Exception | None
    tries: int = 0

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


@frozen(kw_only=True)
class Done(Outcome):
    """The outcome of a name that succeeded."""

    error: None = None

    @property
    def ok(self) -> Literal[True]:
        return True


@frozen(kw_only=True)
class Failed(Outcome):
    """The outcome of a name that failed.

    Attributes:
        error: Why it failed. Its ``may_have_applied`` says whether the server may have done the work anyway.
        user: Always None.
        db: Always None.
    """

    action: Literal[Action.FAILED] = Action.FAILED
    error: Exception
    # What the outcomes of successes have, so that ``outcome.user`` and the others need no check of the error before.
    user: ClassVar[None] = None
    db: ClassVar[None] = None

    @property
    def ok(self) -> Literal[False]:
        return False


@frozen(kw_only=True)
class UserDone(Done):
    """A user that exists now.

    Attributes:
        user: The user. Its password is known if it was CREATED or RESET, or if the API returns it.
    """

    action: Action
    user: User


@frozen(kw_only=True)
class DatabaseDone(Done):
    """A database that exists now.

    Attributes:
        db: The database.
    """

    action: Action
    db: Database


class Removed(Done):
    """A user or database that does not exist any more: DELETED, or ABSENT if it did not exist before.

    Attributes:
        user: Always None.
        db: Always None.
    """

    __slots__ = ()
    action: Action
    user: ClassVar[None] = None
    db: ClassVar[None] = None


UserOutcome: TypeAlias = UserDone | Failed
DatabaseOutcome: TypeAlias = DatabaseDone | Failed
RemovalOutcome: TypeAlias = Removed | Failed
