"""The outcome of each name of a bulk run. Pure.

``UserOutcome`` and the others are unions of a success and ``Failed``. ``if outcome.error is None`` narrows the union to
the success for type checkers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from attrs import frozen

from ..models import Database, User

_SHOWN = 5  # names of failures in the message of BulkError


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
        requests: How many requests were sent for it.
    """

    name: str
    action: StrEnum
    error: Exception | None
    requests: int = 0


@frozen(kw_only=True)
class Done(Outcome):
    """The outcome of a name that succeeded."""

    error: None = None


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


OutcomeT = TypeVar("OutcomeT", bound=Outcome)


class Outcomes(list[OutcomeT]):
    """The outcomes of a run, one for each name, in the order of the names."""

    @property
    def failed(self) -> list[Failed]:
        """The outcomes of the names that failed."""
        return [outcome for outcome in self if isinstance(outcome, Failed)]

    def raise_for_errors(self) -> None:
        """Raise BulkError if a name failed."""
        if failed := self.failed:
            names = ", ".join(repr(outcome.name) for outcome in failed[:_SHOWN]) + ", ..." * (len(failed) > _SHOWN)
            message = f"{len(failed)} of {len(self)} names failed: {names}"
            error = BulkError(message, [outcome.error for outcome in failed])
            error.outcomes = self
            raise error


class BulkError(ExceptionGroup[Exception]):
    """Some names of a run failed. Its ``exceptions`` are their errors.

    Attributes:
        outcomes: The outcomes of all names, also of those that succeeded.
    """

    outcomes: Outcomes[Any]


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
