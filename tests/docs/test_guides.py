"""Each Python block on the site runs, and prints what its comments show.

The blocks of a page run one after the other from its top, as if typed into ``python -m asyncio``. Nothing is defined
before. What is around the program (a token, a cluster, a Vault) comes from the fixtures in conftest.
"""

from __future__ import annotations

import ast
import asyncio
import codeop
import inspect
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from psycopg import AsyncConnection

from aiodbclient import DatabaseClient
from aiodbclient._http.call import Call, Options
from aiodbclient._http.operations import (
    CREATE_DB,
    CREATE_USER,
    DELETE_USER,
    GET_USER,
    RESET_AUTH,
    UPDATE_USER,
    Operation,
)
from aiodbclient._http.retry import LOST_STATUSES, Failure, why_not_retried
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore, Tenants
from aiodbclient.tenants.errors import StoreError, SuspendedError
from vault_store import VaultStore, from_url

from ..tenants.store_contract import LONG, keep
from ..tenants.vault import Vault
from .conftest import Namespace

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SNIPPET = re.compile(r"^\[.+\]\((\.\./snippets/\w+\.md)\)$", re.MULTILINE)


def text_of(page: Path) -> str:
    """The text of a page with its snippets, which the site shows in a box that can be opened."""
    return SNIPPET.sub(lambda link: (page.parent / link[1]).read_text(), page.read_text())


PAGES = {
    page.relative_to(DOCS).as_posix(): text_of(page)
    for page in sorted(DOCS.rglob("*.md"))
    if page.parent.name != "snippets"
}
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r"^\[.+\]\((?:\.\./)+(examples/\w+\.py)\)$", re.MULTILINE)
# The fixture that a page needs besides the common names.
NEEDS = {
    "how-to/connect.md": "drivers",
    "how-to/move.md": "another_cluster",
    "how-to/observe.md": "as_it_was",
    "how-to/pools.md": "drivers",
    "how-to/your-own-store.md": "vault",
}


def blocks_of(page: str) -> list[str]:
    return FENCE.findall(PAGES[page])


PROGRAMS = [page for page in PAGES if any("asyncio.run(" in block for block in blocks_of(page))]
TESTS = [page for page in PAGES if any("def test_" in block for block in blocks_of(page))]  # test_testing_page.py
CODE = [page for page in PAGES if blocks_of(page) and page not in (*PROGRAMS, *TESTS)]


def promised(block: str) -> list[str]:
    """The expected output in the comment after a ``print``."""
    assert not re.search(r"^\s*\)  # ", block, re.MULTILINE), "a print and what it says are on one line"
    return re.findall(r"print\(.*\)  # (.+)$", block, re.MULTILINE)


def test_no_block_of_python_escapes() -> None:
    fences = {page: re.findall(r"^\s*``` ?(\S+)", text, re.MULTILINE) for page, text in PAGES.items()}
    assert {kind for kinds in fences.values() for kind in kinds} == {"python", "console", "text"}
    for page, kinds in fences.items():
        assert kinds.count("python") == len(blocks_of(page)), page
    assert sum(len(INCLUDE.findall(text)) for text in PAGES.values()) > 5
    assert len(PROGRAMS) == len(TESTS) == 1
    assert {page for page in PAGES if page.startswith("how-to/")} <= {
        *(*CODE, *TESTS),
        *("how-to/choose-a-store.md", "how-to/web-backend.md"),  # a table; examples
        *("how-to/operate.md", "how-to/back-up.md", "how-to/production.md", "how-to/troubleshooting.md"),  # of commands
    }


def refused_by_the_prompt(block: str) -> str:
    """The line of a block that the prompt of Python 3.11 refuses when the block is pasted: it reads line by line."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    statement: list[str] = []
    for line in [*block.splitlines(), ""]:
        statement.append(line)
        try:
            if compiler("\n".join(statement), symbol="single") is not None:
                statement = []
        except SyntaxError:
            return line
    return ""


@pytest.mark.parametrize("page", CODE)
def test_a_block_can_be_pasted_at_the_prompt(page: str) -> None:
    typed = [block for block in blocks_of(page) if "StoreContract" not in block]  # that one is a file of tests
    assert [line for block in typed if (line := refused_by_the_prompt(block))] == []


def test_prompt_refuses_statement_after_loop() -> None:
    assert refused_by_the_prompt("for _ in ():\n    pass\nprint()") == "print()"
    assert refused_by_the_prompt("async for _ in names:\n    pass\n\nawait done()") == ""


@pytest.fixture
def prepared(page: str, namespace: Namespace, request: pytest.FixtureRequest) -> Namespace:
    if page in NEEDS:
        request.getfixturevalue(NEEDS[page])
    return namespace


@pytest.mark.parametrize("page", CODE)
async def test_the_blocks_of_a_page_run(page: str, prepared: Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    async with AsyncExitStack() as opened:
        for block in blocks_of(page):
            await run(block, page, prepared)
            if "client = DatabaseClient()" in block:
                opened.push_async_callback(prepared["client"].aclose)
            if "opened = AsyncExitStack()" in block:
                opened.push_async_callback(prepared["opened"].aclose)
            printed = capsys.readouterr().out
            for said in promised(block):
                assert said in printed, f"{page} says that it prints {said!r}"
            assert printed == "" or "print(" in block


async def run(block: str, page: str, namespace: Namespace) -> None:
    running = eval(compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
    if inspect.isawaitable(running):
        await running
    if "async def main() -> None:" in block:
        await namespace["main"]()


async def test_store_contract_passes_on_vault(namespace: Namespace, vault: Vault) -> None:
    """All of the contract, with the parameters of each test."""
    vault.hurry = 10.0  # so that leases expire sooner
    for block in blocks_of("how-to/your-own-store.md"):
        if "import VaultStore" in block or "StoreContract" in block:
            exec(re.sub(r"^async with VaultStore.*", "", block, flags=re.M | re.S), namespace)
    contract = namespace["TestVaultStore"]()
    contract.lease, contract.many = 0.5, 60  # it lists all names at once
    tests = [getattr(contract, name) for name in dir(contract) if name.startswith("test_")]
    assert len(tests) > 15
    for test in tests:
        parameters = [arguments for mark in getattr(test, "pytestmark", []) for arguments in mark.args[1]]
        for arguments in parameters or [()]:
            await test(*arguments)


async def test_vault_store_from_url(vault: Vault) -> None:
    """What the command opens. It stores no password in plain text if it has a key, and an error shows no token."""
    url = vault.url.replace("http:", "vault+http:")
    for key in (None, [Fernet.generate_key().decode()]):
        async with from_url(f"{url}/secret/tenants", key) as store:
            await keep(store, "alpha")
        assert f"tenants/{b'alpha'.hex()}" in vault.secrets
        assert ("hunter2" in str(vault.secrets.pop(f"tenants/{b'alpha'.hex()}"))) == (key is None)
    async with VaultStore(vault.url, "a-wrong-token") as refused:
        with pytest.raises(StoreError, match=r"Vault answered 403 to GET data(?!.*a-wrong)"):
            await refused.claim("alpha", LONG)
    with pytest.raises(InvalidArgumentError, match="vault://HOST:PORT/MOUNT/FOLDER"):
        from_url("vault://vault.example.com/secret", None)


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_program_runs(page: str, tmp_path: Path) -> None:
    [program] = blocks_of(page)
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, *done.stderr.splitlines()[1:]) == (0,)  # one warning: its store has no key
    assert [done.stdout.strip()] == promised(program)


@pytest.mark.parametrize("path", sorted({path for text in PAGES.values() for path in INCLUDE.findall(text)}))
def test_example_of_page_is_tested(path: str) -> None:
    module = re.compile(rf"^\s*(import|from) {Path(path).stem}\b", re.MULTILINE)
    assert (ROOT / path).is_file()
    assert any(module.search(test.read_text()) for test in (ROOT / "tests").rglob("test_*.py"))


def test_the_table_of_retries_is_the_rule() -> None:
    def rule(failure: Failure, *operations: Operation) -> str:
        [rule] = {why_not_retried(Call(each, "", Options()), failure, 0) is None for each in operations}
        return "retry" if rule else "raise"

    others = (GET_USER, UPDATE_USER, DELETE_USER, RESET_AUTH)
    rules = [[rule(failure, CREATE_USER, CREATE_DB), rule(failure, *others)] for failure in Failure]
    lines = [line for line in PAGES["why/lost-answers.md"].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines]
    assert rows[0] == ["create", "any other call"]
    assert rows[2:] == rules
    lost = lines[2 + list(Failure).index(Failure.LOST)].split("|")[1]
    statuses = re.findall(r"(\d{3})(?: to (\d{3}))?", lost)
    assert {status for first, last in statuses for status in range(int(first), int(last or first) + 1)} == LOST_STATUSES


NAMES = [f"t{n:02}" for n in range(12)]
TABLES = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = 'public' ORDER BY 1"


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page defines, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks_of("how-to/migrations.md"):
        definitions = block.partition("\nasync for ")[0]
        if "await tenants.ensure" not in block and "version=" not in block and "AsyncExitStack" not in block:
            exec(definitions, names)
    return names


async def tables(credential: Credential) -> list[str]:
    async with await AsyncConnection.connect(credential.uri) as connection:
        return [name for (name,) in await (await connection.execute(TABLES)).fetchall()]


@pytest.mark.parametrize(
    ("recipe", "expected"), [("migrate", ["alembic_version", "notes"]), ("migrate_by_sql", ["tags"])]
)
async def test_each_tenant_is_migrated(
    recipes: dict[str, Any], aiodbclient_tenants: Tenants, recipe: str, expected: list[str]
) -> None:
    """All at once, each in its own database."""
    tenants = aiodbclient_tenants
    assert all([outcome.error is None async for outcome in tenants.provision(NAMES)])
    outcomes = [outcome async for outcome in tenants.each(recipes[recipe], concurrency=len(NAMES))]
    assert [(outcome.name, outcome.error) for outcome in outcomes if outcome.error is not None] == []
    there = {outcome.name: outcome.value async for outcome in tenants.each(tables)}
    assert there == dict.fromkeys(NAMES, expected)


@pytest.mark.parametrize("page", ["how-to/tenants.md"])
async def test_golden_tenant_is_made_after_a_crash(page: str, namespace: Namespace) -> None:
    """A process that dies before the suspension leaves a tenant that works. A customer's is left alone."""
    first, [golden] = blocks_of(page)[0], [block for block in blocks_of(page) if "def make_golden" in block]
    await run(f"import psycopg\n{first}", page, namespace)
    await run(golden.partition("await make_golden")[0], page, namespace)
    cluster, store, migrate, make_golden = (namespace[name] for name in ("cluster", "store", "migrate", "make_golden"))
    async with namespace["opened"]:
        await Tenants(cluster, store, setup=migrate, version="_golden_1").ensure("_golden_1")  # and the process dies
        for _ in range(2):
            await make_golden("_golden_1")
            assert (await store.get("_golden_1")).suspended is not None
        customers = Tenants(cluster, store, setup=migrate, version="0001")
        await customers.ensure("_golden_2")
        with pytest.raises(ValueError, match="_golden_2 is not a golden tenant"):
            await make_golden("_golden_2")
        assert await customers.get("_golden_2") is not None
        await customers.suspend(["_golden_2"])
        with pytest.raises(SuspendedError):
            await make_golden("_golden_2")


@pytest.mark.thorough
async def test_command_migrates_each_tenant(recipes: dict[str, Any], sandbox: Sandbox, tmp_path: Path) -> None:
    [command] = re.findall(r"^```console\n(.*?)^```$", PAGES["how-to/migrations.md"], re.MULTILINE | re.DOTALL)
    cluster_id = await sandbox.add_cluster("pg", backend="postgres")
    async with (
        DatabaseClient(sandbox.token, base_url=sandbox.url) as client,
        SQLiteStore(tmp_path / "tenants.db") as store,
    ):
        tenants = Tenants(client.cluster(cluster_id), store)
        assert all([outcome.error is None async for outcome in tenants.provision(NAMES[:3])])
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DIGITALOCEAN_TOKEN": sandbox.token,
            "DIGITALOCEAN_API_URL": sandbox.url,
            "DIGITALOCEAN_CLUSTER_ID": cluster_id,
        }
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command, cwd=tmp_path, env=environment, stdout=PIPE, stderr=STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        async for outcome in tenants.each(tables):
            assert outcome.value == ["alembic_version", "notes"], outcome.name
