"""Which module may import which: the contracts stand in pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("importlinter.cli")

# Not in this process, where it would silence all loggers that there are.
LINT_IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

PACKAGE = Path(__file__).parents[1] / "aiodbclient"
# What does I/O. psycopg is not here, since its parser of connection strings does none.
INPUT_AND_OUTPUT = {
    "aiohttp",
    "aiomysql",
    "http.client",
    "multiprocessing",
    "pymysql",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "valkey",
}


def pure_modules() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "Pure" in (ast.get_docstring(ast.parse(path.read_text())) or ""):
            yield path


def test_imports_go_down_and_in_no_circle() -> None:
    root = Path(__file__).parents[1]

    linted = subprocess.run([sys.executable, "-c", LINT_IMPORTS], cwd=root, capture_output=True, text=True, timeout=120)

    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in pure_modules()])
def test_a_module_that_says_that_it_is_pure_neither_waits_nor_imports_what_does_io(path: Path) -> None:
    tree = list(ast.walk(ast.parse(path.read_text())))

    imported = {name.name for node in tree if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in tree if isinstance(node, ast.ImportFrom) and node.level == 0}
    assert not imported & INPUT_AND_OUTPUT
    assert not [node.lineno for node in tree if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    assert not [node.lineno for node in tree if isinstance(node, ast.Call) and ast.unparse(node.func) == "open"]


def test_most_of_the_modules_that_requests_go_through_are_pure() -> None:
    of_requests = {path for folder in ("_request", "_json", "_pacing") for path in (PACKAGE / folder).glob("[a-z]*.py")}

    assert len(of_requests.intersection(pure_modules())) > len(of_requests) / 2
