"""The rate limiter of a token: ``DatabaseClient(rate_limiter=RateLimiter(share=1/4))``."""

from ._headers import RateLimitStatus
from ._pacing.limiter import RateLimiter, Snapshot
from ._pacing.windows import DOCUMENTED, Window

__all__ = ["DOCUMENTED", "RateLimitStatus", "RateLimiter", "Snapshot", "Window"]
