"""Tenants of a cluster: each has a database, a login with all rights in it alone, and a record of both.

``Tenants`` creates, rotates and removes them. A store (``SQLiteStore``, ``PostgresStore``, or one of your own that fits
``Store``) keeps the records.
"""

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
