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

# 422 is no failure for data that the description allows: it cannot say that a name is taken or too long.
CONFIG = """
[parameters]
database_cluster_uuid = "{cluster}"
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "422"]
"""


@pytest.mark.parametrize(("engine", "backend"), [("pg", "postgres"), ("kafka", "memory")])
def test_every_answer_is_as_described(
    spec_path: Path, tmp_path: Path, engine: str, backend: Literal["postgres", "memory"]
) -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster(engine, backend=backend))
        config = tmp_path / "schemathesis.toml"
        config.write_text(CONFIG.format(cluster=cluster))
        options = ["--url", sandbox.url, "--header", f"Authorization: Bearer {sandbox.token}"]
        schemathesis = Path(sys.executable).with_name("schemathesis")
        options += ["--max-examples", "4", "--seed", "1", "--continue-on-failure", "--no-color"]
        done = subprocess.run(
            [schemathesis, "--config-file", config, "run", spec_path, *options],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "120"},
        )
        assert done.returncode == 0, done.stdout
        counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert counted, done.stdout
        assert int(counted[1]) == int(counted[2]) > 400
        met = {operation for operation, status in sandbox.counts if status and status < 300}
        assert len(met) == 12  # every operation has had its way at least once
