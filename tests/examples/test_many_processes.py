"""``examples/many_processes.py``: four processes with a quarter of the limit each meet no 429."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "many_processes.py"


async def test_shares_meet_no_429() -> None:
    """Four processes create their parts, each user once, and the API answers no 429."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), "--users", "80"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, log = (text.decode() for text in await run.communicate())
    assert run.returncode == 0, printed + log
    assert "users.create 201: 80" in printed
    assert "429" not in printed
