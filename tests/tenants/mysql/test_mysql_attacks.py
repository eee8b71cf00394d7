"""What a hostile tenant tries against others on MySQL, and a schema that is shut or dropped. See README.md."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pymysql
import pytest
from pymysql._auth import scramble_caching_sha2, scramble_native_password
from pymysql.constants import COMMAND

from aiodbclient.tenants._servers import BaseTenant, ServerState

from ...mysql import run
from ...waiting import until
from ..mysql_servers import DENIED, Server, refused, server
from ..threads import repeating

__all__ = ["server"]


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
async def test_session_that_changes_user_neither_delays_nor_enters(server: Server, is_own: bool) -> None:
    """On MySQL nobody sees the list of processes meanwhile, and the server has read the password of before."""
    tenant, login, leaked = await server.make()
    _, neighbour, password = await server.make()
    session = server.connect(login, leaked) if is_own else server.connect(neighbour, password)
    with changing(session, login) as asked:
        await tenant.steps.end_logins([login])
        with pytest.raises(pymysql.MySQLError):
            enter(session, asked, leaked)
    await until(lambda: not server.sessions(login))  # one that was killed or closed is listed until its thread ends
    # The helper of the neighbour's is gone.
    assert server.as_root("SELECT Host FROM mysql.user WHERE User = %s", neighbour) == [("%",)]


async def test_change_user_enters_live_login(server: Server) -> None:
    """The control of the test above."""
    _, login, password = await server.make()
    _, neighbour, secret = await server.make()
    session = server.connect(neighbour, secret)
    with changing(session, login) as asked:
        enter(session, asked, password)
        assert run(session, "SELECT CURRENT_USER()") == [(f"{login}@%",)]


async def test_sessions_that_change_user_for_ever_stop_no_end(server: Server) -> None:
    """As soon as one is killed, another one begins, from another host. None began before the login was locked."""
    tenant, login, _ = await server.make()
    _, neighbour, password = await server.make()
    rounds = [0] * 8

    def stall(number: int) -> None:
        with suppress(pymysql.MySQLError, AssertionError, OSError):
            session: Any = server.connect(neighbour, password, address="127.0.0.2")
            with changing(session, login):
                rounds[number] += 1
                session._sock.settimeout(1)
                session._sock.recv(1)  # until it is killed

    with repeating(*(partial(stall, number) for number in range(len(rounds)))):
        await until(lambda: all(rounds))

        await asyncio.wait_for(tenant.steps.end_logins([login]), 20)
        await tenant.steps.lock_out()

        before = [*rounds]
        await until(lambda: all(now > then for now, then in zip(rounds, before, strict=True)))  # they went on
    assert server.sessions(login) == []


async def test_usage_while_session_changes_user(server: Server) -> None:
    """On MySQL, SHOW PROCESSLIST waits for it."""
    tenant, login, password = await server.make()
    await until(lambda: not server.sessions(login))  # the one that ``make`` closed still counts
    server.connect(login, password, tenant.database)
    with changing(server.connect(login, password), login):
        async with asyncio.timeout(60):
            found = await server.sql.usage()
    assert found[tenant.database][1] == 2


async def test_prepared_statements_of_a_neighbour_stop_no_operation(server: Server) -> None:
    """They stop those of others: the server has a limit for all (16,382), and no login has one."""
    hostile, login, _, own = await server.enter()
    tenant, *_, theirs = await server.enter()
    server.as_root("SET GLOBAL max_prepared_stmt_count = 20")
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
        server.as_root("SET GLOBAL max_prepared_stmt_count = DEFAULT")


async def test_foreign_key_of_another_stops_no_removal(server: Server) -> None:
    """It outlives the right that it was made with."""
    tenant, *_, own = await server.enter("CREATE TABLE mine (a INT PRIMARY KEY)")
    _, guest, _, theirs = await server.enter()
    server.as_root(f"GRANT REFERENCES ON `{tenant.database}`.mine TO %s@'%%'", guest)
    run(theirs, f"CREATE TABLE refers (a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES `{tenant.database}`.mine (a))")
    await tenant.repair()
    assert refused(own, "DROP TABLE mine") == 3730  # the control

    await tenant.remove()

    assert not (await server.sql.inspect(tenant.names)).database
    assert run(theirs, "SELECT a FROM refers") == []


async def test_merge_table_outlives_rights_it_was_made_with(server: Server) -> None:
    """Not even ``repair``, which revokes the rights of others in a schema, ends that."""
    tenant, *_, own = await server.enter()
    _, guest, _, theirs = await server.enter()
    server.as_root(f"CREATE TABLE `{tenant.database}`.mine (a INT PRIMARY KEY) ENGINE=MyISAM")
    server.as_root(f"GRANT SELECT, UPDATE, DELETE ON `{tenant.database}`.mine TO %s@'%%'", guest)
    make = f"CREATE TABLE {{}} (a INT PRIMARY KEY) ENGINE=MERGE UNION=(`{tenant.database}`.mine)"
    run(theirs, make.format("made_before"))
    await tenant.repair()
    run(own, "INSERT INTO mine VALUES (7)")
    assert refused(theirs, f"SELECT a FROM `{tenant.database}`.mine") in DENIED
    assert refused(theirs, make.format("after")) in DENIED
    assert run(theirs, "SELECT a FROM made_before") == [(7,)]


async def test_names_of_tables_are_listed_to_everybody(server: Server) -> None:
    await server.enter("CREATE TABLE seen (a INT PRIMARY KEY)", name="listed")
    *_, theirs = await server.enter()
    listed = "SELECT TABLESPACE_NAME FROM information_schema.TABLESPACES_EXTENSIONS"
    assert ("listed/seen",) in run(theirs, listed)


TABLE = "CREATE TABLE t (a INT PRIMARY KEY)"


@pytest.mark.parametrize("step", ["lock_out", "repair", "adopt"])
async def test_neighbour_whose_rights_are_revoked_is_out(server: Server, step: str) -> None:
    """MySQL checks rights on a schema only when a session enters it. The tenant's own go on, unless it is locked."""
    tenant, *_, own = await server.enter(TABLE)
    _, neighbour, secret, elsewhere = await server.enter()
    server.grant("ALL", tenant.names, neighbour)
    inside = server.connect(neighbour, secret, tenant.database)
    holds = server.connect(neighbour, secret)
    run(inside, "INSERT INTO t VALUES (1)")
    run(holds, "BEGIN")
    run(holds, f"INSERT INTO `{tenant.database}`.t VALUES (2)")

    on = BaseTenant(tenant.names)
    if step == "repair":
        await server.sql.steps(on).repair(tenant.on_record)
    elif step == "adopt":
        await server.sql.steps(on).adopt()
    else:
        await tenant.steps.end_logins(tenant.on_record)
        await server.sql.steps(on).lock_out()

    assert on.terminated == {neighbour}
    assert refused(inside, "INSERT INTO t VALUES (3)")
    assert refused(holds, "COMMIT")
    assert run(elsewhere, "SELECT 1") == [(1,)]
    assert refused(elsewhere, f"SELECT * FROM `{tenant.database}`.t") in DENIED
    assert server.as_root(f"SELECT a FROM `{tenant.database}`.t") == [(1,)]
    if step == "lock_out":
        assert refused(own, "SELECT 1")
    else:
        assert run(own, "SELECT a FROM t") == [(1,)]


# How a neighbour was let in, what took that from it while its session was open, and whom ``check`` names.
WAYS = {
    "a role of a role": (
        "GRANT ALL ON {schema} TO {outer}; GRANT {outer} TO {inner}; GRANT {inner} TO {to}",
        "",
        "outer",
    ),
    "the login as a role": ("GRANT {login} TO {to}", "", "to"),
    "rights that were revoked": ("GRANT ALL ON {schema} TO {to}", "REVOKE ALL ON {schema} FROM {to}", ""),
}


@pytest.mark.parametrize("way", WAYS)
async def test_neighbour_that_was_let_in_is_out(server: Server, way: str) -> None:
    """MySQL keeps the rights of a session. One that may read every schema goes on, also if it may by a role."""
    tenant, login, _, own = await server.enter(TABLE)
    _, neighbour, secret = await server.make()
    _, reader, password = await server.make()
    names = {"login": login, "to": neighbour, "outer": f"o{neighbour[-8:]}", "inner": f"i{neighbour[-8:]}"}
    schema = f"`{server.in_grant(tenant.names)}`.*"

    def as_root(statements: str) -> None:
        for each in filter(None, statements.split("; ")):
            server.as_root(each.format(schema=schema, **names))

    grants, revoke, named = WAYS[way]
    as_root(
        f"CREATE ROLE {{outer}}, {{inner}}, r{reader}; GRANT SELECT ON *.* TO r{reader}; GRANT r{reader} TO {reader}"
    )
    as_root(grants)
    inside, reads = server.connect(neighbour, secret), server.connect(reader, password)
    for session in (inside, reads):
        for each in ("SET ROLE ALL", f"USE `{tenant.database}`"):
            run(session, each)
    as_root(revoke)
    run(inside, "INSERT INTO t VALUES (1)")  # the control
    assert {each.detail for each in await tenant.problems()} == ({names[named]} if named else set())

    await tenant.repair()

    assert refused(inside, "INSERT INTO t VALUES (2)")
    late = server.connect(neighbour, secret)
    run(late, "SET ROLE ALL")
    assert refused(late, f"SELECT a FROM `{tenant.database}`.t") in DENIED
    for session in (own, reads):
        assert run(session, "SELECT a FROM t") == [(1,)]
    assert await tenant.problems() == frozenset()
    as_root(f"DROP ROLE {{outer}}, {{inner}}, r{reader}")


@pytest.mark.parametrize("step", ["repair", "lock_out", "drop_database"])
async def test_schema_its_tenant_made_read_only(server: Server, step: str) -> None:
    """It stops nothing."""
    tenant, login, password, own = await server.enter()
    run(own, f"ALTER DATABASE `{tenant.database}` READ ONLY = 1")
    assert refused(own, TABLE)

    if step == "repair":
        await tenant.repair()
    else:
        await tenant.steps.end_logins([login])
        await getattr(tenant.steps, step)()
        await tenant.steps.create()
        await tenant.end(login)
        login, password = await server.add(tenant)

    run(server.connect(login, password, tenant.database), TABLE)


@pytest.mark.parametrize("place", ["TABLESPACE innodb_system", "ENGINE=MyISAM", "ENGINE=InnoDB"])
async def test_usage_counts_tables_without_own_file(server: Server, place: str) -> None:
    """The control is one that has a file."""
    tenant, *_, own = await server.enter(f"CREATE TABLE t (a INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) {place}")
    before, _ = (await server.sql.usage())[tenant.database]
    run(own, "INSERT INTO t (b) VALUES (REPEAT('x', 8000000))")
    run(own, "ANALYZE TABLE t")  # as the server does after some seconds

    after, _ = (await server.sql.usage())[tenant.database]

    assert after - before > 7_000_000


@pytest.mark.parametrize("similar", ["ALPHA", "Alpha"])
async def test_code_of_login_with_similar_name(server: Server, similar: str) -> None:
    """It keeps no neighbour. Any visitor may sign up with such a name."""
    theirs, name, *_ = await server.enter(TABLE, "CREATE VIEW o AS SELECT * FROM t", name=similar)
    tenant, *_ = await server.make(name="alpha")

    await tenant.remove()

    assert await server.sql.inspect(tenant.names) == ServerState()
    assert await theirs.problems() == frozenset()
    assert await server.sql.inspect(theirs.names) == ServerState(database=True, logins=(name,))
    await theirs.remove()
