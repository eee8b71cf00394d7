"""Draw a picture of a terminal, from commands that it runs against a sandbox."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from aiodbclient.sandbox import Sandbox

WIDTH = 76
NAMES = ["alpha", "beta", "gamma"]
COMMANDS = [
    "aiodbclient tenants provision alpha beta gamma",
    "aiodbclient tenants rotate --all",
    "aiodbclient tenants check",
]
# Without the web font, the picture loads nothing from the network.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


async def terminal(folder: Path) -> None:
    """Run ``COMMANDS`` and draw ``terminal.svg``."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    async with Sandbox(windows=[]) as sandbox:
        await sandbox.add_cluster("pg", "tenants-prod", backend="postgres")
        with tempfile.TemporaryDirectory() as store:
            environment = os.environ | {
                "DIGITALOCEAN_API_URL": sandbox.url,
                "DIGITALOCEAN_TOKEN": sandbox.token,
                "AIODBCLIENT_CLUSTER": "tenants-prod",
                "AIODBCLIENT_STORE": f"{store}/tenants.db",
                "COLUMNS": str(WIDTH),
                "FORCE_COLOR": "1",
            }
            for command in COMMANDS:
                done = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-m", *command.split()],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    check=False,
                )
                console.print(Text.assemble(("$ ", "dim"), (command, "bold")))
                console.print(Text.from_ansi(done.stdout))
    svg = console.export_svg(title="aiodbclient", code_format=FORMAT, unique_id="terminal")
    (folder / "terminal.svg").write_text(svg)
    print(folder / "terminal.svg")


if __name__ == "__main__":
    asyncio.run(terminal(Path(__file__).parents[1] / "docs" / "pictures"))
