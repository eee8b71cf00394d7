"""Each place exists that architecture.md, the settings of ``make mutants``, and the tables of attacks name."""

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


SECURITY = (ROOT / "docs" / "security.md").read_text()
LIST = (ROOT / "tests" / "tenants" / "README.md").read_text()
CONTROLS = (ROOT / "tests" / "README.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+)`", LIST + CONTROLS)))
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
NEED_NONE = {"use up CPU, memory and disk"}


def rows_of(text: str) -> list[list[str]]:
    """The rows of the tables in ``text``, without their titles."""
    lines = [line for line in text.splitlines() if line[:2] == "| " and line[:5] != "| ---"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] not in ("engine", "who")]


SHOWN = rows_of(SECURITY)
SECTIONS = [section.partition("\n") for section in LIST.split("\n## ")[1:]]
LISTED = {title.removesuffix(" engines"): rows_of(body) for title, _, body in SECTIONS}


def test_each_row_of_the_page_has_a_test() -> None:
    assert {engine for engine, *_ in SHOWN} == LISTED.keys() == {"Both", "PostgreSQL", "MySQL"}
    for engine, rows in LISTED.items():
        tried = [what for of, what, _ in SHOWN if of == engine and what not in NEED_NONE]
        assert len(tried) > 1
        assert [what for _, what, _ in rows][: len(tried)] == tried


def test_each_row_of_the_list_names_a_test() -> None:
    rows = [row for rows in LISTED.values() for row in rows]
    assert len(rows) > 35
    assert [row for row in rows if "test_" not in row[2]] == []


def test_the_page_has_only_what_is_not_refused() -> None:
    assert [row for row in SHOWN if row[2].startswith("refused")] == []


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_list_names_is_there(name: str) -> None:
    assert f"def {name}(" in TESTS
