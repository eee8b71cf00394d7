from __future__ import annotations

from .servers import mysql, postgresql

__all__ = ["mysql", "postgresql"]
