"""A run of the tests that is terminated leaves no program and no file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .run_folder import programs_of
from .waiting import wait_until

ROOT = Path(__file__).parents[1]
RUNNING = """
import asyncio, subprocess, sys, tempfile, time
from pathlib import Path

from aiodbclient.sandbox import Sandbox
from tests.tenants.servers import RestartablePostgres


def test_it(tmp_path):
    RestartablePostgres()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with Sandbox() as sandbox:
        asyncio.run(sandbox.add_cluster("pg"))
        Path(tempfile.gettempdir(), "ready").touch()
        time.sleep(1000)
"""


def test_terminated_run_leaves_nothing(tmp_path: Path) -> None:
    """As when somebody stops `make test`, or CI cancels it."""
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
        command: list[str | Path] = [sys.executable, "-m", "pytest", *options]
        with subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"TMPDIR": outer}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            wait_until(lambda: run.poll() is not None or list(Path(outer).glob("*/ready")))
            [folder] = Path(outer).iterdir()
            assert len(list(programs_of(folder))) > 4
            run.terminate()
        wait_until(lambda: not list(programs_of(folder)) and not folder.exists())
