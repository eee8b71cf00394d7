"""The command ``aiodbclient sandbox``."""

from __future__ import annotations

import typer

ARGUMENTS_ARE_ITS_OWN = {"allow_extra_args": True, "ignore_unknown_options": True}


def serve(context: typer.Context) -> None:
    """Serve an API like the provider's on this machine, with real databases. For tests and to try things.

    Example: aiodbclient sandbox --cluster pg=tenants
    """
    from ..sandbox.__main__ import main

    try:
        code = main(context.args)
    except SystemExit as ended:  # bad arguments, or its help
        code = ended.code if isinstance(ended.code, int) else 1
    raise typer.Exit(code)
