"""Each place that architecture.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing" / "architecture.md").read_text()
PLACES = re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)


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


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_a_place_that_the_page_names_is_there(path: str, name: str) -> None:
    body = ast.parse((ROOT / "aiodbclient" / path).read_text()).body
    for part in name.split("."):
        node = names_in(body)[part]
        body = node.body if isinstance(node, ast.ClassDef) else []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_module_is_there(path: str) -> None:
    assert any((folder / path).is_file() for folder in (ROOT / "aiodbclient", ROOT))
