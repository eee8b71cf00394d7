"""A tenant: a database, and a login that owns it and reaches nothing else, on record whatever happens."""

from .credential import Credential
from .stores import Claim, Record, Store
from .stores.sqlite import SQLiteStore

__all__ = ["Claim", "Credential", "Record", "SQLiteStore", "Store"]
