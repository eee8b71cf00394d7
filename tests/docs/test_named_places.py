"""Each place that architecture.md and the settings of ``make mutants`` name exists."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing" / "architecture.md").read_text()
PLACES = re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)
FOR_MUTANTS = (ROOT / "tests" / "mutants.txt").read_text().splitlines()
MUTATED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The definitions in ``body``, by name."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case _:
                pass
    return found


def test_the_page_names_places() -> None:
    assert len(PLACES) > 20


def assert_there(file: Path, names: list[str]) -> None:
    body = ast.parse(file.read_text()).body
    for name in names:
        node = names_in(body)[name]
        body = node.body if isinstance(node, ast.ClassDef) else []


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_a_place_that_the_page_names_is_there(path: str, name: str) -> None:
    assert_there(ROOT / "aiodbclient" / path, name.split("."))


@pytest.mark.parametrize("selected", FOR_MUTANTS)
def test_a_test_for_mutants_is_there(selected: str) -> None:
    file, *names = selected.removeprefix("--deselect=").partition("[")[0].split("::")
    assert_there(ROOT / file, names)


@pytest.mark.parametrize("mutated", MUTATED)
def test_a_module_for_mutants_is_there(mutated: str) -> None:
    assert list(ROOT.glob(mutated))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_module_is_there(path: str) -> None:
    assert any((folder / path).is_file() for folder in (ROOT / "aiodbclient", ROOT))
