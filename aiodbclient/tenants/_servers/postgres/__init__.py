"""``PostgresServer``: what a PostgreSQL does for a tenant, with the limited rights of a cluster's primary user."""

from .server import PostgresServer

__all__ = ["PostgresServer"]
