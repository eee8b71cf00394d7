"""The tests of the page about testing and of the example project pass as printed."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, create_autospec

import pytest

from aiodbclient import Cluster, ClustersAPI, DatabaseClient, DatabasesAPI, UsersAPI
from aiodbclient.tenants import Tenants

from ..proc import passed_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "testing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[SETTINGS] = re.findall(r"^```text\n(\[tool.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.thorough
def test_blocks_pass_as_printed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    for number, block in enumerate(BLOCKS):
        named = re.match(r"# (\w+\.py)\n", block)
        (tmp_path / (named[1] if named else f"test_{number}.py")).write_text(block)
    assert passed_in(tmp_path, "-p", "no:schemathesis")[0] == 8


def test_mocks_pass_as_printed(tmp_path: Path) -> None:
    """What people call can be patched and autospecced."""
    [block] = [block for block in BLOCKS if "create_autospec" in block]
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "test_mocks.py").write_text(block)
    assert passed_in(tmp_path, "-p", "no:schemathesis")[0] == 3


@pytest.mark.parametrize("api", [DatabaseClient, ClustersAPI, Cluster, UsersAPI, DatabasesAPI, Tenants])
def test_methods_can_be_replaced(api: type) -> None:
    """On an instance, and in an autospec, whose async methods are async."""
    made: Any = object.__new__(api)
    mock = create_autospec(api, instance=True)

    for name, method in vars(api).items():
        if inspect.iscoroutinefunction(method) and not name.startswith("_"):
            setattr(made, name, AsyncMock())
            assert inspect.iscoroutinefunction(getattr(mock, name)), name


@pytest.mark.thorough
def test_example_project_passes() -> None:
    project = ROOT / "examples" / "testing_your_app"
    tests = re.findall(r"^async def test_", (project / "test_signup_service.py").read_text(), re.MULTILINE)
    assert passed_in(project, "-p", "no:schemathesis")[0] == len(tests)
