"""``examples/many_processes.py``: processes with a part of the limit each meet no 429."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "many_processes.py"


def run(folder: Path, share: str, users: int) -> subprocess.CompletedProcess[str]:
    """Run the example with two processes that use this share of the limit each."""
    program = folder / "many_processes.py"
    source = EXAMPLE.read_text().replace("PROCESSES = 4", "PROCESSES = 2")
    program.write_text(source.replace("share=1 / PROCESSES", f"share={share}"))
    return subprocess.run([sys.executable, program, "--users", str(users)], capture_output=True, text=True)


def test_shares_meet_no_429(tmp_path: Path) -> None:
    """The processes create their parts, each user once, and the API answers no 429."""
    done = run(tmp_path, "1 / PROCESSES", 60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "users.create 201: 60" in done.stdout
    assert "429" not in done.stdout


@pytest.mark.thorough
def test_whole_limit_each_meets_429s(tmp_path: Path) -> None:
    """The control: two processes that use the whole limit each send more than the API accepts."""
    done = run(tmp_path, "1.0", 240)  # seconds of work for each, so that they overlap
    assert done.returncode == 1, done.stdout + done.stderr
    assert "users.create 201: 240" in done.stdout
    assert "users.create 429: " in done.stdout
