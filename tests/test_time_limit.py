"""A test that hangs fails, and the next one runs."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = """
from tests import time_limit
from tests.time_limit import pytest_runtest_call  # not the set-up, which may take longer

time_limit.SECONDS, time_limit.AGAIN = 2.0, 0.2
"""
HANGING = {
    "sleeps": "def test_it():\n    time.sleep(1000)",
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
    done = run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "it hangs: ended after 2 s" in done.stdout, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
