"""The sandbox against the provider's own description of the API, with all of schemathesis' checks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from openapi_schema_validator import OAS30ReadValidator

from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox

from ..requirements import description
from .conftest import caller

pytestmark = [pytest.mark.described, pytest.mark.usefixtures("_aiodbclient_servers")]

# 422 is not a failure for data that the description allows: it cannot express that a name is taken or too long.
CONFIG = """
[parameters]
"path.database_cluster_uuid" = {cluster}
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "422"]
"""


OF_CLUSTERS = {"clusters.list", "clusters.get", "clusters.ca"}
OF_BOTH = {f"{kind}.{verb}" for kind in ("users", "dbs") for verb in ("list", "get", "create", "delete")}
EVERYTHING = OF_CLUSTERS | OF_BOTH | {"users.update", "users.reset_auth"}
SYSTEMATIC, RANDOM = "coverage", "examples,fuzzing,stateful"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The descriptions as one file."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    databases, ca = (
        yaml.load(description(f"{name}.openapi.yaml").read_text(), Loader=loader) for name in ("databases", "ca")
    )
    databases["paths"] |= ca["paths"]
    file = tmp_path_factory.mktemp("described") / "openapi.json"
    file.write_text(json.dumps(databases, default=str))
    return file


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("engine", "backend", "phases"),
    [
        ("pg", "postgres", f"{SYSTEMATIC},{RANDOM}"),
        *((engine, "memory", SYSTEMATIC) for engine in ("mysql", "mongodb", "kafka", "opensearch")),
    ],
)
def test_every_answer_is_as_described(
    described: Path, tmp_path: Path, engine: str, backend: Literal["postgres", "memory"], phases: str
) -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster(engine, backend=backend))
        assert attacked(sandbox, described, tmp_path, cluster, "--phases", phases) > 400
        # every operation of the engine succeeded at least once
        assert {operation for operation, status in sandbox.counts if status and status < 300} == EVERYTHING


@pytest.fixture
def responses(described: Path) -> Any:
    """The described answers to a list of clusters, by status."""
    return json.loads(described.read_text())["paths"]["/v2/databases"]["get"]["responses"]


async def test_refusals_are_as_described(responses: Any) -> None:
    """So are the answers that no request of schemathesis meets: of faults, and of the rate limit."""
    async with Sandbox(windows=[Window(4, 60.0)]) as sandbox, caller(sandbox) as call:
        for nth, status in enumerate((401, 500, 503), 1):
            sandbox.faults.add(status=status, nth=nth)
        for status in (401, 500, 503, 200, 429):
            answer = await call("GET", "/v2/databases")
            assert answer.status == status
            described_answer = responses.get(str(status)) or responses["default"]
            assert all(answer.headers[name].isdigit() for name in described_answer["headers"])
            OAS30ReadValidator(described_answer["content"]["application/json"]["schema"]).validate(answer.json)


def attacked(sandbox: Sandbox, described: Path, tmp_path: Path, cluster: str, *more: str) -> int:
    """Run schemathesis on ``cluster``. Returns how many cases passed."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(cluster=json.dumps(cluster)))
    options = ["--url", sandbox.url, "--header", f"Authorization: Bearer {sandbox.token}"]
    schemathesis = Path(sys.executable).with_name("schemathesis")
    options += ["--max-examples", "4", "--seed", "1", "--continue-on-failure", "--no-color", *more]
    command: list[str | Path] = [schemathesis, "--config-file", config, "run", described, *options]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout
    assert int(counted[1]) == int(counted[2])
    return int(counted[2])
