"""What tenants need of an engine, and the names that only their logins have. Pure."""

from __future__ import annotations

import re

from ..engines import CAPABILITIES, SQL_ENGINES, Engine
from ..errors import UnsupportedOperationError

# How the names of a tenant's logins and roles end. See ``tenants/_naming.py``.
_DERIVED = re.compile(r"_[0-9a-f]{12}_([0-9a-f]{8}|owner|writer|reader)\Z")


def is_derived(name: str) -> bool:
    """Whether a name has the form of a tenant's logins and roles."""
    return _DERIVED.search(name) is not None


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
