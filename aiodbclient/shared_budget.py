"""A rate budget that several processes share through Valkey or Redis. Needs the extra ``valkey``."""

from ._pacing.shared.budget import SharedRateBudget, token_key

__all__ = ["SharedRateBudget", "token_key"]
