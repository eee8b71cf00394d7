from __future__ import annotations

from ..pacing.conftest import fleet, postgres_url, valkey_url

__all__ = ["fleet", "postgres_url", "valkey_url"]
