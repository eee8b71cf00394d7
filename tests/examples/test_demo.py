"""The demo works, and fails when something is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import demo
from aiodbclient.tenants import Tenants

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.thorough
def test_the_demo_shows_it_all() -> None:
    command, environment = [sys.executable, f"{EXAMPLES}/demo.py"], {"COLUMNS": "200", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    printed = done.stdout

    assert (done.returncode, done.stderr) == (0, ""), printed
    assert re.search(r"killed a process: it had created \d+ logins and stored \d+ of them", printed)
    assert "of 200 tenants, each with a database and a login" in printed
    assert "logins created exactly once: 200 of 200" in printed
    assert "each tenant was refused at another tenant's database (200 tried)" in printed
    assert re.search(r"rotated +tenant_\d+, while a client sent \d+ queries: none failed", printed)
    assert "its previous credential: it can no longer log in" in printed
    assert "a tenant on Redis, before a request was sent (0 requests)" in printed


async def test_demo_notices_open_door(aiodbclient_tenants: Tenants) -> None:
    """It notices a credential that was not revoked too."""
    alpha = await aiodbclient_tenants.ensure("alpha")
    await demo.own_table(alpha)

    with pytest.raises(demo.Unexpected, match="entered the database"):
        await demo.stay_out((alpha, alpha))
    with pytest.raises(demo.Unexpected, match="still works"):
        await demo.revoke_previous(aiodbclient_tenants, alpha)
