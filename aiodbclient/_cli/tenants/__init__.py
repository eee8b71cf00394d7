"""The commands ``tenants`` and ``store``."""
