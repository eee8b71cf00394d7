"""``python -m aiodbclient.sandbox``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "aiodbclient.sandbox", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def get(url: str, token: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_line_of_json_for_scripts_and_a_clean_stop(number: signal.Signals) -> None:
    arguments = ["--json", "--token", "mine", "--cluster", "opensearch=logs", "--cluster", "redis"]
    with program(*arguments) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert list(told) == ["url", "token", "clusters"]
        assert told["token"] == "mine"
        assert [(list(cluster), cluster["name"], cluster["engine"]) for cluster in told["clusters"]] == [
            (["id", "name", "engine"], "logs", "opensearch"),
            (["id", "name", "engine"], "redis-1", "redis"),
        ]
        listed = get(f"{told['url']}/v2/databases", "mine")["databases"]
        assert [cluster["id"] for cluster in listed] == [cluster["id"] for cluster in told["clusters"]]
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert process.communicate() == ("", "")


def test_what_a_person_reads_can_be_pasted_into_a_shell() -> None:
    with program("--cluster", "mongodb=tenants") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(8)]
        exports = dict(line.split("export ")[1].strip().split("=", 1) for line in lines if "export " in line)
        listed = get(exports["DIGITALOCEAN_API_URL"] + "/v2/databases", exports["DIGITALOCEAN_TOKEN"])["databases"]
        assert any(listed[0]["id"] in line and "tenants" in line for line in lines)


def test_a_rate_limit() -> None:
    with program("--json", "--rate-limit", "2/60") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        for _ in range(2):
            get(f"{told['url']}/v2/databases", told["token"])
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{told['url']}/v2/databases", told["token"])
        with caught.value as answer:
            assert answer.status == 429
            assert answer.headers["ratelimit-limit"] == "5000"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--cluster", "=x"], 2, "names no engine"),
        (["--rate-limit", "fast"], 2, "REQUESTS/SECONDS"),
        (["--rate-limit", "0/60"], 2, "REQUESTS/SECONDS"),
        (["--dsn", "postgresql://x"], 2, "NAME=DSN"),
        (["--dsn", "a=postgresql://u:hunter2@127.0.0.1:1/x"], 1, "names no cluster: a"),
        (["--cluster", "pg=a", "--dsn", "a=postgresql://u:hunter2@127.0.0.1:1/x"], 1, "cannot be used"),
        (["--cluster", "redis=a", "--cluster", "redis=a"], 1, "'a' already"),
        (["--port", "99999"], 1, "cannot start"),
    ],
)
def test_what_it_cannot_do_it_says_with_an_exit_code(arguments: list[str], code: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aiodbclient.sandbox", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""
