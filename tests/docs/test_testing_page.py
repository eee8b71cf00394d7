"""The tests of the page about testing pass as printed, in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "testing.md").read_text()


@pytest.mark.thorough
def test_blocks_pass_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [settings] = re.findall(r"^```text\n(\[tool.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(settings)
    for number, block in enumerate(blocks):
        named = re.match(r"# (\w+\.py)\n", block)
        (tmp_path / (named[1] if named else f"test_{number}.py")).write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
