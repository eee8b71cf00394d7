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
        ADOPTED: The tenant's database existed without a record, and is on record now, with a new login.
        RESET: It existed, and got a new password.
        UPDATED: It existed, and the requested settings were sent.
        ROTATED: The tenant's other login took over. The previous one still works.
        CHECKED: The tenant was checked. ``problems`` lists what is wrong.
        REPAIRED: Something was wrong with the tenant, and was repaired.
        REVOKED: The tenant's previous credential was ended.
        SUSPENDED: All logins of the tenant were ended. Its database stays.
        RESUMED: The suspended tenant got its login back, with a new password.
        MOVED: The tenant is on another cluster now.
        DONE: The tenant was dumped, or the work of ``each`` on the tenant returned.
        DELETED: It existed, and was deleted.
        ABSENT: It was to be deleted, but did not exist.
        FAILED: It failed. ``error`` says why.
    """

    CREATED = "created"
    KEPT = "kept"
    ADOPTED = "adopted"
    RESET = "reset"
    UPDATED = "updated"
    ROTATED = "rotated"
    CHECKED = "checked"
    REPAIRED = "repaired"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    MOVED = "moved"
    DONE = "done"
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
    action: Action
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
        cluster: The id of the tenant's cluster, if it is known: in runs of ``Tenants.each``.
        user: Always None.
        db: Always None.
        credential: Always None.
        problems: Always empty, because the tenant could not be checked.
        value: Always None.
        frozen: Always None.
        file: Always None.
    """

    action: Literal[Action.FAILED] = Action.FAILED
    error: Exception
    cluster: str | None = None
    # What the outcomes of successes have, so that ``outcome.user`` and the others need no check of the error before.
    user: ClassVar[None] = None
    db: ClassVar[None] = None
    credential: ClassVar[None] = None
    problems: ClassVar[tuple[()]] = ()
    value: ClassVar[None] = None
    frozen: ClassVar[None] = None
    file: ClassVar[None] = None

    @property
    def ok(self) -> Literal[False]:
        return False


@frozen(kw_only=True)
class UserDone(Done):
    """A user that exists now.

    Attributes:
        user: The user. Its password is known if it was CREATED or RESET, or if the API returns it.
    """

    user: User


@frozen(kw_only=True)
class DatabaseDone(Done):
    """A database that exists now.

    Attributes:
        db: The database.
    """

    db: Database


class Removed(Done):
    """A user or database that does not exist any more: DELETED, or ABSENT if it did not exist before.

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
