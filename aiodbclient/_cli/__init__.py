"""The command ``aiodbclient``, for operators. Needs the extra ``cli``."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress


def main() -> None:
    """Run the command with the arguments of the process, and exit with its exit code."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "yaml"):
            raise
        sys.exit(f"aiodbclient: the command needs its extra: pip install {_extra()}")
    logging.getLogger("aiodbclient.store").setLevel(logging.ERROR)  # of a store in plain text it says more itself
    sys.exit(run(sys.argv[1:]))


def _extra() -> str:
    """What ``pip install`` takes to add the extra to the installed package: the place that it came from."""
    from importlib.metadata import PackageNotFoundError, distribution

    where = None
    with suppress(PackageNotFoundError, ValueError):
        where = json.loads(distribution("aiodbclient").read_text("direct_url.json") or "null")
    if not isinstance(where, dict) or "url" not in where:
        return "'aiodbclient[cli]'"
    url = str(where["url"])
    if "vcs_info" in where:
        url = f"{where['vcs_info']['vcs']}+{url}@{where['vcs_info']['commit_id']}"
    return f"'aiodbclient[cli] @ {url}'"
