"""A rate budget that several processes share: through PostgreSQL (extra ``tenants``), Valkey or Redis (``valkey``)."""

from ._pacing.shared import SharedRateBudget, token_key

__all__ = ["SharedRateBudget", "token_key"]
