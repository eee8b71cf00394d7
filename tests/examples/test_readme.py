"""The README: each block of code runs, and what it says of the tables, the errors and pydo is so."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pydo.aio
import pytest

import aiodbclient
from aiodbclient import DatabaseClient, errors
from aiodbclient._request.retry import RULES, Then
from aiodbclient.sandbox import Sandbox

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
TESTS = [block for block in BLOCKS if "def test_" in block]
PROGRAMS = [block for block in BLOCKS if "asyncio.run(" in block]
APPS = [block for block in BLOCKS if "FastAPI(" in block]
SNIPPETS = [block for block in BLOCKS if block not in (*TESTS, *PROGRAMS, *APPS)]


@pytest.fixture
async def cluster_id(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster that the environment names, at which every client of the README ends up."""

    class OnTheSandbox(DatabaseClient):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"base_url": sandbox.url, **options})

    cluster_id = await sandbox.add_cluster("pg", backend="memory")
    monkeypatch.setattr(aiodbclient, "DatabaseClient", OnTheSandbox)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", sandbox.token)
    monkeypatch.setenv("DIGITALOCEAN_CLUSTER_ID", cluster_id)
    return cluster_id


@pytest.fixture
async def namespace(cluster_id: str) -> AsyncIterator[dict[str, Any]]:
    async with aiodbclient.DatabaseClient() as client:
        cluster = client.cluster(cluster_id)
        yield {"client": client, "cluster": cluster, "cluster_id": cluster_id, "DatabaseClient": type(client)}


def test_all_kinds_of_blocks_are_there() -> None:
    assert [len(kind) for kind in (TESTS, PROGRAMS, APPS)] == [1, 1, 1]
    assert len(SNIPPETS) > 4


async def test_the_program_runs(cluster_id: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    [program] = PROGRAMS

    await asyncio.to_thread(exec, program, {"__name__": "__main__"})

    assert sorted(capsys.readouterr().out.splitlines()) == [
        f"{name} created None" for name in ("beta", "delta", "gamma")
    ]
    assert sandbox.counts["users.create", 201] == 4


@pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: block.splitlines()[0])
async def test_a_snippet_runs(block: str, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    running = eval(compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
    if inspect.isawaitable(running):
        await running

    # What a comment says that a line prints, it prints.
    told = capsys.readouterr().out
    for said in re.findall(r"print\(\w+\)  # (.*)", block):
        assert said in told
    assert "failed" not in told


async def test_the_app_signs_up(cluster_id: str, sandbox: Sandbox) -> None:
    from fastapi import FastAPI

    from .test_web_apps import serve_asgi

    [block] = APPS
    # A module, since FastAPI looks a function's annotations up where it was defined.
    app: dict[str, Any] = {"__name__": "app"}
    exec(block, app)
    assert isinstance(app["app"], FastAPI)
    async with (
        serve_asgi(app["app"]) as url,
        aiohttp.ClientSession(url) as http,
        http.post("/signup/alpha") as answer,
    ):
        assert (answer.status, await answer.json()) == (201, {"user": "tenant_alpha"})
    assert sandbox.counts["dbs.create", 201] == sandbox.counts["users.create", 201] == 1


def test_the_test_passes(tmp_path: Path) -> None:
    [block] = TESTS
    (tmp_path / "test_signup.py").write_text(block)
    options = ["-p", "no:cacheprovider", "-p", "no:schemathesis", "-o", "asyncio_mode=auto"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_table_of_retries_is_the_rule() -> None:
    says = {Then.RETRY: "retry", Then.RETRY_GONE_IS_DONE: "retry, gone is done", Then.RAISE: "raise"}
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in README.splitlines() if row.startswith("| ")]
    start = rows.index(["", "read", "update", "delete", "reset_auth", "create"])
    table = [row[1:] for row in rows[start + 2 : start + 2 + len(RULES)]]
    assert table == [[says[then] for then in row.values()] for row in RULES.values()]


def test_the_tree_of_errors_is_whole() -> None:
    [tree] = re.findall(r"^```\n(DatabaseClientError.*?)^```", README, re.MULTILINE | re.DOTALL)
    above: list[type[BaseException]] = []
    named: set[str] = set()
    for line in tree.splitlines():
        name = re.sub(r"^[│├└─ ]*", "", line).split()[0]
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 3
        error_type = getattr(errors, name)
        assert depth == 0 or above[depth - 1] in error_type.__bases__
        del above[depth:]
        above.append(error_type)
        named.add(name)
    assert named == {name for name, value in vars(errors).items() if inspect.isclass(value)}


async def test_pydo_does_as_the_readme_says(sandbox: Sandbox) -> None:
    assert "a 404 comes back as if it were the result" in " ".join(README.split())
    pg = await sandbox.add_cluster("pg", backend="memory")
    redis = await sandbox.add_cluster("redis")
    http = {"enforce_https": False}
    async with pydo.aio.Client(sandbox.token, endpoint=sandbox.url) as client:
        api: Any = client.databases
        assert (await api.get_user(pg, "nobody", **http))["id"] == "not_found"
        for call in (api.add_user(redis, {"name": "alpha"}, **http), api.delete_user(pg, "..", **http)):
            with pytest.raises(Exception, match=r"not supported|not allowed"):
                await call
    assert [(request.method, request.path) for request in sandbox.requests[1:]] == [
        ("POST", f"/v2/databases/{redis}/users"),
        ("DELETE", f"/v2/databases/{pg}/"),
    ]
