"""The provider's TypeScript client and a community client work with all requests that they support."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

from ..requirements import no_server

PROGRAMS = Path(__file__).with_name("javascript")
PACKAGES = ["@digitalocean/dots", "dots-wrapper"]
# Newer versions require the type of a list's members. dots 1.19 does not pass it: it fails on every cluster that
# has a tag or a db.
OVERRIDES = {"@microsoft/kiota-serialization-json": "1.0.0-preview.97"}


@pytest.fixture(scope="module")
def javascript(request: pytest.FixtureRequest) -> Path:
    """A folder with the installed packages and the programs, kept for the next run."""
    node = shutil.which("node") and subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    if not node or not shutil.which("npm") or int(node.lstrip("v").partition(".")[0]) < 20:
        no_server("npm", f"this needs node 20 or newer and npm, not {node or 'nothing'}")
    folder: Path = request.config.cache.mkdir("javascript")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            (folder / "package.json").write_text(json.dumps({"private": True, "overrides": OVERRIDES}))
            quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(["npm", "install", *quiet, *PACKAGES], cwd=folder, capture_output=True, text=True)
            if done.returncode:
                no_server("npm", f"npm cannot install {' and '.join(PACKAGES)}: {done.stderr}")
            (folder / "installed").touch()
        for program in PROGRAMS.iterdir():
            shutil.copy(program, folder)
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("program", "operations"),
    [("dots.mjs", {"clusters.ca", "users.update", "users.reset_auth"}), ("dots-wrapper.mjs", set[str]())],
)
def test_a_client_of_javascript(javascript: Path, program: str, operations: set[str]) -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("kafka", "events", tags=["production"]))
        done = subprocess.run(
            ["node", program, sandbox.url, cluster], cwd=javascript, input=sandbox.token, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        both = {f"users.{verb}" for verb in ("list", "get", "create", "delete")}
        both |= {f"dbs.{verb}" for verb in ("list", "get", "create", "delete")} | {"clusters.list", "clusters.get"}
        assert {operation for operation, _ in sandbox.counts} == both | operations
        failed = {key: times for key, times in sandbox.counts.items() if not 200 <= (key[1] or 0) < 300}
        assert failed == {("users.get", 404): 1}
