"""A tenant: a database, and a login that owns it and reaches nothing else, on record whatever happens."""

from .credential import Credential
from .outcomes import TenantDone, TenantOutcome
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
    "Tenants",
]
