"""What MySQL does for tenants, as the administrator. MariaDB serves for development: see ``accounts``."""

from .server import MySQLServer

__all__ = ["MySQLServer"]
