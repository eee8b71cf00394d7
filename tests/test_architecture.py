"""The allowed imports between modules. The contracts are in pyproject.toml."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

grimp = pytest.importorskip("grimp")


ROOT = Path(__file__).parents[1]
# Modules that do I/O. psycopg is missing, since its parser of connection strings does none.
INPUT_AND_OUTPUT = {
    "aiohttp",
    "aiomysql",
    "multiprocessing",
    "pymysql",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
}
# The texts of the package's modules, by full name.
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
    for path in sorted((ROOT / "aiodbclient").rglob("*.py"))
}
ABOVE_CORE = ("aiodbclient.tenants", "aiodbclient._cli", "aiodbclient.sandbox", "aiodbclient._pytest_plugin")
PURE = [name for name, text in MODULES.items() if "Pure" in text.partition('"""')[2].partition('"""')[0]]


def test_pure_modules_reach_no_io() -> None:
    """A module whose docstring says "Pure" neither waits nor imports what does I/O, nor what imports that."""
    graph = grimp.build_graph(
        "aiodbclient", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    to_io = INPUT_AND_OUTPUT & graph.modules

    assert len(PURE) > 20
    for name in PURE:
        tree = list(ast.walk(ast.parse(MODULES[name])))
        assert [graph.find_shortest_chain(name, io) for io in to_io if graph.chain_exists(name, io)] == []
        assert not [node.lineno for node in tree if isinstance(node, ast.AsyncFunctionDef | ast.Await)], name
        calls = [ast.unparse(node.func) for node in tree if isinstance(node, ast.Call)]
        assert "open" not in calls
        assert "http.client" not in MODULES[name]  # of the graph it is a part of ``http``, which has the statuses
    # The control: through two modules.
    assert graph.find_shortest_chain("aiodbclient.client", "aiohttp") is not None
    graph.add_import(importer="aiodbclient.engines", imported="aiohttp")
    assert graph.find_shortest_chain("aiodbclient.models", "aiohttp")[-2:] == ("aiodbclient.engines", "aiohttp")


def circles(graph: Any) -> list[tuple[str, ...]]:
    """Return the imports between modules of the core that lead back to their importer, also for types alone."""
    core = [name for name in graph.modules if not name.startswith(ABOVE_CORE)]
    imports = [(name, other) for name in core for other in graph.find_modules_directly_imported_by(name)]
    back = (graph.find_shortest_chain(other, name) for name, other in imports if other in core)
    return [chain for chain in back if chain is not None]


def test_core_has_no_circle_of_imports() -> None:
    """Not even one for types alone."""
    graph = grimp.build_graph("aiodbclient", cache_dir=None)
    for public in graph.find_modules_directly_imported_by("aiodbclient"):  # for type checkers
        graph.remove_import(importer="aiodbclient", imported=public)

    assert circles(graph) == []
    # The control: one import upwards.
    graph.add_import(importer="aiodbclient._bulk.jobs", imported="aiodbclient.users")
    assert ("aiodbclient.users", "aiodbclient._bulk.jobs") in circles(graph)
