"""The outcome of each tenant of a run. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from attrs import frozen

from .._bulk.outcomes import Action, Done, Failed
from .credential import Credential
from .problems import Problem


@frozen(kw_only=True)
class TenantDone(Done):
    """A tenant that is there now.

    Attributes:
        credential: The credential to use from now on, which is on record.
    """

    credential: Credential


@frozen(kw_only=True)
class TenantRepaired(TenantDone):
    """A tenant that is in order now.

    Attributes:
        problems: What was wrong with it, and was mended.
    """

    problems: tuple[Problem, ...] = ()


@frozen(kw_only=True)
class TenantChecked(Done):
    """What a check found.

    Attributes:
        credential: The credential on record; None if there is none to use.
        problems: What is wrong with the tenant; empty if all is well.
    """

    action: Literal[Action.CHECKED] = Action.CHECKED
    credential: Credential | None
    problems: tuple[Problem, ...] = ()


class TenantRemoved(Done):
    """A tenant that is not there any more: DELETED, or ABSENT where none was on record.

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
