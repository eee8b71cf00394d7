"""What a reader of the code relies on: pure modules do no I/O, and a call is one short path.

The allowed imports are contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from aiodbclient import RateLimiter

from .call_path import path_of
from .conftest import MakeCluster
from .server import Server, returns_the_user, says

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
    graph.add_import(importer="aiodbclient.engines", imported="aiohttp")
    assert graph.find_shortest_chain("aiodbclient.models", "aiohttp")[-2:] == ("aiodbclient.engines", "aiohttp")


async def test_create_is_a_short_path(server: Server, make_cluster: MakeCluster) -> None:
    """The control: a first call, which reads the engine, runs more functions."""
    server.otherwise = returns_the_user()
    users = make_cluster(rate_limiter=RateLimiter()).users
    await users.create("warm")

    functions, files = await path_of(users.create("alice"))
    assert len(functions) <= 32
    assert len(files) <= 10

    server.will(says(200, {"database": {"engine": "pg"}}))
    functions, _ = await path_of(make_cluster(rate_limiter=RateLimiter(), engine=None).users.create("bob"))
    assert len(functions) > 32
