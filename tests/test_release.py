"""The workflow of a release accepts the version of this tree, and refuses another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import aiodbclient

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
CHECKS = [step["run"] for step in RELEASE["jobs"]["build"]["steps"] if "GITHUB_REF_NAME" in step.get("run", "")]


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
