"""A rate budget that several processes share through Valkey or Redis. Needs the extra ``valkey``."""

from ._pacing.shared.budget import SharedRateBudget, account_key

__all__ = ["SharedRateBudget", "account_key"]
