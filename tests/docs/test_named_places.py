"""Each place exists that architecture.md, the settings of ``make mutants``, and the tables of attacks name."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing" / "architecture.md").read_text()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@cache
def names_in(file: Path) -> set[str]:
    """The definitions in a file, also those in its classes: ``Class.method``."""
    found = set[str]()

    def note(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.ClassDef(name=name, body=inner):
                    found.add(prefix + name)
                    note(inner, f"{prefix}{name}.")
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(prefix + name)
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(prefix + name)
                case _:
                    pass

    note(ast.parse(file.read_text()).body, "")
    return found


def test_architecture_names_what_is_there() -> None:
    places = re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)
    assert len(places) > 20
    assert [place for place in places if place[1] not in names_in(ROOT / "aiodbclient" / place[0])] == []
    files = re.findall(r"`([\w/]+\.py)`", PAGE)
    assert [file for file in files if not any((at / file).is_file() for at in (ROOT / "aiodbclient", ROOT))] == []


def test_settings_of_mutants_name_what_is_there() -> None:
    selected = [line.removeprefix("--deselect=") for line in (ROOT / "tests" / "mutants.txt").read_text().splitlines()]
    tests = [line.partition("[")[0].partition("::") for line in selected]
    assert [name for file, _, name in tests if name and name.replace("::", ".") not in names_in(ROOT / file)] == []
    assert [file for file, _, _ in tests if not (ROOT / file).is_file()] == []
    assert [pattern for pattern in SETTINGS["only_mutate"] if not list(ROOT.glob(pattern))] == []


def rows_of(text: str) -> list[list[str]]:
    """The rows of the tables in ``text``, without their titles."""
    lines = [line for line in text.splitlines() if line[:2] == "| " and line[:5] != "| ---"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] not in ("engine", "who")]


def test_each_attack_of_the_page_has_a_test() -> None:
    """The list of the tests begins with the rows of the page, in their order, and each row names a test."""
    shown = rows_of((ROOT / "docs" / "security.md").read_text())
    by_engine = (ROOT / "tests" / "tenants" / "README.md").read_text()
    listed = {
        title.removesuffix(" engines"): rows_of(body)
        for title, _, body in (section.partition("\n") for section in by_engine.split("\n## ")[1:])
    }
    assert {engine for engine, *_ in shown} == listed.keys() == {"Both", "PostgreSQL", "MySQL"}
    for engine, rows in listed.items():
        tried = [what for of, what, _ in shown if of == engine and what != "use up CPU, memory and disk"]
        assert len(tried) > 1
        assert [what for _, what, _ in rows][: len(tried)] == tried
        assert [row for row in rows if "test_" not in row[2]] == []
    named = re.findall(r"`(test_\w+)`", by_engine + (ROOT / "tests" / "README.md").read_text())
    assert [name for name in named if f"def {name}(" not in TESTS] == []
