"""The outcome of each tenant of a run. Pure."""

from __future__ import annotations

from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar

from attrs import frozen

from .._bulk.outcomes import Action, Done, Failed
from ._credential import Credential
from ._problems import Problem

T_co = TypeVar("T_co", covariant=True)


@frozen(kw_only=True)
class TenantDone(Done):
    """A tenant that exists now.

    Attributes:
        credential: The stored credential to use from now on.
    """

    credential: Credential


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
        value: What it returned.
    """

    action: Literal[Action.DONE] = Action.DONE
    value: T_co


class TenantRemoved(Done):
    """The result of a removal: DELETED, ABSENT if none was stored, or KEPT if it is not suspended for so long.

    Attributes:
        credential: Always None.
    """

    __slots__ = ()
    credential: ClassVar[None] = None


TenantCheckOutcome: TypeAlias = TenantChecked | Failed
TenantRepairOutcome: TypeAlias = TenantRepaired | Failed
TenantOutcome: TypeAlias = TenantDone | Failed
TenantRemovalOutcome: TypeAlias = TenantRemoved | Failed
TenantPlanOutcome: TypeAlias = TenantDone | TenantRemoved | Failed
