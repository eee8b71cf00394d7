"""What a hostile tenant tries against the verbs of others on MySQL. See README.md."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
import pytest
from pymysql._auth import scramble_caching_sha2, scramble_native_password
from pymysql.constants import COMMAND
from pymysql.cursors import Cursor

from aiodbclient.tenants import Credential
from aiodbclient.tenants._servers.server import Work
from aiodbclient.tenants.errors import GrantError

from ..mysql import run
from .mysql_servers import DENIED, Server, refused, server, suppressed, until

__all__ = ["server"]


def connect(credential: Credential) -> pymysql.Connection[Cursor]:
    return pymysql.connect(
        host=credential.host,
        port=credential.port,
        user=credential.username,
        password=str.__str__(credential.password or ""),
        database=credential.database,
        autocommit=True,
        ssl=credential.ssl_context(),
    )


@contextmanager
def changing(session: Any, user: str) -> Generator[bytes]:
    """A session that begins to log in as ``user`` and does not go on. Yields what the server waits for."""
    run(session, "SET SESSION net_read_timeout = 100000")
    wrong = b"\x14" + b"A" * 20 + b"\0" + struct.pack("<H", 45) + b"mysql_clear_password\0\0"
    session._execute_command(COMMAND.COM_CHANGE_USER, user.encode() + b"\0" + wrong)
    asked = session._read_packet().get_all_data()
    assert asked[0] == 0xFE
    try:
        yield asked[1:]
    finally:
        session._force_close()


def enter(session: Any, asked: bytes, password: str) -> None:
    """Go on, with a password."""
    plugin, _, salt = asked.partition(b"\0")
    secret = str.__str__(password).encode()
    if plugin == b"mysql_native_password":
        session.write_packet(scramble_native_password(secret, salt[:20]))
    else:
        session.write_packet(scramble_caching_sha2(secret, salt[:20]))
        if session._read_packet().get_all_data() == b"\x01\x04":  # not in the server's cache: it asks for the password
            session.write_packet(secret + b"\0")
    session._read_packet()


@pytest.mark.parametrize("is_own", [False, True], ids=["neighbour", "own"])
async def test_session_that_begins_to_become_a_login_neither_stops_its_end_nor_enters(
    server: Server, is_own: bool
) -> None:
    """On MySQL nobody sees the list of processes meanwhile, and the server has read the password of before."""
    tenant, login, leaked = await server.make()
    _, neighbour, password = await server.make()
    session = server.connect(login, leaked) if is_own else server.connect(neighbour, password)
    with changing(session, login) as asked:
        await tenant.steps.end_logins([login])
        with pytest.raises(pymysql.MySQLError):
            enter(session, asked, leaked)
    await until(lambda: not server.sessions(login))  # one that was killed or closed is listed until its thread ends
    with server.as_root() as root:  # the helper of the neighbour's is gone
        root.execute("SELECT Host FROM mysql.user WHERE User = %s", (neighbour,))
        assert root.fetchall() == (("%",),)


async def test_change_user_enters_live_login(server: Server) -> None:
    """The control of the test above."""
    _, login, password = await server.make()
    _, neighbour, secret = await server.make()
    session = server.connect(neighbour, secret)
    with changing(session, login) as asked:
        enter(session, asked, password)
        assert run(session, "SELECT CURRENT_USER()") == [(f"{login}@%",)]


async def test_usage_is_read_while_a_session_changes_its_user(server: Server) -> None:
    """On MySQL, SHOW PROCESSLIST waits for it."""
    tenant, login, password = await server.make()
    await until(lambda: not server.sessions(login))  # the one that ``make`` closed still counts
    own = server.connect(login, password, tenant.database)
    session = server.connect(login, password)
    with changing(session, login):
        async with asyncio.timeout(60):
            found = await server.sql.usage()
    assert found[tenant.database][1] == 2
    own.close()


async def test_a_tenant_named_like_another_in_capitals_does_not_stop_its_dump(server: Server) -> None:
    tenant, login, password = await server.make(name="likeness")
    capitals, other, secret = await server.make(name="LIKENESS")
    theirs = server.connect(other, secret, capitals.database)
    run(theirs, "CREATE PROCEDURE theirs() SELECT 1")
    run(theirs, "CREATE EVENT theirs ON SCHEDULE EVERY 1 YEAR DO SELECT 1")
    run(theirs, "CREATE VIEW theirs AS SELECT 1 AS a")
    own = server.connect(login, password, tenant.database)
    run(own, "CREATE PROCEDURE mine() SELECT 1")
    async with server.sql.sessions.shared():
        programs, events = await server.sql.programs(tenant.names)
    assert "mine" in programs
    assert "theirs" not in programs + events
    for each in (own, theirs):
        each.close()


async def test_a_prepared_transaction_locks_what_its_triggers_name_until_it_is_rolled_back(server: Server) -> None:
    """Also the table of the accounts. No right on it is needed."""
    hostile, login, password = await server.make()
    tenant, *_ = await server.make()
    own = server.connect(login, password, hostile.database)
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    run(own, "CREATE TABLE mine (a INT PRIMARY KEY)")
    body = "BEGIN IF new.a = 1 THEN UPDATE mysql.user SET User = User; END IF; END"
    run(own, f"CREATE TRIGGER tr BEFORE INSERT ON mine FOR EACH ROW {body}")
    for each in ("XA START 'z'", "INSERT INTO mine VALUES (2)", "XA END 'z'", "XA PREPARE 'z'"):
        run(own, each)
    own.close()
    try:
        with pytest.raises(GrantError, match="Lock wait timeout"):
            await tenant.repair()
    finally:
        with server.as_doadmin() as administrator, suppress(pymysql.MySQLError):
            administrator.execute("XA ROLLBACK 'z'")  # needs no right, but its name
    await tenant.repair()


async def test_login_that_locks_all_accounts_is_ended_with_its_password(server: Server) -> None:
    """Without it, no statement on an account runs until its session ends, and the error names it."""
    tenant, login, password = await server.make()
    own = server.connect(login, password, tenant.database)
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    body = "BEGIN IF a = 1 THEN UPDATE mysql.user SET User = User; END IF; RETURN a; END"
    run(own, f"CREATE FUNCTION f(a INT) RETURNS INT {body}")
    run(own, "BEGIN")
    run(own, "SELECT f(0)")
    with pytest.raises(GrantError, match=f"(?s)Lock wait timeout.*hold locks: .*'{login}'"):
        await tenant.steps.end_logins([login])
    assert run(own, "SELECT 1") == [(1,)]

    await server.sql.steps(Work(tenant.names, password_of={login: password}.get)).end_logins([login])

    assert refused(own, "SELECT 1")
    assert server.sessions(login) == []
    with pytest.raises(pymysql.MySQLError, match="denied"):
        server.connect(login, password)


async def test_prepared_statements_of_a_neighbour_stop_those_of_others_and_no_verb(server: Server) -> None:
    """The server has a limit for all (16,382), and no login has one."""
    hostile, login, password = await server.make()
    tenant, honest, secret = await server.make()
    own = server.connect(login, password, hostile.database)
    theirs = server.connect(honest, secret, tenant.database)
    with server.as_root() as root:
        root.execute("SET GLOBAL max_prepared_stmt_count = 20")
        try:
            run(theirs, "PREPARE s FROM 'SELECT 1'")  # the control
            with pytest.raises(pymysql.MySQLError, match="max_prepared_stmt_count"):
                [run(own, f"PREPARE s{number} FROM 'SELECT 1'") for number in range(30)]
            assert refused(theirs, "PREPARE more FROM 'SELECT 1'") == 1461

            await server.add(tenant)
            await tenant.repair()
            await hostile.end(login)

            run(theirs, "PREPARE more FROM 'SELECT 1'")
        finally:
            root.execute("SET GLOBAL max_prepared_stmt_count = DEFAULT")
    for each in (own, theirs):
        suppressed(each.close)


async def test_trigger_on_locked_table_stops_no_removal(server: Server) -> None:
    """The removal locks no table of the tenant, so it does not lock what a trigger names."""
    tenant, login, password = await server.make()
    other, neighbour, secret = await server.make()
    theirs = server.connect(neighbour, secret, other.database)
    run(theirs, "CREATE TABLE held (a INT PRIMARY KEY)")
    own = server.connect(login, password, tenant.database)
    with server.as_root() as root:
        root.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    run(own, "CREATE TABLE mine (a INT PRIMARY KEY)")
    run(own, f"CREATE TRIGGER tr BEFORE INSERT ON mine FOR EACH ROW UPDATE `{other.database}`.held SET a = a")
    own.close()
    run(theirs, "LOCK TABLES held WRITE")
    await tenant.steps.end_logins([login])
    await tenant.steps.drop_database()
    theirs.close()
    assert not (await server.sql.find(tenant.names)).database


async def test_a_merge_table_outlives_the_rights_with_which_it_was_made(server: Server) -> None:
    """Not even ``repair``, which revokes the rights of others in a schema, ends that."""
    tenant, login, password = await server.make()
    guests, guest, secret = await server.make()
    with server.as_root() as root:
        root.execute(f"CREATE TABLE `{tenant.database}`.mine (a INT PRIMARY KEY) ENGINE=MyISAM")
        root.execute(f"GRANT SELECT, UPDATE, DELETE ON `{tenant.database}`.mine TO %s@'%%'", (guest,))
    make = f"CREATE TABLE {{}} (a INT PRIMARY KEY) ENGINE=MERGE UNION=(`{tenant.database}`.mine)"
    theirs = server.connect(guest, secret, guests.database)
    run(theirs, make.format("made_before"))
    await tenant.repair()
    own = server.connect(login, password, tenant.database)
    run(own, "INSERT INTO mine VALUES (7)")
    assert refused(theirs, f"SELECT a FROM `{tenant.database}`.mine") in DENIED
    assert refused(theirs, make.format("after")) in DENIED
    assert run(theirs, "SELECT a FROM made_before") == [(7,)]
    own.close()
    theirs.close()
