"""``PostgresStore``: credentials in a table of PostgreSQL, for the processes of any number of machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ConfigurationError, InvalidArgumentError
from .base import BaseStore
from .sealing import Key

if TYPE_CHECKING:
    from .postgres_connection import PostgresConnection


class PostgresStore(BaseStore):
    """Credentials in a table of PostgreSQL, for processes on any number of machines.

    It is an async context manager: entering it connects, and creates the table if there is none. When a method returns,
    its change is committed. It has one connection. Every method is safe to cancel: it makes its whole change or none of
    it. While the server is unreachable, methods raise StoreError. Afterwards they connect again by themselves.

    The claims of a process that dies are free when their leases expire, by the server's clock.

    Args:
        dsn: A connection string of libpq. Add ``sslmode=verify-full`` and ``sslrootcert=`` to verify the server. Its
            role needs SELECT, INSERT, UPDATE and DELETE on the table, and CREATE on its schema to create the table. The
            table and its schema must belong to this role, to the owner of the database or to a superuser: others could
            have planted them.
        table: The table's name, or ``schema.name``.
        key: Encrypts the credentials: a key of ``cryptography.fernet.Fernet.generate_key()``, or several: the first
            encrypts, all decrypt. None: everybody who can read the table can read the credentials.

    Raises:
        InvalidArgumentError: ``dsn`` or ``table`` is not a string, or ``key`` is not a key of Fernet. On entering:
            ``dsn`` is not a connection string.
        ConfigurationError: There is a key, and ``cryptography`` is not installed. On entering: it is open already, or
            psycopg is not installed.
        StoreError: On entering: the server cannot be reached or used, the table or its schema belongs to somebody else,
            or the table was written with another key.
    """

    def __init__(self, dsn: str, table: str = "aiodbclient_credentials", key: Key = None) -> None:
        if not isinstance(dsn, str) or not isinstance(table, str):
            raise InvalidArgumentError("dsn and table must be strings")  # not quoted: dsn may hold a password
        super().__init__(key)
        self._dsn = dsn
        self._table = table

    def __repr__(self) -> str:
        return f"{type(self).__name__}('********', {self._table!r})"

    def _make_connection(self) -> PostgresConnection:
        try:
            from .postgres_connection import PostgresConnection
        except ImportError:
            raise ConfigurationError("PostgresStore needs the extra: pip install 'aiodbclient[tenants]'") from None
        return PostgresConnection(self._dsn, self._table)
