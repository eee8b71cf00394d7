"""A tenant: a database, and a login that owns it and reaches nothing else, on record whatever happens."""

from .credential import Credential
from .stores import Claim, Record, Store
from .stores.postgres import PostgresStore
from .stores.sqlite import SQLiteStore

__all__ = ["Claim", "Credential", "PostgresStore", "Record", "SQLiteStore", "Store"]
