"""``app``: the command with all its subcommands, for Typer."""

from __future__ import annotations

import errno
import os
from typing import Annotated

import typer

from .. import __version__
from . import clusters, dbs, doctor, sandbox, store, tenants, users
from .help import HELP_OPTIONS, Command, Everything
from .output import NAME, OutputError, complain, discard_stdout, write
from .running import BAD_USAGE, STOPPED, end_output

_COMPLETES = "_AIODBCLIENT_COMPLETE"  # set by the shell that asks how a word goes on

app = typer.Typer(
    name="aiodbclient",
    cls=Everything,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
    pretty_exceptions_enable=False,  # they would show local variables, and with them secrets
    help="Manage the users, databases and tenants of DigitalOcean's managed database clusters.",
    epilog="The API token comes from $DIGITALOCEAN_TOKEN, the API's address from $DIGITALOCEAN_API_URL if it is set."
    "\n\nExit codes: 0 done, 1 some failed, 2 bad usage, 3 stopped early, 4 the API, the store or the standard "
    "output cannot be used, 5 `plan` or `check` found a difference.",
)
app.add_typer(clusters.app, name="clusters")
app.add_typer(users.app, name="users")
app.add_typer(dbs.app, name="dbs")
app.add_typer(tenants.app, name="tenants")
app.add_typer(store.app, name="store")
app.command("doctor", cls=Command)(doctor.examine)
app.command("sandbox", cls=Command, add_help_option=False, context_settings=sandbox.ARGUMENTS_ARE_ITS_OWN)(
    sandbox.serve
)


def run(arguments: list[str]) -> int:
    """Run the command, and return its exit code.

    Args:
        arguments: The command line, without the name of the command.
    """
    as_json = "--json" in arguments
    try:
        code = app(arguments, standalone_mode=False, prog_name=NAME)
        return code if isinstance(code, int) else 0
    except OutputError as error:
        return end_output(error, as_json=as_json)
    except OSError as error:  # Typer prints the help by itself
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EBADF, errno.EIO):
            raise
        discard_stdout()
        return end_output(OutputError(error), as_json=as_json)
    except typer.Abort:  # Ctrl-C before a command began, or after it ended
        return 130
    except SystemExit:  # Typer's own way to end when the reader of the help has gone; it completes words so, too
        if _COMPLETES in os.environ:
            raise
        discard_stdout()
        return STOPPED
    except Exception as error:
        message = getattr(error, "format_message", None)  # versions of Typer differ in the class for bad usage
        if message is None:
            raise
        path = getattr(getattr(error, "ctx", None), "command_path", "aiodbclient")
        usage = _usage(message())
        end = "" if usage.endswith("?") else "."
        complain(f"{usage}{end} See `{path} --help`", BAD_USAGE, as_json=as_json)
        return BAD_USAGE


def _usage(message: str) -> str:
    message = message.replace("Value error, ", "")  # some versions of Typer say this of each wrong value
    return message[:1].lower() + message[1:].rstrip(". \n")


def _tell_version(wanted: bool) -> None:
    if wanted:
        write(f"aiodbclient {__version__}\n")
        raise typer.Exit


@app.callback()
def command(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before the name of a subcommand."""
