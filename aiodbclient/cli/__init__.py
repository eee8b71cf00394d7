"""The command ``aiodbclient``, for operators. Needs the extra ``cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command with the arguments of the process, and exit with its exit code.

    Raises:
        SystemExit: Always.
    """
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit("aiodbclient: the command needs its extra: pip install 'aiodbclient[cli]'")
    app()
