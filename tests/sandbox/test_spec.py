"""The sandbox against the provider's own description of the API, with all of schemathesis' checks."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from aiodbclient.sandbox import Sandbox

from ..requirements import description

pytestmark = pytest.mark.described

# 422 is not a failure for data that the description allows: it cannot express that a name is taken or too long.
CONFIG = """
[parameters]
database_cluster_uuid = "{cluster}"
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "422"]
"""


OF_CLUSTERS = {"clusters.list", "clusters.get"}
OF_BOTH = {f"{kind}.{verb}" for kind in ("users", "dbs") for verb in ("list", "get", "create", "delete")}
EVERYTHING = OF_CLUSTERS | OF_BOTH | {"users.update", "users.reset_auth"}


@pytest.mark.parametrize(
    ("engine", "backend", "operations"),
    [
        ("pg", "postgres", EVERYTHING),
        ("pg", "memory", EVERYTHING),
        ("mysql", "memory", EVERYTHING),
        ("mongodb", "memory", EVERYTHING),
        ("kafka", "memory", EVERYTHING),
        ("opensearch", "memory", EVERYTHING),
        ("redis", "memory", OF_CLUSTERS),
        ("valkey", "memory", OF_CLUSTERS),
    ],
)
def test_every_answer_is_as_described(
    spec_path: Path, tmp_path: Path, engine: str, backend: Literal["postgres", "memory"], operations: set[str]
) -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster(engine, backend=backend))
        assert attacked(sandbox, spec_path, tmp_path, cluster) > 400
        # every operation of the engine succeeded at least once
        assert {operation for operation, status in sandbox.counts if status and status < 300} == operations


def test_the_certificate_is_returned_as_the_api_description_says(tmp_path: Path) -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster("redis"))
        assert attacked(sandbox, description("ca.openapi.yaml"), tmp_path, cluster) > 10
        assert sandbox.counts["clusters.ca", 200] > 0


def attacked(sandbox: Sandbox, described: Path, tmp_path: Path, cluster: str) -> int:
    """Run schemathesis on the description, with all of its checks. Returns how many cases passed."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(cluster=cluster))
    options = ["--url", sandbox.url, "--header", f"Authorization: Bearer {sandbox.token}"]
    schemathesis = Path(sys.executable).with_name("schemathesis")
    options += ["--max-examples", "4", "--seed", "1", "--continue-on-failure", "--no-color"]
    done = subprocess.run(
        [schemathesis, "--config-file", config, "run", described, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout
    assert int(counted[1]) == int(counted[2])
    return int(counted[2])
