"""A client that begins to log in to PostgreSQL, and finishes later.

The server reads the password's verifier when the client begins. So it accepts that password until it ends the
connection, whatever happened to the login in between.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection, pq
from psycopg.conninfo import make_conninfo

_DONE = {pq.PollingStatus.OK, pq.PollingStatus.FAILED}


class SlowLogin:
    """A login that began."""

    def __init__(self, dsn: str, login: str, password: str, database: str | None) -> None:
        options = {"sslmode": "disable", "gssencmode": "disable"}
        conninfo = make_conninfo(dsn, user=login, password=password, dbname=database, **options)
        self._connection = pq.PGconn.connect_start(conninfo.encode())
        while self._connection.connect_poll() != pq.PollingStatus.READING:
            select.select([], [self._connection.socket], [])
        select.select([self._connection.socket], [], [])  # the server asks for the password's proof

    def finish(self) -> Connection | None:
        """Log in; None if the server refuses it by now."""
        try:
            while (status := self._connection.connect_poll()) not in _DONE:
                select.select([self._connection.socket], [], [])
        except psycopg.OperationalError:
            return None
        if status == pq.PollingStatus.FAILED:
            return None
        session = Connection(self._connection)
        session.autocommit = True
        return session

    def close(self) -> None:
        self._connection.finish()


@contextmanager
def slow_login(dsn: str, login: str, password: str, database: str | None) -> Iterator[SlowLogin]:
    slow = SlowLogin(dsn, login, password, database)
    try:
        yield slow
    finally:
        slow.close()
