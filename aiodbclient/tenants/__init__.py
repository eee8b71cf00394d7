"""A tenant: a database, and a login that owns it and reaches nothing else, on record whatever happens."""

from .credential import Credential

__all__ = ["Credential"]
