"""The outcome of each tenant of a run. Pure."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from attrs import frozen

from .._bulk.outcomes import Done, Failed
from .credential import Credential


@frozen(kw_only=True)
class TenantDone(Done):
    """A tenant that is there now.

    Attributes:
        credential: The credential to use from now on, which is on record.
    """

    credential: Credential


class TenantRemoved(Done):
    """A tenant that is not there any more: DELETED, or ABSENT where none was on record.

    Attributes:
        credential: Always None.
    """

    __slots__ = ()
    credential: ClassVar[None] = None


TenantOutcome: TypeAlias = TenantDone | Failed
TenantRemovalOutcome: TypeAlias = TenantRemoved | Failed
TenantPlanOutcome: TypeAlias = TenantDone | TenantRemoved | Failed
