"""The statements, tables, messages, commands and names of the pages are true."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pydo.aio
import pytest

from aiodbclient import Capabilities, RateLimiter, errors
from aiodbclient.engines import CAPABILITIES
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._backends import provider
from aiodbclient.tenants import ProblemKind, TenantState
from aiodbclient.tenants import errors as tenant_errors

from ..cli.conftest import Command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
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


def test_the_table_of_states_is_whole() -> None:
    page = (DOCS / "how-to" / "operate.md").read_text()
    states = {*map(str, TenantState)} - {TenantState.ABSENT}  # without a record, there is nothing to list
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(states)


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


def test_windows_are_the_clients() -> None:
    """The rate limit of the page is the client's default."""
    minute, hour = (int(each.replace(",", "")) for each in re.findall(r"[\d,]{3,}", ROWS["windows"]))
    assert RateLimiter().windows == (Window(minute, 60.0), Window(hour, 3600.0))
    assert f"{hour:,} an hour" in PROVIDER


def test_roles_are_the_sandboxes() -> None:
    """The sandbox creates the provider's roles that the page names, and no other."""
    made = {*provider.SYSTEM_ROLES, *re.findall(r"CREATE ROLE (_?\w+)", provider.create_primary(18)[0])}
    assert made == {*re.findall(r"`(_\w+|doadmin_group)`", PROVIDER)}


def test_mysql_rights_are_the_sandboxes() -> None:
    """The administrator of MySQL has the dynamic rights that the page names, and reads the schemas that it names."""
    [rights] = re.findall(r"has many rights on .+?\(twin", PROVIDER, re.DOTALL)
    assert all(right in rights for right in provider.MYSQL_DYNAMIC_RIGHTS.split(", "))
    assert all(f"`{schema}`" in rights for schema in provider.MYSQL_READ_ONLY_SCHEMAS)


PAGE = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text()
MESSAGES = "; ".join(re.findall(r"^### (.+)$", PAGE, re.MULTILINE)).split("; ")
# Messages of PostgreSQL, MySQL, OpenSSL, the C library and aiohttp.
OF_OTHERS = {
    "412: the cluster is not online",
    "Access denied for user",
    "CERTIFICATE_VERIFY_FAILED",
    "Cannot connect to host",
    "Connection refused",
    "Lock wait timeout exceeded",
    "Name or service not known",
    "No space left on device",
    "certificate verify failed",
    "connection timeout expired",
    "database is locked",
    "has exceeded the 'max_user_connections' resource",
    "password authentication failed for user",
    "permission denied for database",
    "permission denied for schema",
    "remaining connection slots are reserved",
    "server version mismatch",
    "sorry, too many clients already",
    "terminating connection due to administrator command",
    "too many connections for role",
}
PLAIN = re.compile(r"(aiodbclient [\w. -]+\n)+")  # commands without anything for the shell


@cache
def texts() -> list[str]:
    """Each string in the code, without its placeholders."""
    found = list[str]()
    for path in (ROOT / "aiodbclient").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "\0"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_of_the_code(message: str) -> None:
    assert message in OF_OTHERS or any(message in text for text in texts())


@pytest.mark.thorough
@pytest.mark.usefixtures("_aiodbclient_servers")
@pytest.mark.parametrize(("page", "least"), [("troubleshooting", 9), ("production", 3)])
def test_commands_of_page_run(page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    commands = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(commands) >= least
    with Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("pg", "tenants-prod", backend="postgres"))
        place = {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = Command(sandbox, "tenants-prod", tmp_path, os.environ | place | {"PATH": path}, before=0)
        made = "aiodbclient tenants provision alpha beta --cluster tenants-prod --store tenants.db\n"
        for block in [made, *commands] if page == "troubleshooting" else commands:
            if PLAIN.fullmatch(block):  # in this process, which is fast
                for line in block.splitlines():
                    ran = command(*shlex.split(line)[1:])
                    assert ran.code == 0, (line, ran.err)
                continue
            script = ["bash", "-euc", f"{block}\nenv -0 > exported"]
            done = subprocess.run(script, env=command.environment, capture_output=True, text=True)
            assert done.returncode == 0, (block, done.stderr)
            command.environment = dict(each.split("=", 1) for each in Path("exported").read_text().split("\0")[:-1])


ARCHITECTURE = (ROOT / "docs" / "contributing" / "architecture.md").read_text()
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
    places = re.findall(r"`([\w/]+\.py):([\w.]+)`", ARCHITECTURE)
    assert len(places) > 20
    assert [place for place in places if place[1] not in names_in(ROOT / "aiodbclient" / place[0])] == []
    files = re.findall(r"`([\w/]+\.py)`", ARCHITECTURE)
    assert [file for file in files if not any((at / file).is_file() for at in (ROOT / "aiodbclient", ROOT))] == []


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
