"""Copy a tenant's database to a file and from it, by the programs of its engine."""

from __future__ import annotations

from ...engines import POSTGRESQL, Engine
from .copier import Copier


def copier_of(engine: Engine | str) -> type[Copier]:
    """Return the copier of an engine."""
    if engine in POSTGRESQL:
        from .postgres import PostgresCopier  # each needs its own driver

        return PostgresCopier
    from .mysql import MySQLCopier

    return MySQLCopier
