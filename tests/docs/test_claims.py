"""The statements of the pages about errors, problems, engines, the provider and pydo are true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pydo.aio
import pytest

from aiodbclient import Capabilities, RateLimiter, errors
from aiodbclient.engines import CAPABILITIES
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox, _provider
from aiodbclient.tenants import ProblemKind
from aiodbclient.tenants import errors as tenant_errors

DOCS = Path(__file__).parents[2] / "docs"
PROVIDER = (DOCS / "why" / "provider.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w-]+)` \| (.+?) \|", PROVIDER, re.MULTILINE))


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


def test_untried_assumptions_have_rows() -> None:
    """Each assumption that neither doctor nor the live tests try is in a table."""
    [untried] = re.findall(r"neither command tests them: (.+?)\.\n", PROVIDER, re.DOTALL)
    named = {*re.findall(r"`([\w-]+)`", untried)}
    assert named
    assert named <= ROWS.keys()
    assert len(ROWS) > 20


def test_windows_are_the_clients() -> None:
    """The rate limit of the page is the client's default."""
    minute, hour = (int(each.replace(",", "")) for each in re.findall(r"[\d,]{3,}", ROWS["windows"]))
    assert RateLimiter().windows == (Window(minute, 60.0), Window(hour, 3600.0))
    assert f"{hour:,} an hour" in PROVIDER


def test_roles_are_the_sandboxes() -> None:
    """The sandbox creates the provider's roles that the page names, and no other."""
    made = {*_provider.SYSTEM_ROLES, *re.findall(r"CREATE ROLE (_?\w+)", _provider.make_primary(18)[0])}
    assert made == {*re.findall(r"`(_\w+|doadmin_group)`", PROVIDER)}


def test_mysql_rights_are_the_sandboxes() -> None:
    """The administrator of MySQL has the dynamic rights that the page names, and reads the schemas that it names."""
    [rights] = re.findall(r"has many rights on .+?\(twin", PROVIDER, re.DOTALL)
    assert all(right in rights for right in _provider.MYSQL_DYNAMIC_RIGHTS.split(", "))
    assert all(f"`{schema}`" in rights for schema in _provider.MYSQL_GUARDED)
