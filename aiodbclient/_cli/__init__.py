"""The command ``aiodbclient``, for operators. Needs the extra ``cli``."""

from __future__ import annotations

import logging
import os
import sys


def main() -> None:
    """Run the command with the arguments of the process, and exit with its exit code."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "yaml"):
            raise
        sys.exit("aiodbclient: the command needs its extra: pip install 'aiodbclient[cli]'")
    if sys.stderr is None:  # `2>&-`; print would take the standard output
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open
    if sys.stdout is None:
        sys.stderr.write("aiodbclient: the standard output is closed\n")
        sys.exit(2)
    logging.getLogger("aiodbclient.store").setLevel(logging.ERROR)  # of a store in plain text it says more itself
    sys.exit(run(sys.argv[1:]))
