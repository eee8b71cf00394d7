"""A client begins to log in, and finishes after the login has been ended.

PostgreSQL reads the password when the client begins. So it accepts it until it ends the connection, after its timeout for
logins, whatever happened to the login in between. For MySQL see ``test_mysql_ending.py``.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from aiodbclient.tenants._grants.postgres import PostgresGrants
from psycopg import Connection, pq
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from aiodbclient.tenants._naming import Names

from .managed import PASSWORD, Managed, ended, ready
from .test_postgres_heirs import UP, owners

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


@pytest.fixture
def brief_postgres(managed: Managed) -> Iterator[None]:
    """A server that waits a second for a client that logs in, not a minute."""
    managed.api("ALTER SYSTEM SET authentication_timeout = '1s'")
    managed.api("SELECT pg_reload_conf()")
    yield
    managed.api("ALTER SYSTEM RESET authentication_timeout")
    managed.api("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("brief_postgres")
@pytest.mark.parametrize("database", ["its own", "defaultdb"])
async def test_who_began_to_log_in_before_a_login_is_ended_leaves_the_administrator_nothing(
    managed: Managed, grants: PostgresGrants, names: Names, database: str
) -> None:
    login = names.logins[0]
    where = names.whole if database == "its own" else database
    schema = "public" if database == "its own" else "pg_temp"
    with managed.open(login, names.whole) as session:
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(login)))
    with slow_login(managed.superuser, login, PASSWORD, where) as slow:
        entered = list[Connection[Any]]()

        async def late() -> None:
            session = slow.finish()
            if session is not None:
                entered.append(session)
                session.execute("SET ROLE NONE; " + UP.replace("public", schema))
            managed.delete(login)

        assert await ended(grants, names, login, PASSWORD, late) is None
        assert entered == []
    assert owners(managed, names.whole) <= {names.owner}


async def test_who_finishes_to_log_in_while_a_login_is_ended_is_ended_too(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    login = names.logins[0]
    with managed.open(login, names.whole) as session:
        session.execute(SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(Identifier(login)))
    entered = list[Connection | None]()  # they stay open, unless the server ends them
    with slow_login(managed.superuser, login, PASSWORD, names.whole) as slow:

        async def intrude() -> None:
            while managed.lets_in(login, names.whole):
                await asyncio.sleep(0.01)
            session = slow.finish()
            entered.append(session)
            with suppress(psycopg.OperationalError):  # ended already
                assert session is not None
                session.execute("SET ROLE NONE; " + UP)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(intrude())
            assert await ended(grants, names, login, PASSWORD, managed.deletes(login)) is None
    assert owners(managed, names.whole) <= {names.owner}


@pytest.mark.usefixtures("brief_postgres")
async def test_who_began_to_log_in_before_a_login_was_reset_has_no_session_when_it_is_used_again(
    managed: Managed, grants: PostgresGrants, names: Names
) -> None:
    login = names.logins[0]
    assert await grants.end_login(names, login, PASSWORD) is None
    managed.reset(login, "theirs")
    with slow_login(managed.superuser, login, "theirs", "defaultdb") as slow:
        managed.reset(login, "ours")
        assert await grants.end_sessions(names, login, "ours") is None
        assert slow.finish() is None
    await ready(grants, names, login, "ours")
