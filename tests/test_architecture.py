"""The allowed imports between modules. The contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("importlinter.cli")

# In another process: it disables all existing loggers.
LINT_IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

PACKAGE = Path(__file__).parents[1] / "aiodbclient"
# Modules that do I/O. psycopg is missing, since its parser of connection strings does none.
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
}


def modules() -> dict[str, str]:
    """The texts of the package's modules, by full name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text()
    return found


MODULES = modules()
PACKAGES = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
PURE = [name for name, text in MODULES.items() if "Pure" in text.partition('"""')[2].partition('"""')[0]]


@cache  # each worker collects this file, and few of them need a tree
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name])


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module, without the code for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from running(node)


def imports(name: str) -> set[str]:
    """The full names of a module's imports. A name that a package re-exports counts as the module that defines it."""
    found: set[str] = set()
    for node in running(tree_of(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = source(name, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else passed_on(base, alias.name))
    return found


def source(name: str, node: ast.ImportFrom) -> str:
    package = name if name in PACKAGES else name.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def passed_on(base: str, name: str) -> str:
    """The module that defines ``name`` of the package ``base``, or ``base`` itself."""
    for node in ast.walk(tree_of(base)) if base in PACKAGES else ():
        if isinstance(node, ast.ImportFrom) and any(name == (alias.asname or alias.name) for alias in node.names):
            return passed_on(source(base, node), name)
    return base


def ways_to_io(name: str, imports_of: Callable[[str], set[str]] = imports) -> list[str]:
    """The import chains from a module to a module that does I/O, the shortest first."""
    ways, seen = list[str](), {name}
    queue: list[tuple[str, ...]] = [(name,)]
    while queue:
        way = queue.pop(0)
        for imported in sorted(imports_of(way[-1])):
            if any(imported == io or imported.startswith(f"{io}.") for io in INPUT_AND_OUTPUT):
                ways.append(" -> ".join((*way, imported)))
            elif imported in MODULES and imported not in seen:
                seen.add(imported)
                queue.append((*way, imported))
    return ways


def test_imports_go_down_and_in_no_circle() -> None:
    root = Path(__file__).parents[1]

    linted = subprocess.run([sys.executable, "-c", LINT_IMPORTS], cwd=root, capture_output=True, text=True, timeout=120)

    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("name", PURE)
def test_pure_module_reaches_no_io(name: str) -> None:
    """A module whose docstring says "Pure" neither waits nor imports what does I/O."""
    tree = list(ast.walk(tree_of(name)))

    assert not ways_to_io(name)
    assert not [node.lineno for node in tree if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    assert not [node.lineno for node in tree if isinstance(node, ast.Call) and ast.unparse(node.func) == "open"]


def test_io_through_two_modules_is_found() -> None:
    assert ways_to_io("aiodbclient._http.transport")[0].endswith("aiohttp")
    assert "aiodbclient._pacing.windows" in imports("aiodbclient._pacing.limiter")  # a relative import
    chain = {"aiodbclient.errors": {"aiodbclient.models"}, "aiodbclient.models": {"aiodbclient.engines"}}
    chain["aiodbclient.engines"] = {"aiohttp.web"}

    (way,) = ways_to_io("aiodbclient.errors", lambda name: chain[name])

    assert way == "aiodbclient.errors -> aiodbclient.models -> aiodbclient.engines -> aiohttp.web"


def test_core_names_no_tenants() -> None:
    """The client stands alone: what is made of it elsewhere is named elsewhere."""
    above = ("aiodbclient.tenants", "aiodbclient._cli", "aiodbclient.sandbox", "aiodbclient._pytest_plugin")
    core = {name: text for name, text in MODULES.items() if not name.startswith(above)}

    assert len(core) > 30
    assert [name for name, text in core.items() if "tenant" in text.lower()] == []


def test_nearly_half_of_the_path_is_pure() -> None:
    folders = ("aiodbclient._http", "aiodbclient._pacing")
    of_requests = {name for name in MODULES if name.rpartition(".")[0] in folders and name not in PACKAGES}
    of_requests |= {"aiodbclient._headers", "aiodbclient._json", "aiodbclient._masking"}

    # By lines, since two pure modules that become one leave as much pure code. The rest has to wait or to send.
    lines = {name: len(ast.unparse(tree_of(name)).splitlines()) for name in of_requests}
    assert sum(lines[name] for name in of_requests.intersection(PURE)) > sum(lines.values()) * 0.43
