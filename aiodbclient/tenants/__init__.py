"""Tenants of a cluster: each has a database, a login that owns it and reaches no other, and a record of both.

``Tenants`` creates, rotates and removes them. A store (``SQLiteStore``, ``PostgresStore``, or one of your own that fits
``Store``) keeps the records.
"""

from .credential import Credential
from .events import TenantEvent
from .outcomes import (
    TenantChecked,
    TenantCheckOutcome,
    TenantDone,
    TenantOutcome,
    TenantPlanOutcome,
    TenantRemovalOutcome,
    TenantRemoved,
    TenantRepaired,
    TenantRepairOutcome,
)
from .plans import Plan
from .pools import TenantPools
from .problems import Problem
from .roles import Role
from .stores import Claim, Record, Store
from .stores.postgres import PostgresStore
from .stores.sealing import Seal
from .stores.sqlite import SQLiteStore
from .tenants import Tenants

__all__ = [
    "Claim",
    "Credential",
    "Plan",
    "PostgresStore",
    "Problem",
    "Record",
    "Role",
    "SQLiteStore",
    "Seal",
    "Store",
    "TenantCheckOutcome",
    "TenantChecked",
    "TenantDone",
    "TenantEvent",
    "TenantOutcome",
    "TenantPlanOutcome",
    "TenantPools",
    "TenantRemovalOutcome",
    "TenantRemoved",
    "TenantRepairOutcome",
    "TenantRepaired",
    "Tenants",
]
