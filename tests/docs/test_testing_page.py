"""The tests of the page about testing and of the example project pass as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "testing.md").read_text()


def passed_in(folder: Path) -> int:
    """Run the tests of a project. Return how many passed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [passed] = re.findall(r"(\d+) passed", done.stdout)
    return int(passed)


@pytest.mark.thorough
def test_blocks_pass_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [settings] = re.findall(r"^```text\n(\[tool.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(settings)
    for number, block in enumerate(blocks):
        named = re.match(r"# (\w+\.py)\n", block)
        (tmp_path / (named[1] if named else f"test_{number}.py")).write_text(block)
    assert passed_in(tmp_path) == 5


@pytest.mark.thorough
def test_example_project_passes() -> None:
    project = ROOT / "examples" / "testing_your_app"
    tests = re.findall(r"^async def test_", (project / "test_signup_service.py").read_text(), re.MULTILINE)
    assert passed_in(project) == len(tests)
