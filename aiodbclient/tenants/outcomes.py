"""What a run over tenants tells of each. Pure."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from .._bulk.outcomes import Done, Failed
from .credential import Credential


@frozen(kw_only=True)
class TenantDone(Done):
    """A tenant that did not fail.

    Attributes:
        credential: The one to use from now on, which is on record; None where the tenant was removed.
    """

    credential: Credential | None = None


TenantOutcome: TypeAlias = TenantDone | Failed
