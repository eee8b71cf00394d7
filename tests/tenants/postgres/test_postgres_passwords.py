"""Passwords are tested and sessions opened on PostgreSQL without blocking the process, whatever a tenant did."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from traceback import TracebackException

import pytest
from psycopg import AsyncConnection
from psycopg.sql import Composable

from aiodbclient._masking import Secret
from aiodbclient.engines import Engine
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import ProblemKind
from aiodbclient.tenants import _servers as of_any_engine
from aiodbclient.tenants._naming import Role, names_of
from aiodbclient.tenants._servers import server_of
from aiodbclient.tenants._servers.postgres import PostgresServer, connection, scram
from aiodbclient.tenants._servers.postgres.connection import CAFile
from aiodbclient.tenants.errors import GrantError

from ...requirements import postgres_with_tls
from ..conftest import Place, only, placed
from ..managed import Managed
from ..problems import kinds
from ..programs import admin_of, ask
from ..tenant import PASSWORD, Tenant

# A verifier that the tenant made itself. The salt and the keys are any.
ENDLESS = "SCRAM-SHA-256${rounds}:c2FsdHNhbHRzYWx0c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "="


@asynccontextmanager
async def never_blocked(most: float = 1.0) -> AsyncIterator[None]:
    """The event loop goes on meanwhile: it never works for ``most`` seconds without a pause, whatever others do."""
    longest, last = 0.0, time.thread_time()

    async def beat() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()

    beating = asyncio.create_task(beat())
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        beating.cancel()
    assert longest < most


async def test_blocked_loop_is_noticed() -> None:
    """The control of ``never_blocked``."""

    async def block() -> None:
        async with never_blocked(most=0.2):
            await asyncio.sleep(0)
            end = time.thread_time() + 0.3
            while time.thread_time() < end:
                pass
            await asyncio.sleep(0.02)

    with pytest.raises(AssertionError):
        await block()


@pytest.mark.parametrize("rounds", [100_001, 2_147_483_647])
async def test_scram_rounds_out_of_range_refused(
    managed: Managed, server: PostgresServer, victim: Tenant, rounds: int
) -> None:
    # A tenant waits 40 minutes for the server to take the longest, so a superuser writes it here.
    verifier = ENDLESS.format(rounds=rounds)
    managed.api(f"UPDATE pg_authid SET rolpassword = '{verifier}' WHERE rolname = '{victim.logins[0]}'")

    async with never_blocked():
        refused = await server.log_in(victim.names, victim.logins[0], Secret(PASSWORD))
        assert refused is not None
        assert f"{rounds:,} rounds of SCRAM" in refused
        assert await victim.end(victim.logins[0])


@pytest.mark.parametrize("rounds", [-1, 0, 1_000_000, None])
async def test_check_reports_unusable_password(place: Place, rounds: int | None) -> None:
    """A tenant can choose the verifier of its own password, or MD5 for it. A repair makes it ours again."""
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    own = credential.password if rounds is None else ENDLESS.format(rounds=rounds)
    await ask(credential, f"SET ROLE NONE; SET password_encryption = md5; ALTER ROLE CURRENT_USER PASSWORD '{own}'")

    async with never_blocked():
        assert (await only(tenants.check(["alpha"]))).problems == kinds(ProblemKind.PASSWORD_REFUSED)
        assert (await only(tenants.repair(["alpha"]))).error is None
        assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_new_password_has_few_rounds(managed: Managed, victim: Tenant) -> None:
    if managed.version < 16:
        pytest.skip("there is no such setting")
    managed.as_admin(f"ALTER DATABASE {victim.database} SET scram_iterations = 2147483647")

    async with never_blocked():
        await victim.add()


async def test_statements_have_no_password(managed: Managed, victim: Tenant, statements: list[Composable]) -> None:
    """Also where MD5 is the default."""
    managed.api("ALTER SYSTEM SET password_encryption = 'md5'")
    managed.reload()
    try:
        login = await victim.add(password="hunter2-hunter2")
    finally:
        managed.api("ALTER SYSTEM RESET ALL")
        managed.reload()
    assert not any("hunter2" in each.as_string(None) for each in statements)
    assert any("SCRAM-SHA-256$4096:" in each.as_string(None) for each in statements)
    stored = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{login}'"
    assert managed.api(stored)[0][0].startswith("SCRAM-SHA-256$4096:")


async def test_error_shows_its_statements_without_verifier(managed: Managed, victim: Tenant) -> None:
    """Nor the transaction around them."""
    managed.api("ALTER ROLE doadmin NOCREATEROLE")
    try:
        with pytest.raises(GrantError) as caught:
            await victim.add()
    finally:
        managed.api("ALTER ROLE doadmin CREATEROLE")
    assert "SCRAM" not in str(caught.value)
    assert caught.value.statement.startswith("CREATE ROLE")
    assert "COMMIT" not in caught.value.statement


async def test_server_that_does_not_know_the_password_is_refused(
    managed: Managed, server: PostgresServer, victim: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program at the server's address says that the password is right, but cannot sign."""
    expect = scram._Wire._expect
    signed = list[bool]()

    async def forged(wire: scram._Wire, *wanted: int, **sent: str) -> tuple[int, bytes]:
        kind, content = await expect(wire, *wanted, **sent)
        if wanted == (scram._SASL_FINAL,):
            signed.append(content.startswith(b"v="))
            content = b"v=" + b64encode(bytes(32))
        return kind, content

    assert await server.log_in(victim.names, victim.logins[0], Secret(PASSWORD)) is None
    monkeypatch.setattr(scram._Wire, "_expect", forged)
    with pytest.raises(GrantError, match="does not know the password"):
        await server.log_in(victim.names, victim.logins[0], Secret(PASSWORD))
    assert signed == [True]


async def test_cancelled_login_shows_no_password(
    managed: Managed, server: PostgresServer, victim: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    password, reached = Secret("hunter2-hunter2"), asyncio.Event()
    managed.api(f"ALTER ROLE {victim.logins[0]} PASSWORD '{password}'")
    await server.inspect(victim.names)
    expect = scram._Wire._expect

    async def stalling(wire: scram._Wire, *wanted: int, **sent: str) -> tuple[int, bytes]:
        if wanted == (scram._SASL_FINAL,):
            reached.set()
            await asyncio.Event().wait()  # the server does not answer the proof of the password
        return await expect(wire, *wanted, **sent)

    monkeypatch.setattr(scram._Wire, "_expect", stalling)
    login = asyncio.create_task(server.log_in(victim.names, victim.logins[0], password))
    await reached.wait()
    login.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await login
    shown = "".join(TracebackException.from_exception(cancelled.value, capture_locals=True).format())
    assert "_scram" in shown
    assert "hunter2" not in shown


@pytest.fixture
def hanging(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server's kernel takes connections, and nobody answers."""
    monkeypatch.setattr(scram, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2)  # libpq's least
    process = managed.server.process
    os.kill(process.pid, signal.SIGSTOP)
    yield
    os.kill(process.pid, signal.SIGCONT)


def open_sockets() -> set[str]:
    return {
        path for fd in os.listdir("/proc/self/fd") if "socket:" in (path := os.path.realpath(f"/proc/self/fd/{fd}"))
    }


async def test_hanging_server_leaves_no_connection(
    managed: Managed, server: PostgresServer, victim: Tenant, hanging: None
) -> None:
    before = open_sockets()
    cancelled = asyncio.create_task(server.administrator())
    asyncio.get_running_loop().call_later(0.1, cancelled.cancel)
    outcomes = await asyncio.gather(  # kept, as an outcome keeps its error
        cancelled,
        server.administrator(),
        victim.problems(),
        server.log_in(victim.names, victim.logins[0], Secret(PASSWORD)),
        victim.steps.end_logins([victim.logins[0]]),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [asyncio.CancelledError, *[GrantError] * 4]
    assert open_sockets() <= before  # the garbage collector may have closed some of other tests


@pytest.mark.thorough
async def test_stopped_server_ends_call(
    managed: Managed, server: PostgresServer, victim: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is open, and the server answers neither the statement nor its cancellation (5 s)."""
    await victim.add()
    async with server.sessions.shared():
        await victim.problems()
        backends = [pid for (pid,) in managed.api("SELECT pid FROM pg_stat_activity WHERE usename = 'doadmin'")]
        assert backends
        monkeypatch.setattr(of_any_engine, "_READ_SECONDS", 0.5)
        for backend in backends:
            os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(GrantError, match="did not answer within"):
                async with asyncio.timeout(60):
                    await victim.problems()
        finally:
            for backend in backends:
                os.kill(backend, signal.SIGCONT)


@pytest.fixture
async def tls_place(tmp_path: Path) -> AsyncIterator[Place]:
    """A place on a server with TLS. The others share one without, which is faster."""
    with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("pg", server=str(postgres_with_tls()))
        async with placed(sandbox, cluster, tmp_path / "tenants.db") as place:
            yield place


def test_authority_file_lives_as_long_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ca = CAFile("the authority")
    path = Path(ca.path())
    assert path.read_text() == "the authority"
    assert path.stat().st_mode & 0o077 == 0
    assert ca.path() == str(path)

    path.unlink()  # as what cleans /tmp does
    again = Path(ca.path())
    assert again.read_text() == "the authority"

    del ca
    gc.collect()
    assert os.listdir(tmp_path) == []


async def test_cancelled_step_over_tls_leaves_no_backend(tls_place: Place) -> None:
    credential, admin = await tls_place.tenants().ensure("alpha"), await admin_of(tls_place.cluster)
    info = await tls_place.cluster.info()
    server = server_of(Engine.PG, info.connection, await tls_place.cluster.ca(), None, None)
    alpha = Tenant(server, names_of("alpha", Engine.PG, tls_place.prefix), {credential.username: Role.OWNER})
    waiting = (
        "SELECT FROM pg_stat_activity WHERE query LIKE '%REVOKE ALL ON DATABASE%' AND state = 'active' "
        "AND pid <> pg_backend_pid()"
    )
    await ask(admin, f"GRANT CONNECT ON DATABASE {alpha.database} TO PUBLIC")
    async with await AsyncConnection.connect(admin.uri) as locking:
        await locking.execute(f"ALTER DATABASE {alpha.database} CONNECTION LIMIT 7".encode())

        call = asyncio.create_task(alpha.repair())
        async with asyncio.timeout(20):
            while not await ask(admin, waiting):
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert await ask(admin, waiting) == []
