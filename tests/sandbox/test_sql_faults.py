"""The database fails while the API works."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import Call, caller, until_it_sleeps
from .test_program import get, program

pytestmark = pytest.mark.usefixtures("_aiodbclient_servers")

JSON = dict[str, Any]


@pytest.fixture(params=[True, False], ids=["TLS", "plain"])
async def cluster(sandbox: Sandbox, request: pytest.FixtureRequest) -> str:
    return await sandbox.add_cluster("pg", backend="postgres", tls=request.param)


@pytest.fixture
async def call(sandbox: Sandbox, cluster: str) -> AsyncIterator[Call]:
    async with caller(sandbox, f"/v2/databases/{cluster}") as calling:
        yield calling


@pytest.fixture
async def uri(call: Call) -> str:
    uri: str = (await call("GET", "")).json["database"]["connection"]["uri"]
    return uri


async def login(uri: str, **different: Any) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(uri, autocommit=True, **different)


async def one(uri: str) -> Any:
    async with await login(uri) as session:
        return (await (await session.execute("SELECT 1")).fetchone() or [None])[0]


async def until_it_serves(uri: str) -> None:
    """Log in until it works, after a fault that lasts for a moment."""
    async with asyncio.timeout(60):
        while True:
            with suppress(psycopg.OperationalError):
                assert await one(uri) == 1
                return


async def test_the_database_goes_and_comes_back_with_its_data_while_the_api_goes_on(
    sandbox: Sandbox, cluster: str, call: Call, uri: str
) -> None:
    session = await login(uri)
    await session.execute("CREATE TABLE notes (text text)")
    await session.execute("INSERT INTO notes VALUES ('kept')")
    await session.execute("BEGIN; INSERT INTO notes VALUES ('rolled back')")

    await sandbox.stop_database(cluster)
    await sandbox.stop_database(cluster)  # safe to repeat

    with pytest.raises(psycopg.OperationalError):
        await session.execute("SELECT 1")
    await session.close()
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        await login(uri)
    assert (await call("POST", "/users", {"name": "made-meanwhile"})).status == 201
    assert (await call("GET", "/users/made-meanwhile")).status == 200
    assert (await call("POST", "/dbs", {"name": "meanwhile"})).status == 201
    assert sandbox.failed == []

    await sandbox.start_database(cluster)
    await sandbox.start_database(cluster)
    assert (await call("GET", "")).json["database"]["connection"]["uri"] == uri
    async with await login(uri) as again:
        assert await (await again.execute("SELECT text FROM notes")).fetchall() == [("kept",)]


async def test_a_graceful_stop_says_so_to_the_sessions(sandbox: Sandbox, cluster: str, uri: str) -> None:
    session = await login(uri)
    running = asyncio.create_task(session.execute("SELECT pg_sleep(60)"))
    await until_it_sleeps(uri)
    await sandbox.stop_database(cluster, graceful=True)
    with pytest.raises(psycopg.errors.AdminShutdown):
        await running
    await session.close()
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        await login(uri)


async def test_a_statement_that_runs_ends_with_its_server(sandbox: Sandbox, cluster: str, uri: str) -> None:
    session = await login(uri)
    await session.execute("CREATE TABLE notes (text text)")
    running = asyncio.create_task(session.execute("INSERT INTO notes SELECT 'late' FROM pg_sleep(60)"))
    await until_it_sleeps(uri)
    await sandbox.stop_database(cluster)
    with pytest.raises(psycopg.OperationalError):
        await running
    await session.close()
    await sandbox.start_database(cluster)
    async with await login(uri) as again:
        assert await (await again.execute("SELECT count(*) FROM notes")).fetchall() == [(0,)]


async def test_only_an_embedded_server_can_be_stopped(sandbox: Sandbox) -> None:
    for backend in ("pg", "mysql"):
        cluster = await sandbox.add_cluster(backend, backend="memory")
        with pytest.raises(ValueError, match="no embedded PostgreSQL"):
            await sandbox.stop_database(cluster)
    with pytest.raises(ValueError, match="no cluster"):
        await sandbox.start_database("nowhere")


def test_a_sandbox_in_a_thread_stops_databases_too() -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("pg", backend="postgres"))
        asyncio.run(sandbox.stop_database(cluster))
        asyncio.run(sandbox.start_database(cluster))


@pytest.mark.parametrize(
    ("sqlstate", "message"),
    [
        ("53300", "sorry, too many clients already"),
        ("57P03", "the database system is starting up"),
        ("28P01", 'password authentication failed for user "doadmin"'),
        ("42501", "the sandbox refuses this login"),
    ],
)
async def test_logins_are_refused_for_a_while(sandbox: Sandbox, uri: str, sqlstate: str, message: str) -> None:
    fault = sandbox.faults.add("sql.login", sqlstate=sqlstate, times=2)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match=message):
            await login(uri)
    assert await one(uri) == 1
    assert (fault.seen, fault.fired) == (3, 2)
    sandbox.faults.remove(fault)
    sandbox.faults.add("sql.login", sqlstate=sqlstate, lasts=0.2)
    with pytest.raises(psycopg.OperationalError, match=message):
        await login(uri)
    await until_it_serves(uri)


async def test_a_fault_meets_one_login_and_one_cluster(sandbox: Sandbox, cluster: str, call: Call, uri: str) -> None:
    user = (await call("POST", "/users", {"name": "app"})).json["user"]
    other = await sandbox.add_cluster("pg", backend="postgres")
    sandbox.faults.add("sql.login", cut=True, name="app", cluster=cluster)
    elsewhere = sandbox.faults.add("sql.login", cut=True, cluster=other)
    assert await one(uri) == 1
    with pytest.raises(psycopg.OperationalError):
        await login(uri, user="app", password=user["password"])
    assert elsewhere.seen == 0
    async with caller(sandbox) as calling:
        there = (await calling("GET", f"/v2/databases/{other}")).json["database"]["connection"]["uri"]
    with pytest.raises(psycopg.OperationalError):
        await login(there)
    sandbox.faults.clear()
    assert await one(there) == 1
    assert elsewhere.fired == 1


@pytest.mark.parametrize("after", [True, False])
async def test_an_answer_is_lost_before_or_after_the_work(sandbox: Sandbox, uri: str, after: bool) -> None:
    async with await login(uri) as owner:
        await owner.execute("CREATE TABLE notes (text text)")
    session = await login(uri)
    sandbox.faults.add("sql.statement", cut=True, after=after, times=1)
    with pytest.raises(psycopg.OperationalError):
        await session.execute("INSERT INTO notes VALUES (repeat('x', 100000)) RETURNING text")
    await session.close()
    async with await login(uri) as again:
        assert await (await again.execute("SELECT count(*) FROM notes")).fetchall() == [(int(after),)]


async def test_statements_take_long(sandbox: Sandbox, uri: str) -> None:
    async with await login(uri) as slow:
        fault = sandbox.faults.add("sql.statement", delay=0.2, nth=2)
        await slow.execute("SELECT 1")
        assert fault.fired == 0
        started = time.monotonic()
        await slow.execute("SELECT 2")
        assert time.monotonic() - started >= 0.2
        assert fault.fired == 1


async def test_copy_goes_on_under_faults(sandbox: Sandbox, uri: str) -> None:
    sandbox.faults.add("sql.statement", delay=0.001, after=True)
    async with await login(uri) as session:
        await session.execute("CREATE TABLE numbers (n int)")
        async with session.cursor() as cursor, cursor.copy("COPY numbers FROM STDIN") as copy:
            for number in range(20_000):
                await copy.write_row([number])
        async with session.pipeline():
            results = [await session.execute("SELECT sum(n) FROM numbers") for _ in range(3)]
        assert [await result.fetchall() for result in results] == [[(199990000,)]] * 3


@pytest.mark.parametrize("lasts", [None, 0.2])
async def test_the_database_stops_by_a_fault_and_comes_back(
    sandbox: Sandbox, cluster: str, uri: str, lasts: float | None
) -> None:
    other = await login(uri)
    session = await login(uri)
    stop = sandbox.faults.add("sql.statement", stop=True, nth=2, lasts=lasts)
    await session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        await session.execute("SELECT 2")
    with pytest.raises(psycopg.OperationalError):
        await other.execute("SELECT 3")
    await other.close()
    await session.close()
    if lasts is None:
        with pytest.raises(psycopg.OperationalError, match="Connection refused"):
            await login(uri)
        await sandbox.start_database(cluster)
    await until_it_serves(uri)
    assert stop.fired == 1


async def test_the_next_cluster_of_a_warm_server_has_none_of_the_faults() -> None:
    async with Sandbox(windows=[]) as first:
        cluster = await first.add_cluster("pg", backend="postgres")
        fault = first.faults.add("sql", cut=True)
        await first.stop_database(cluster)
    assert fault.fired == 0
    async with Sandbox(windows=[]) as second, caller(second) as call:
        path = "/v2/databases/" + await second.add_cluster("pg", backend="postgres")
        assert await one((await call("GET", path)).json["database"]["connection"]["uri"]) == 1


async def test_a_cluster_that_is_added_later_meets_the_faults_and_their_counts_stay() -> None:
    async with Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        fault = sandbox.faults.add("sql.login", sqlstate="53300")
        path = "/v2/databases/" + await sandbox.add_cluster("pg", backend="postgres")
        uri = (await call("GET", path)).json["database"]["connection"]["uri"]
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            await login(uri)
    assert fault.fired == 1


@pytest.mark.parametrize(
    ("operation", "options", "why"),
    [
        ("sql", {"status": 503}, "status has no effect there; it applies to the API"),
        ("sql.login", {"cut": True, "html": True}, "html has no effect there; it applies to the API"),
        ("sql.statement", {"sqlstate": "53300"}, "it applies to sql.login"),
        ("users.get", {"stop": True}, "it applies to sql.login, sql.statement"),
        (["users.get", "sql.login"], {"cut": True}, "not both"),
        ("sql.login", {"sqlstate": "5330"}, "five digits or capital letters"),
        ("sql.login", {"lasts": 1}, "has no effect"),
        ("sql.nothing", {"cut": True}, "unknown operation sql.nothing"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(operation: Any, options: JSON, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Sandbox().faults.add(operation, **options)


def test_a_fault_of_the_api_lasts_for_a_while_too() -> None:
    fault = Sandbox().faults.add("users.get", status=503, lasts=0.0)
    assert not fault.is_of_sql
    assert Sandbox().faults.add(stop=True).is_of_sql


async def test_the_program_takes_faults_of_sql() -> None:
    arguments = ["--json", "--cluster", "pg=tenants", "--fault", "sql: stop lasts=0.2 cluster=tenants"]
    with program(*arguments) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        cluster = get(f"{ready['url']}/v2/databases/{ready['clusters'][0]['id']}", ready["token"])["database"]
        uri = cluster["connection"]["uri"]
        with pytest.raises(psycopg.OperationalError):
            await login(uri)
        await until_it_serves(uri)
