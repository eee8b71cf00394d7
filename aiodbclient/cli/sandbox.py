"""The command ``aiodbclient sandbox``."""

from __future__ import annotations

import typer

ARGUMENTS_ARE_ITS_OWN = {"allow_extra_args": True, "ignore_unknown_options": True}


def serve(context: typer.Context) -> None:
    """Serve an API like the provider's on this machine: `python -m aiodbclient.sandbox`.

    Example: aiodbclient sandbox --cluster pg=tenants
    """
    from ..sandbox.__main__ import main

    raise typer.Exit(main(context.args))
