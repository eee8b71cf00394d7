"""The sandbox leaves no process and no file, however it ends."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import EmbeddedPostgres, wheel_programs

from ..proc import children, command_lines, is_alive, line, python
from ..tenants.servers import copied
from ..thorough import first_of
from ..waiting import HANG, until, wait_until

pytestmark = pytest.mark.usefixtures("own_pool")

# In the background of a shell, a program ignores SIGINT, and so do those that it starts.
SCRIPT = """
import asyncio, signal
from aiodbclient.sandbox import Sandbox

signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    async with Sandbox() as sandbox:
        await sandbox.add_cluster("pg")
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of this test alone, which leaves none there.

    The user ``nobody`` can write there, as root's server needs.
    """
    folder = Path(tempfile.gettempdir()) / f"lifetime-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    forgotten = left(folder)
    shutil.rmtree(folder)
    assert forgotten == []


def started(script: str) -> subprocess.Popen[str]:
    """Run ``script`` in a process group of its own, until its cluster is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def postmasters(folder: Path) -> list[int]:
    """The servers with data under ``folder``."""
    return [int(path.read_text().splitlines()[0]) for path in folder.glob("*/data/postmaster.pid")]


def left(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def wait_until_gone(folder: Path, servers: list[int]) -> None:
    wait_until(lambda: not left(folder) and not any(map(is_alive, servers)))


async def test_stopping_leaves_nothing(private_tmp: Path) -> None:
    async with Sandbox() as sandbox:
        await asyncio.gather(sandbox.add_cluster("pg"), sandbox.add_cluster("pg"))
        servers = postmasters(private_tmp)
        assert len(servers) == 2
    assert not any(map(is_alive, servers))


def segment_of(folder: Path) -> str:
    """The System V segment of the only server with data under ``folder``."""
    (status,) = folder.glob("*/data/postmaster.pid")
    return status.read_text().splitlines()[6].split()[1]


def shared_memory() -> set[str]:
    """All System V segments, by id."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


@pytest.mark.parametrize(
    ("which", "number"),
    [
        *((which, signal.SIGKILL) for which in ("program", "supervisor", "server")),
        *(pytest.param("supervisor", number, marks=pytest.mark.thorough) for number in (signal.SIGHUP, signal.SIGTERM)),
        pytest.param("program", signal.SIGTERM, marks=pytest.mark.thorough),
    ],
)
def test_a_crash_leaves_nothing(private_tmp: Path, which: str, number: signal.Signals) -> None:
    with python("-m", "aiodbclient.sandbox", "--cluster", "pg=tenants", "--json") as program:
        assert "tenants" in line(program)
        (supervisor,), servers = children(program.pid), postmasters(private_tmp)
        assert children(supervisor) == servers
        chain = {"program": program.pid, "supervisor": supervisor, "server": servers[0]}
        segment = segment_of(private_tmp)
        assert segment in shared_memory()
        everybody = [*chain.values(), *children(servers[0])]
        os.kill(chain[which], number)
        _, error = program.communicate(timeout=HANG)  # it ends by itself
    wait_until_gone(private_tmp, everybody)
    assert segment not in shared_memory()
    if which != "program":
        assert program.returncode == 1
        assert "the database server of tenants ended unexpectedly" in error


@pytest.mark.thorough
def test_kill_of_program_and_supervisor(private_tmp: Path, tmp_path: Path) -> None:
    """As when a CI job is cancelled. The next start removes their files, but none of a server that runs."""
    process = started(SCRIPT)
    (supervisor,), (server,) = children(process.pid), postmasters(private_tmp)
    everybody = [server, *children(server)]
    segment = segment_of(private_tmp)
    process.send_signal(signal.SIGSTOP)  # so that the supervisor does not see it end first
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(is_alive, everybody)))
    assert segment not in shared_memory()
    (forgotten,) = left(private_tmp)
    precious = tmp_path / "data"
    precious.mkdir()
    (precious / "file").touch()
    link = forgotten.with_name(f"{forgotten.name}-link")
    link.symlink_to(precious)
    with Sandbox() as sandbox:
        asyncio.run(sandbox.add_cluster("pg"))
        assert not forgotten.exists()
        asyncio.run(sandbox.add_cluster("pg"))
        assert len(postmasters(private_tmp)) == 2
        assert (precious / "file").exists()
    link.unlink()


def test_query_ends_with_its_server(private_tmp: Path) -> None:
    """A query ends that does not notice the end of its server."""
    with Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("pg"))
        (server,) = postmasters(private_tmp)
        user = next(iter(sandbox._clusters.values())).backend.primary()
        dsn = f"host=127.0.0.1 port={user.port} user=doadmin password={user.password} dbname=defaultdb"
        with psycopg.connect(dsn) as session, psycopg.connect(dsn, autocommit=True) as other:
            busy = session.info.backend_pid
            with ThreadPoolExecutor() as threads:
                query = threads.submit(session.execute, "SELECT count(*) FROM generate_series(1, 1000000000000)")
                while not other.execute(
                    "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'", [busy]
                ).rowcount:
                    pass
                os.kill(server, signal.SIGKILL)
                with pytest.raises(psycopg.OperationalError):
                    query.result()
    wait_until_gone(private_tmp, [server, busy])


def test_crash_with_forked_child_leaves_nothing(private_tmp: Path) -> None:
    fork = 'import os, time\nif os.fork() == 0: time.sleep(1000), os._exit(0)\nprint("ready", flush=True)'
    process = started(SCRIPT.replace('print("ready", flush=True)', fork.replace("\n", "\n        ")))
    assert process.stdout is not None
    servers = postmasters(private_tmp)
    process.kill()
    process.wait()
    try:
        wait_until_gone(private_tmp, servers)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


async def cancel_when(starting: asyncio.Future[str], folder: Path, pattern: str) -> None:
    """Cancel the start of a cluster when there is such a file, or at once."""
    await until(lambda: not pattern or list(folder.glob(pattern)))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


@pytest.mark.parametrize("pattern", first_of(["*/data/postmaster.pid", "", "*", "*/data/PG_VERSION"], 2))
async def test_cancelled_start_leaves_nothing(private_tmp: Path, pattern: str) -> None:
    async with Sandbox() as sandbox:
        await cancel_when(asyncio.ensure_future(sandbox.add_cluster("pg", "tenants")), private_tmp, pattern)
        assert left(private_tmp) == []
        assert sandbox.clusters == {}
        await sandbox.add_cluster("pg", "tenants", backend="memory")  # the name is free again


@pytest.mark.parametrize("pattern", first_of(["*/data/postmaster.pid", "*", "*/data/PG_VERSION"]))
def test_signal_during_start_leaves_nothing(private_tmp: Path, pattern: str) -> None:
    with python("-m", "aiodbclient.sandbox", "--cluster", "pg", "--json") as program:
        wait_until(lambda: list(private_tmp.glob(pattern)))
        program.terminate()
        assert program.communicate(timeout=HANG) == ("", "")
    assert program.returncode == 0


@pytest.mark.usefixtures("private_tmp")
async def test_kill_of_starting_supervisor_leaves_nothing() -> None:
    server = EmbeddedPostgres()
    starting = asyncio.ensure_future(server.start())
    await until(lambda: server.folder != Path())
    assert server._supervisor is not None
    server._supervisor.kill()
    with pytest.raises(RuntimeError, match="its supervisor died"):
        await starting


@pytest.mark.usefixtures("private_tmp")
async def test_stop_during_start_leaves_nothing() -> None:
    async with Sandbox() as sandbox:
        starting = asyncio.ensure_future(sandbox.add_cluster("pg"))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="stopped before"):
        await starting


async def test_cancelled_start_in_thread_leaves_nothing(private_tmp: Path) -> None:
    with Sandbox() as sandbox:
        await cancel_when(asyncio.ensure_future(sandbox.add_cluster("pg")), private_tmp, "*")


@pytest.mark.usefixtures("private_tmp")
async def test_a_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "pginstall" / "bin"
    programs.mkdir(parents=True)
    monkeypatch.setattr("aiodbclient.sandbox._embedded.wheel_programs", lambda: programs)
    async with Sandbox() as sandbox:
        with pytest.raises(RuntimeError, match=r"did not start: .*No such file"):
            await sandbox.add_cluster("pg")
        with pytest.raises(RuntimeError, match="has no initdb"):
            await sandbox.add_cluster("pg", server=tmp_path)


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiodbclient.sandbox._embedded.wheel_programs", lambda: None)
    async with Sandbox() as sandbox:
        await sandbox.add_cluster("pg")  # in memory then
        with pytest.raises(RuntimeError, match=r"aiodbclient\[sandbox\]"):
            await sandbox.add_cluster("pg", backend="postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone could be made to overwrite what is root's")
async def test_server_of_root_is_nobodys(private_tmp: Path) -> None:
    others = children(os.getpid())  # of earlier tests
    async with Sandbox(windows=[]) as sandbox:
        await sandbox.add_cluster("pg")
        (base,) = left(private_tmp)
        assert base.owner() == "nobody"
        assert {path.lstat().st_uid for path in base.rglob("*")} == {base.stat().st_uid}
        (supervisor,) = set(children(os.getpid())).difference(others)
        (server,) = postmasters(private_tmp)
        for process in (supervisor, server, *children(server)):
            assert "0" not in identities(process)


def identities(process: int) -> list[str]:
    """The users and groups that ``process`` is or may become."""
    status = Path(f"/proc/{process}/status").read_text()
    found = " ".join(re.findall(r"^(?:Uid|Gid|Groups):(.*)$", status, re.MULTILINE)).split()
    assert len(found) >= 8
    return found


async def test_unreadable_wheel_is_no_obstacle(private_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of it may be its owner's alone."""
    found = wheel_programs()
    assert found is not None
    home = private_tmp / "home"
    home.mkdir()
    hidden = copied(found, home)
    assert await asyncio.to_thread(os.system, f"chmod -R go-rwx {home}/*") == 0
    monkeypatch.setattr("aiodbclient.sandbox._embedded.wheel_programs", lambda: hidden)
    async with Sandbox() as sandbox:
        await sandbox.add_cluster("pg")
    assert left(private_tmp) == [home]
    shutil.rmtree(home)


async def test_no_password_on_command_line_or_log(private_tmp: Path) -> None:
    """The control: the same search finds the argument of another program, and the role in the log."""
    server = EmbeddedPostgres()
    await server.start()
    try:
        assert command_lines(server.password) == []
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", "hunter2", stdin=subprocess.PIPE
        )
        await until(lambda: command_lines("hunter2"))  # the kernel shows it a moment after it has started
        program.kill()
        await program.communicate()
        dsn = f"host=127.0.0.1 port={server.port} user=postgres password={server.password} dbname=postgres"
        async with await psycopg.AsyncConnection.connect(dsn) as admin:
            with pytest.raises(psycopg.errors.ReservedName):
                await admin.execute("CREATE ROLE pg_x PASSWORD 'plain text'")
        log = next((folder / "log").read_text() for folder in left(private_tmp))
        assert "plain text" not in log
        assert "pg_x" in log
    finally:
        await server.stop()
