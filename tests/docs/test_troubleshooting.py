"""The troubleshooting page has the messages of the code, all errors that operators meet, and commands that run."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

from ..cli.conftest import Command

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
# Messages of PostgreSQL, MySQL, OpenSSL, the C library and aiohttp.
OF_OTHERS = {
    "412: the cluster is not online",
    "Access denied for user",
    "CERTIFICATE_VERIFY_FAILED",
    "Cannot connect to host",
    "Connection refused",
    "Lock wait timeout exceeded",
    "Name or service not known",
    "No space left on device",
    "certificate verify failed",
    "connection timeout expired",
    "database is locked",
    "has exceeded the 'max_user_connections' resource",
    "password authentication failed for user",
    "permission denied for database",
    "permission denied for schema",
    "remaining connection slots are reserved",
    "server version mismatch",
    "sorry, too many clients already",
    "terminating connection due to administrator command",
    "too many connections for role",
}
PLAIN = re.compile(r"(aiodbclient [\w. -]+\n)+")  # commands without anything for the shell


@cache
def texts() -> list[str]:
    """Each string in the code, without its placeholders."""
    found = list[str]()
    for path in (ROOT / "aiodbclient").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "\0"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_of_the_code(message: str) -> None:
    assert message in OF_OTHERS or any(message in text for text in texts())


@pytest.mark.parametrize(
    "error",
    [
        "StoreError",
        "GrantError",
        "ClaimLostError",
        "MoveError",
        "RotationPendingError",
        "NameTakenError",
        "NotFoundError",
        "SuspendedError",
        "TenantNotFoundError",
    ],
)
def test_an_error_that_operators_meet_has_a_section(error: str) -> None:
    assert re.search(rf"^## .*\b{error}\b", PAGE, re.MULTILINE)


@pytest.mark.thorough
@pytest.mark.usefixtures("_aiodbclient_servers")
@pytest.mark.parametrize(("page", "least"), [("troubleshooting", 9), ("production", 3)])
def test_commands_of_page_run(page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    commands = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(commands) >= least
    with Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("pg", "tenants-prod", backend="postgres"))
        place = {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = Command(sandbox, "tenants-prod", tmp_path, os.environ | place | {"PATH": path}, before=0)
        made = "aiodbclient tenants provision alpha beta --cluster tenants-prod --store tenants.db\n"
        for block in [made, *commands] if page == "troubleshooting" else commands:
            if PLAIN.fullmatch(block):  # in this process, which is fast
                for line in block.splitlines():
                    ran = command(*shlex.split(line)[1:])
                    assert ran.code == 0, (line, ran.err)
                continue
            script = ["bash", "-euc", f"{block}\nenv -0 > exported"]
            done = subprocess.run(script, env=command.environment, capture_output=True, text=True)
            assert done.returncode == 0, (block, done.stderr)
            command.environment = dict(each.split("=", 1) for each in Path("exported").read_text().split("\0")[:-1])
