"""What ``make mutants`` changes and runs is there."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from .docs.test_architecture_page import names_in

ROOT = Path(__file__).parents[1]
SELECTED = (ROOT / "tests" / "mutants.txt").read_text().splitlines()
CHANGED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]


@pytest.mark.parametrize("selected", SELECTED)
def test_a_test_for_mutants_is_there(selected: str) -> None:
    file, *names = selected.removeprefix("--deselect=").partition("[")[0].split("::")

    body = ast.parse((ROOT / file).read_text()).body

    for name in names:
        node = names_in(body)[name]
        body = node.body if isinstance(node, ast.ClassDef) else []


@pytest.mark.parametrize("changed", CHANGED)
def test_a_module_for_mutants_is_there(changed: str) -> None:
    assert list(ROOT.glob(changed))
