"""``app``: the command with all its subcommands, for Typer."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from . import clusters, dbs, sandbox, tenants, users

app = typer.Typer(
    name="aiodbclient",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show local variables, and with them secrets
    help="The users and databases of DigitalOcean's managed database clusters.",
    epilog="The token comes from DIGITALOCEAN_TOKEN, the API's address from DIGITALOCEAN_API_URL if that is set. "
    "Exit codes: 0 done, 1 some failed, 2 bad usage, 3 stopped early, 4 the API, the store or the "
    "standard output cannot be used; tenants plan: 5 if something differs.",
)
app.command("clusters")(clusters.list_clusters)
app.add_typer(users.app, name="users")
app.add_typer(dbs.app, name="dbs")
app.add_typer(tenants.app, name="tenants")
app.command("sandbox", add_help_option=False, context_settings=sandbox.ARGUMENTS_ARE_ITS_OWN)(sandbox.serve)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aiodbclient {__version__}")
        raise typer.Exit


@app.callback()
def command(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """The options that come before the name of a subcommand."""
