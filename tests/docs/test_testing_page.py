"""The tests of the page about testing and of the example project pass as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..proc import passed_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "testing.md").read_text()


@pytest.mark.thorough
def test_blocks_pass_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [settings] = re.findall(r"^```text\n(\[tool.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(settings)
    for number, block in enumerate(blocks):
        named = re.match(r"# (\w+\.py)\n", block)
        (tmp_path / (named[1] if named else f"test_{number}.py")).write_text(block)
    assert passed_in(tmp_path, "-p", "no:schemathesis")[0] == 5


@pytest.mark.thorough
def test_example_project_passes() -> None:
    project = ROOT / "examples" / "testing_your_app"
    tests = re.findall(r"^async def test_", (project / "test_signup_service.py").read_text(), re.MULTILINE)
    assert passed_in(project, "-p", "no:schemathesis")[0] == len(tests)
