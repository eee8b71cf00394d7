"""Tenants of a cluster: each has a database, a login with all rights in it alone, and a record of both.

``Tenants`` creates, rotates and removes them. A store (``SQLiteStore``, ``PostgresStore``, or one of your own that fits
``Store``) keeps the records.
"""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from ._credential import Credential
    from ._events import TenantEvent
    from ._naming import Role
    from ._outcomes import (
        Problem,
        TenantChecked,
        TenantCheckOutcome,
        TenantDone,
        TenantDumped,
        TenantDumpOutcome,
        TenantMoved,
        TenantMoveOutcome,
        TenantOutcome,
        TenantPlanOutcome,
        TenantRemovalOutcome,
        TenantRemoved,
        TenantRepaired,
        TenantRepairOutcome,
        TenantResult,
    )
    from ._pools import TenantPools
    from ._rooms import Room
    from ._stores import Claim, Record, Store
    from ._stores.moving import copy_records, rewrite_records
    from ._stores.postgres import PostgresStore
    from ._stores.sealing import Seal
    from ._stores.sqlite import SQLiteStore
    from ._tenants import Tenants
    from ._usage import Usage
    from ._verbs.plan import Plan

__all__ = [
    "Claim",
    "Credential",
    "Plan",
    "PostgresStore",
    "Problem",
    "Record",
    "Role",
    "Room",
    "SQLiteStore",
    "Seal",
    "Store",
    "TenantCheckOutcome",
    "TenantChecked",
    "TenantDone",
    "TenantDumpOutcome",
    "TenantDumped",
    "TenantEvent",
    "TenantMoveOutcome",
    "TenantMoved",
    "TenantOutcome",
    "TenantPlanOutcome",
    "TenantPools",
    "TenantRemovalOutcome",
    "TenantRemoved",
    "TenantRepairOutcome",
    "TenantRepaired",
    "TenantResult",
    "Tenants",
    "Usage",
    "copy_records",
    "rewrite_records",
]

# As in ``aiodbclient`` itself: to list a store needs neither aiohttp nor a verb.
_HOMES = {
    "._credential": "Credential",
    "._events": "TenantEvent",
    "._naming": "Role",
    "._outcomes": "Problem TenantCheckOutcome TenantChecked TenantDone TenantDumpOutcome TenantDumped "
    "TenantMoveOutcome TenantMoved TenantOutcome TenantPlanOutcome TenantRemovalOutcome TenantRemoved "
    "TenantRepairOutcome TenantRepaired TenantResult",
    "._pools": "TenantPools",
    "._rooms": "Room",
    "._stores": "Claim Record Store",
    "._stores.moving": "copy_records rewrite_records",
    "._stores.postgres": "PostgresStore",
    "._stores.sealing": "Seal",
    "._stores.sqlite": "SQLiteStore",
    "._tenants": "Tenants",
    "._usage": "Usage",
    "._verbs.plan": "Plan",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOMES)
