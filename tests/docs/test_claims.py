"""The statements of the pages about tables, errors, engines and pydo are true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pydo.aio
import pytest

from aiodbclient import Capabilities, errors
from aiodbclient.engines import CAPABILITIES
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import ProblemKind
from aiodbclient.tenants import errors as tenant_errors

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_errors_has_each_once() -> None:
    page = (DOCS / "how-to" / "errors.md").read_text().partition("its message says what to do:")[2]
    named = re.findall(r"`(\w+Error)`", page)
    classes = {
        name for module in (errors, tenant_errors) for name, value in vars(module).items() if inspect.isclass(value)
    }
    assert sorted([*named, "DatabaseClientError"]) == sorted(classes)


def test_the_table_of_problems_is_whole() -> None:
    page = (DOCS / "how-to" / "troubleshooting.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(map(str, ProblemKind))


def test_the_table_of_engines_is_the_guards() -> None:
    def yes(can: bool) -> str:
        return "yes" if can else "no"

    def row(capabilities: Capabilities) -> list[str]:
        settings = ", ".join(f"`{setting}`" for setting in sorted(capabilities.user_settings)) or "none"
        writes = str(capabilities.concurrent_user_writes) if capabilities.users else ""
        return [yes(capabilities.users), yes(capabilities.dbs), settings, writes]

    rows = [line for line in (DOCS / "how-to" / "users-and-dbs.md").read_text().splitlines() if line.startswith("| `")]
    documented = {}
    for line in rows:
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        documented.update(dict.fromkeys(re.findall(r"`(\w+)`", first), rest))

    assert documented == {str(engine): row(capabilities) for engine, capabilities in CAPABILITIES.items()}


async def test_pydo_does_as_the_page_says(sandbox: Sandbox) -> None:
    page = (DOCS / "compared.md").read_text()
    assert "It returns a 404 as if it were the result" in " ".join(page.split())
    pg = await sandbox.add_cluster("pg", backend="memory")
    redis = await sandbox.add_cluster("redis")
    http = {"enforce_https": False}
    before = len(sandbox.requests)
    async with pydo.aio.Client(sandbox.token, endpoint=sandbox.url, retry_backoff_factor=0) as client:
        api: Any = client.databases
        assert (await api.get_user(pg, "nobody", **http))["id"] == "not_found"
        for call in (api.add_user(redis, {"name": "alpha"}, **http), api.delete_user(pg, "..", **http)):
            with pytest.raises(Exception, match=r"not supported|not allowed"):
                await call
        sandbox.faults.add("users.list", status=429)
        with pytest.raises(Exception, match="Too Many Requests"):
            await api.list_users(pg, **http)
    assert [(request.method, request.path) for request in list(sandbox.requests)[before + 1 :]] == [
        ("POST", f"/v2/databases/{redis}/users"),
        ("DELETE", f"/v2/databases/{pg}/"),
        *[("GET", f"/v2/databases/{pg}/users")] * 4,
    ]
