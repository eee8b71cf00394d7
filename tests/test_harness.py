"""A test that hangs fails alone, a terminated run leaves nothing, and ``tests/live`` passes on the sandbox."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiodbclient.sandbox import Answer, RecordedRequest, Sandbox

from .live import conftest as live
from .proc import FIRST_PORT
from .requirements import postgres_with_tls
from .run_folder import programs_of
from .sweeping import names_on
from .waiting import wait_until

ROOT = Path(__file__).parents[1]
CONFTEST = """
from tests import time_limit
from tests.time_limit import pytest_runtest_call  # not the set-up, which may take longer

time_limit.SECONDS, time_limit.AGAIN = 2.0, 0.2
"""
HANGING = {
    "sleeps": "def test_it():\n    time.sleep(1000)",
    "sleeps and goes on when it is ended": """
def test_it():
    with contextlib.suppress(BaseException):
        time.sleep(1000)""",
    "waits": "async def test_it():\n    await asyncio.Event().wait()",
    "a busy loop that never blocks": """
@virtual
async def test_it(loop):
    def again():
        loop.call_soon(again)
    again()
    await loop.create_future()""",
    "a busy loop whose tasks refuse to end": """
@virtual
async def test_it(loop):
    async def stubborn():
        for _ in range(3):
            with contextlib.suppress(BaseException):
                while True:
                    await asyncio.sleep(0)
    task = asyncio.create_task(stubborn())
    await task""",
}


@pytest.mark.parametrize("how", HANGING)
def test_hanging_test_fails_alone(how: str, tmp_path: Path) -> None:
    imports = "import asyncio, contextlib, time\nfrom tests.pacing.world import virtual\n"
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(f"{imports}\n{HANGING[how]}\n\n\ndef test_next():\n    pass\n")
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-n0"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "it hangs: ended after 2 s" in done.stdout, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout


RUNNING = """
import asyncio, subprocess, sys, tempfile, time
from pathlib import Path

from aiodbclient.sandbox import Sandbox
from tests.proc import FIRST_PORT
from tests.tenants.servers import RestartablePostgres


def test_it(tmp_path):
    RestartablePostgres()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with Sandbox() as sandbox:
        asyncio.run(sandbox.add_cluster("pg"))
        Path(tempfile.gettempdir(), f"ready-{FIRST_PORT}").touch()
        time.sleep(1000)
"""


def test_terminated_run_leaves_nothing(tmp_path: Path) -> None:
    """As when somebody stops `make test`, or CI cancels it. It also removes what an earlier, killed run left.

    Its servers take ports of the worker that runs this test, since other workers take ports meanwhile.
    """
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(RUNNING)
    options: list[str | Path] = [
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        tmp_path,
        "-p",
        "no:cacheprovider",
        "-n1",
        tmp_path,
    ]
    with tempfile.TemporaryDirectory(prefix="terminated-") as outer:
        Path(outer).chmod(0o1777)
        left = Path(outer) / f"aiodbclient-run-{2**22 + 1}-left"  # no process has this number
        left.joinpath("data").mkdir(parents=True)
        command: list[str | Path] = [sys.executable, "-m", "pytest", *options]
        with subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"TMPDIR": outer}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            wait_until(lambda: run.poll() is not None or list(Path(outer).glob(f"*/ready-{FIRST_PORT}")))
            wait_until(lambda: not left.exists())
            [folder] = Path(outer).iterdir()
            assert len(list(programs_of(folder))) > 4
            run.terminate()
        wait_until(lambda: not list(programs_of(folder)) and not folder.exists())


def run_live(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "DIGITALOCEAN"))}
    environment |= {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
    command = [sys.executable, "-m", "pytest", "tests/live", "--cluster", "mine", "-q", "-n", "0"]
    command += ["-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.thorough
def test_live_passes_on_postgres() -> None:
    with Sandbox() as sandbox:
        cluster_id = asyncio.run(sandbox.add_cluster("pg", "mine", server=postgres_with_tls()))
        done = run_live(sandbox)
        requests = len(sandbox.requests)
        assert asyncio.run(names_on(sandbox, cluster_id, "live-")) == []

    assert done.returncode == 0, done.stdout
    assert "16 passed" in done.stdout
    assert requests < 150


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["mongodb", "kafka", "opensearch"])
def test_live_passes_on_other_engines(engine: str) -> None:
    with Sandbox() as sandbox:
        asyncio.run(sandbox.add_cluster(engine, "mine"))
        done = run_live(sandbox)
    assert done.returncode == 0, done.stdout
    assert "skipped" in done.stdout


def test_live_fails_and_cleans_up() -> None:
    """Control: where the API differs, the test fails, and its user is deleted all the same."""

    def keep_password(request: RecordedRequest, answer: Answer) -> None:
        answer.body["user"]["password"] = "AVNS_always_the_same"

    with Sandbox() as sandbox:
        cluster_id = asyncio.run(sandbox.add_cluster("pg", "mine", backend="memory"))
        for operation in ("users.create", "users.reset_auth"):
            sandbox.faults.add(operation, change=keep_password)
        done = run_live(sandbox, "-k", "reset")
        assert asyncio.run(names_on(sandbox, cluster_id, "live-")) == []
    assert done.returncode == 1
    assert "1 failed" in done.stdout


@pytest.mark.parametrize(("cluster", "complaint"), [("", "name it with --cluster"), ("mine", "set DIGITALOCEAN_TOKEN")])
def test_live_needs_cluster_and_token(cluster: str, complaint: str) -> None:
    config: Any = SimpleNamespace(getoption={"--cluster": cluster}.get)

    with pytest.raises(pytest.UsageError, match=complaint):
        live.pytest_configure(config)


def test_suite_leaves_live_out(pytestconfig: pytest.Config) -> None:
    """``pytest tests`` enters the other folders."""
    ignores = pytestconfig.hook.pytest_ignore_collect

    assert (ROOT / "tests" / "live" / "test_cluster.py").exists()
    assert ignores(collection_path=ROOT / "tests" / "live", config=pytestconfig)
    assert not ignores(collection_path=ROOT / "tests" / "bulk", config=pytestconfig)
