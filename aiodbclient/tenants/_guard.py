"""What tenants need of an engine. Pure."""

from __future__ import annotations

from ..engines import CAPABILITIES, SQL_ENGINES, Engine
from ..errors import UnsupportedOperationError


def guard_tenants(engine: Engine | str) -> None:
    """Refuse an engine that does not support tenants, or that is unknown."""
    if engine in SQL_ENGINES:
        return
    capabilities = CAPABILITIES.get(engine)
    if capabilities is None:
        reason = f"this version of aiodbclient does not know the engine {engine!r}"
    elif not capabilities.users:
        reason = f"{engine} clusters have no user management"
    else:
        reason = f"{engine} clusters have none, because they have no SQL: use users.provision with settings"
    raise UnsupportedOperationError(f"tenants: {reason}; nothing was created", engine=engine, operation="tenants")
