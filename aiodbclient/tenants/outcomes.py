"""The outcome of each tenant of a run. Pure."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from .._bulk.outcomes import Done, Failed
from .credential import Credential


@frozen(kw_only=True)
class TenantDone(Done):
    """The outcome of a tenant that did not fail.

    Attributes:
        credential: The credential to use from now on, which is on record; None if the tenant was removed.
    """

    credential: Credential | None = None


TenantOutcome: TypeAlias = TenantDone | Failed
