"""The troubleshooting page has the messages of the code, all errors that operators meet, and commands that run."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

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


@pytest.mark.usefixtures("_aiodbclient_servers")
@pytest.mark.parametrize(("page", "least"), [("troubleshooting", 9), ("production", 3)])
def test_the_commands_of_a_page_run_from_its_top(page: str, least: int, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    commands = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(commands) >= least
    with Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("pg", "tenants-prod", backend="postgres"))
        place = {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | place | {"PATH": path}
        exported = ""
        made = "aiodbclient tenants provision alpha beta --cluster tenants-prod --store tenants.db"
        for block in [made, *commands] if page == "troubleshooting" else commands:
            script = ["bash", "-euc", exported + block]
            done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, (block, done.stderr)
            exported += "".join(re.findall(r"^export .*\n", block, re.MULTILINE))
