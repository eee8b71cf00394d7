from __future__ import annotations

from ..pacing.conftest import fleet

__all__ = ["fleet"]
