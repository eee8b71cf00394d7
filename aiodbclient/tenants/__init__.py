"""Tenants of a cluster: each has a database, a login that owns it and reaches no other, and a record of both.

``Tenants`` makes, rotates and removes them. A store (``SQLiteStore``, ``PostgresStore``, or one of your own that fits
``Store``) keeps the records.
"""

from .credential import Credential
from .outcomes import TenantDone, TenantOutcome, TenantPlanOutcome, TenantRemovalOutcome, TenantRemoved
from .plans import Plan
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
    "Record",
    "SQLiteStore",
    "Seal",
    "Store",
    "TenantDone",
    "TenantOutcome",
    "TenantPlanOutcome",
    "TenantRemovalOutcome",
    "TenantRemoved",
    "Tenants",
]
