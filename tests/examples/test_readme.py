"""The README: each block of code runs, and each link has a target."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from aiodbclient.sandbox import Sandbox

from ..proc import python

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CALLS, TENANTS = BLOCKS


def test_every_page_that_it_sends_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


async def test_calls_program_runs_again() -> None:
    async with Sandbox() as sandbox:
        environment = {
            **os.environ,
            "DIGITALOCEAN_API_URL": sandbox.url,
            "DIGITALOCEAN_TOKEN": sandbox.token,
            "DIGITALOCEAN_CLUSTER_ID": await sandbox.add_cluster("pg", backend="memory"),
        }
        command = [sys.executable, "-W", "error", "-c", CALLS]
        lines = []
        for _ in range(2):
            done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
            lines.append(done.stdout.splitlines())
    assert lines == [
        ["['defaultdb']", "worker_1 created", "worker_2 created"],
        ["['defaultdb']", "worker_1 kept", "worker_2 kept"],
    ]


def test_tenants_program_runs_again(tmp_path: Path) -> None:
    [arguments] = re.findall(r"python (-m aiodbclient\.sandbox --cluster pg=tenants-prod)$", README, re.MULTILINE)
    with python("-u", *arguments.split()) as serving:
        assert serving.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            line = serving.stdout.readline()
            assert line, printed
            printed += line
        exports = dict(re.findall(r"export (\w+)=(\S+)", printed))
        [cluster_id] = re.findall(r"pg +tenants-prod +(\S+)", printed)
        environment = os.environ | exports | {"DIGITALOCEAN_CLUSTER_ID": cluster_id, "HOME": str(tmp_path)}
        lines = []
        for _ in range(2):
            command = [sys.executable, "-W", "error", "-c", TENANTS]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert (done.returncode, *done.stderr.splitlines()[1:]) == (0,)  # one warning: its store has no key
            lines.append(done.stdout.splitlines())
        assert [line[1:] for line in lines] == [["acme rotated None", "acme revoked None"]] * 2
        first, second = [re.fullmatch(r"acme (acme_[0-9a-f]{12}_[0-9a-f]{8})", line[0]) for line in lines]
        assert first
        assert second
        assert first[1] < second[1]  # the login of the rotation
