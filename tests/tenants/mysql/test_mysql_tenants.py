"""Tenants on MySQL: patterns in GRANT, changed rights, and refusals, which become errors that contain no secret."""

from __future__ import annotations

import asyncio
import gc
import re
import ssl
from contextlib import suppress

import pymysql
import pytest
import trustme
from attrs import evolve
from pymysql.constants import CLIENT

from aiodbclient import Cluster, Engine
from aiodbclient._masking import Secret
from aiodbclient.errors import ConfigurationError, NotFoundError, UnsupportedOperationError
from aiodbclient.tenants import ProblemKind, Role, TenantAction, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers import BaseTenant
from aiodbclient.tenants._servers.mysql import MySQLServer, kill
from aiodbclient.tenants._servers.mysql import connection as sessions
from aiodbclient.tenants._servers.mysql.connection import Session
from aiodbclient.tenants.errors import GrantError

from ...mysql import administrator, in_grant
from ...waiting import until
from ..conftest import Place, only, present
from ..leaks import leaks
from ..mysql_servers import IGNORES_KILL, Server, server
from ..problems import kinds_of
from ..programs import ask, refusal, session_of


async def test_move_is_refused_before_anything(my_place: Place, mysql_root: str) -> None:
    other = await my_place.sandbox.add_cluster("mysql", server=mysql_root)
    both = [my_place.cluster, my_place.client.cluster(other)]

    async def choose(*_: object) -> Cluster:
        return my_place.cluster

    tenants = Tenants(both, my_place.store, prefix=my_place.prefix, choose_cluster=choose)
    alpha = await tenants.ensure("alpha")
    async with session_of(alpha) as own:
        requests = len(my_place.sandbox.requests)

        refused = await only(tenants.move(["alpha"], to=other))

        assert isinstance(refused.error, UnsupportedOperationError)
        assert "MySQL cannot be moved" in str(refused.error)
        assert await own("SELECT 7") == [(7,)]
    assert len(my_place.sandbox.requests) == requests
    assert await tenants.get("alpha") == alpha

    claim = present(await my_place.store.claim("alpha", 30))
    await my_place.store.save(claim, evolve(present(claim.record), engine=Engine.ADVANCED_MYSQL), release=True)
    refused = await only(tenants.move(["alpha"], to=other))
    assert isinstance(refused.error, UnsupportedOperationError)


async def test_prepared_transaction_stops_removal_alone(my_place: Place, tenants: Tenants, mysql_root: str) -> None:
    """One without a session: MySQL lists it to nobody whom the provider lets in."""
    alpha = await tenants.ensure("alpha")
    xid = f"'{alpha.database}'"
    prepare = f"XA START {xid}", "INSERT INTO t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}"
    await ask(alpha, "CREATE TABLE t (a INT PRIMARY KEY)", *prepare)

    assert (await only(tenants.rotate(["alpha"]))).error is None
    assert (await only(tenants.suspend(["alpha"]))).action is TenantAction.SUSPENDED
    assert (await only(tenants.resume(["alpha"]))).action is TenantAction.RESUMED
    removed = await only(tenants.remove(["alpha"]))
    assert isinstance(removed.error, GrantError)
    assert "but a prepared transaction (XA) may. Run XA ROLLBACK with its name" in str(removed.error)
    with administrator(mysql_root) as root:
        assert root.execute("SELECT User FROM mysql.db WHERE %s LIKE Db", (alpha.database,)) == 0
    await ask(await tenants.ensure("other"), f"XA ROLLBACK {xid}")  # by anybody who knows its name
    assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED


@pytest.mark.parametrize("operation", ["suspend", pytest.param("remove", marks=pytest.mark.thorough)])
async def test_resisting_login_keeps_no_other(
    my_place: Place, tenants: Tenants, mysql_root: str, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """A session of the owner, which is ended first, runs a statement that ignores KILL."""
    earlier = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    await only(tenants.revoke_previous(["alpha"]))
    owner = await tenants.ensure("alpha")
    others = [await tenants.role(role).ensure("alpha") for role in ("writer", "reader")]

    def count(query: str, *values: str) -> int:
        with administrator(mysql_root) as root:
            root.execute(f"SELECT COUNT(*) FROM {query}", values)
            return int(root.fetchall()[0][0])

    sessions, rights = "performance_schema.threads WHERE PROCESSLIST_USER = %s", "mysql.db WHERE %s LIKE Db"
    assert count(rights, owner.database) == len(Role)  # the control
    async with session_of(others[0]), session_of(others[1]):
        assert [count(sessions, each.username) for each in others] == [1, 1]
        busy = asyncio.create_task(refusal(owner, IGNORES_KILL))
        await until(lambda: count(f"{sessions} AND PROCESSLIST_STATE = 'executing'", owner.username))
        with monkeypatch.context() as patched:
            patched.setattr(kill, "ENDING_SECONDS", 0.5)
            refused = await only(getattr(tenants, operation)(["alpha"]))

        named = rf"sessions of '{owner.username}' did not end within .*: thread \d+ \(Query\); run it again"
        assert re.search(named, str(refused.error))
        assert [count(sessions, each.username) for each in others] == [0, 0]
    assert count(rights, owner.database) == 0
    for credential in (earlier, owner, *others):
        assert "denied" in await refusal(credential)
    assert (await only(getattr(tenants, operation)(["alpha"]))).error is None
    await busy


async def test_longest_name_of_patterns(my_place: Place, tenants: Tenants, mysql_root: str) -> None:
    """Where GRANT takes patterns, each ``_`` counts twice. A tenant of a longer name can be removed."""
    under = "_" * 20
    room = 64 - len(my_place.prefix) - my_place.prefix.count("_") - 2 * len(under)
    longest, longer = under + "a" * room, under + "a" * (room + 1)
    await ask(await tenants.ensure(longest), "CREATE TABLE t (a INT PRIMARY KEY)")
    with administrator(mysql_root) as root:
        if in_grant(root, schema := my_place.prefix + longer) == schema:
            await ask(await tenants.ensure(longer), "CREATE TABLE t (a INT PRIMARY KEY)")
            return
    with pytest.raises(GrantError, match="is too long"):
        await tenants.ensure(longer)
    assert (await only(tenants.remove([longer]))).action is TenantAction.DELETED


async def test_rights_of_other_mode_and_of_name_that_matches(
    my_place: Place, tenants: Tenants, mysql_root: str
) -> None:
    """As after a change of ``partial_revokes``: what was escaped is literal now, and the reverse."""
    one = await tenants.ensure("a_b")
    other = await tenants.ensure("axb")
    with administrator(mysql_root) as root:
        now = in_grant(root, one.database)
        then = one.database.replace("_", "\\_") if now == one.database else one.database
        root.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", (one.username,))
        root.execute(f"GRANT ALL ON `{then.replace('%', '%%')}`.* TO %s@'%%'", (one.username,))
    assert ProblemKind.RIGHTS_MISSING in kinds_of((await only(tenants.check(["a_b"]))).problems)

    assert (await only(tenants.repair(["a_b"]))).error is None

    for name in ("a_b", "axb"):
        assert (await only(tenants.check([name]))).problems == ()
    assert "denied" in await refusal(one, f"SELECT * FROM `{other.database}`.t")
    assert await ask(one, "SHOW TABLES") == []
    for name, left in (("axb", "a_b"), ("a_b", "axb")):
        assert (await only(tenants.remove([name]))).action is TenantAction.DELETED
        adopted = await only(tenants.provision([name], if_exists="adopt"))
        assert isinstance(adopted.error, NotFoundError), "the other one is no database of this name"
        assert (await only(tenants.check([left]))).problems == ()
        await tenants.ensure(name)


__all__ = ["server"]

NAMES = names_of("alpha", "mysql")


def dsn(server: Server, login: str, password: str) -> str:
    return f"mysql://{login}:{password}@{server.host}:{server.port}/"


async def test_administrator_without_rights_is_refused_with_statement(server: Server) -> None:
    """Such as a tenant."""
    tenant, login, password = await server.make()
    refused = MySQLServer(dsn(server, login, password), await server.cluster.ca())

    found = await refused.administrator()
    assert "CREATE USER" in found.lacks
    with pytest.raises(GrantError, match="MySQL refused a statement") as caught:
        await refused.steps(BaseTenant(names_of("never_made", "mysql"))).create()

    assert caught.value.tenant == "never_made"
    assert "SELECT Host, User, Db" in caught.value.statement
    assert password not in str(caught.value)
    assert await tenant.problems() == frozenset()


@pytest.mark.parametrize(
    "admin",
    [
        "nonsense s3cret",
        "postgresql://doadmin:s3cret@127.0.0.1/",
        "mysql://[s3cret",
        "mysql://doadmin:s3cret@",
        "mysql://doadmin:s3cret@h:99999/",
        *(f"mysql://doadmin:a@s3cret{end}b@127.0.0.1/" for end in "/?#"),  # the host would be s3cret
    ],
)
def test_an_administrators_dsn_that_is_none(admin: str) -> None:
    with pytest.raises(ConfigurationError, match="not a DSN of MySQL") as caught:
        MySQLServer(admin, None)
    assert leaks(caught.value, "s3cret") == []


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\xff\x10\x04#08004Too many connections", "Too many connections"),
        (b"\xff\x69\x04Host is blocked", "blocked"),  # an older driver cuts its beginning off
        (b"", "connect"),
        (b"nonsense that is no handshake\0", ""),
    ],
)
async def test_server_that_is_away_refuses_no_password(packet: bytes, message: str) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if packet:
            writer.write(len(packet).to_bytes(3, "little") + b"\0" + packet)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as away:
        port = away.sockets[0].getsockname()[1]
        sql = MySQLServer(f"mysql://doadmin:s3cret-of-doadmin@127.0.0.1:{port}/", None)
        with pytest.raises(GrantError, match=f"could not be tested: .*{message}") as error:
            await sql.log_in(NAMES, "alpha", Secret("s3cret-of-alpha"))
        assert "s3cret" not in str(error.value)
        with pytest.raises(GrantError, match="cannot log in"):
            await sql.administrator()


def greeting(capabilities: int) -> bytes:
    """What a server sends first."""
    salt, plugin = b"8" * 8, b"caching_sha2_password\0"
    low, high = capabilities.to_bytes(4, "little")[:2], capabilities.to_bytes(4, "little")[2:]
    text = b"\x0a8.0.99\0" + bytes(4) + salt + b"\0" + low + b"\x21\x02\0" + high + b"\x15" + bytes(10) + salt
    packet = text + b"8888\0" + plugin
    return len(packet).to_bytes(3, "little") + b"\0" + packet


async def test_unverified_server_gets_no_login() -> None:
    """Somebody on the way may have removed TLS from the greeting, to read the login."""
    received = asyncio.get_running_loop().create_future()

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(CLIENT.CAPABILITIES & ~CLIENT.SSL))
        try:
            received.set_result(await reader.read())
        except ConnectionResetError:
            received.set_result(b"")
        writer.close()

    async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Session(
            host="127.0.0.1", port=port, user="app", password="hunter2", ssl=ssl.create_default_context()
        )
        async with asyncio.timeout(60):
            with pytest.raises(pymysql.OperationalError, match="does not support TLS"):
                await connection._connect()
        assert connection.closed
        assert await received == b""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("greets", [False, True], ids=["silent", "greets"])
async def test_failed_connection_is_closed_at_once(monkeypatch: pytest.MonkeyPatch, tls: bool, greets: bool) -> None:
    """Of a server that hangs, without help by the garbage collector, while the errors are still there."""
    monkeypatch.setattr(sessions, "CONNECT_SECONDS", 0.2)
    opened = closed = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened, closed
        opened += 1
        if greets:
            writer.write(greeting(0xFFFFFFFF))
        with suppress(ConnectionResetError):  # it was closed before the greeting was read
            while await reader.read(1000):
                pass
        closed += 1
        writer.close()

    gc.collect()
    gc.disable()
    errors: list[Exception] = []
    try:
        async with await asyncio.start_server(hang, "127.0.0.1", 0) as away:
            port = away.sockets[0].getsockname()[1]
            ca = trustme.CA().cert_pem.bytes().decode() if tls else None
            sql = MySQLServer(f"mysql://doadmin:secret@127.0.0.1:{port}/", ca)
            for act in (sql.administrator(), sql.log_in(NAMES, "alpha", Secret("x")), sql.problems(NAMES, None)):
                with pytest.raises(GrantError, match="no answer within") as caught:
                    await act
                errors.append(caught.value)
            monkeypatch.setattr(sessions, "CONNECT_SECONDS", 60)
            before, asking = opened, asyncio.create_task(sql.administrator())
            await until(lambda: opened > before)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: closed == opened)
    finally:
        gc.enable()


@pytest.mark.usefixtures("brief_locks")
async def test_blocked_statement_ends_and_leaves_no_session(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, *_ = await server.make()
    before = {*server.sessions("doadmin")}

    def new() -> set[int]:
        return {*server.sessions("doadmin")} - before

    with administrator(server.root) as root:
        root.execute("FLUSH TABLES WITH READ LOCK")
        with monkeypatch.context() as patched:
            patched.setattr(sessions, "STATEMENT_SECONDS", 1)
            with pytest.raises(GrantError, match=r"no answer within 1 seconds|Lock wait timeout"):
                await tenant.repair()
        await until(lambda: not new())
        repairing = asyncio.create_task(tenant.repair())
        await until(new)
        repairing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await repairing
        root.execute("UNLOCK TABLES")
    await until(lambda: not new())
    await tenant.repair()


async def test_no_frame_shows_password_of_refused_statement(server: Server) -> None:
    tenant, login, _ = await server.make()
    password = Secret("s3cret-of-a-tenant")
    for refused in (login, "x" * 200):  # it exists, or is too long
        with pytest.raises(GrantError) as caught:
            await tenant.steps.add_login(refused, password, Role.OWNER)
        assert leaks(caught.value, password) == []


async def test_logs_and_history_of_server_hold_no_password(server: Server) -> None:
    """CREATE USER and ALTER USER: the server rewrites them, wherever it stores a statement."""
    server.as_root("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON, GLOBAL slow_query_log = ON")
    server.as_root("SET GLOBAL long_query_time = 0")
    server.as_root("TRUNCATE TABLE performance_schema.events_statements_summary_by_digest")  # it has one text of each
    server.as_root("UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME LIKE '%statements%'")
    try:
        tenant, login, password = await server.make()
        second, again = await server.add(tenant)
    finally:
        server.as_root("SET GLOBAL general_log = OFF, GLOBAL slow_query_log = OFF, GLOBAL long_query_time = 10")
    for table, column in (
        ("mysql.general_log", "argument"),
        ("mysql.slow_log", "sql_text"),
        ("performance_schema.events_statements_history_long", "SQL_TEXT"),
        ("performance_schema.events_statements_summary_by_digest", "QUERY_SAMPLE_TEXT"),
    ):
        texts = [str(text) for (text,) in server.as_root(f"SELECT CONVERT({column} USING utf8mb4) FROM {table}")]
        assert any(each in text for text in texts for each in (login, second)), table  # or of the slower statement
        for secret in (password, again):
            assert not any(secret in text for text in texts), table
