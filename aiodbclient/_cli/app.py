"""``app``: the command with all its subcommands, for Typer."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from typing import Annotated

import typer

from .. import __version__
from . import doctor, single, store_commands, tenants_exec, tenants_look, tenants_verbs
from .completion import COMPLETES, complete
from .help import EXIT_CODES, HELP_OPTIONS, Command, Everything, ProgramCommand, group
from .output import NAME, OutputError, complain, discard_stdout, this_is_json, write
from .running import BAD_USAGE, STOPPED, end_output

_JSON = (("-o", "json"), ("--output", "json"))

app = typer.Typer(
    name="aiodbclient",
    cls=Everything,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
    pretty_exceptions_enable=False,  # they would show local variables, and with them secrets
    help="Manage the users, databases and tenants of DigitalOcean's managed database clusters.",
    epilog="The API token comes from $DIGITALOCEAN_TOKEN, the API's address from $DIGITALOCEAN_API_URL if it is set."
    f"\n\n{EXIT_CODES}",
)
tenants = group(
    "Manage tenants: each has a database, and a login with all rights in it alone. The credentials are in a store. "
    "Every command can be stopped and run again: it continues."
)
tenants.command("list", cls=Command)(tenants_look.list_tenants)
tenants.command("rooms", cls=Command)(tenants_look.list_rooms)
tenants.command("plan", cls=Command)(tenants_look.plan_tenants)
tenants.command("provision", cls=Command)(tenants_verbs.provision_tenants)
tenants.command("check", cls=Command)(tenants_look.check_tenants)
tenants.command("repair", cls=Command)(tenants_verbs.repair_tenants)
tenants.command("rotate", cls=Command)(tenants_verbs.rotate_tenants)
tenants.command("retire", cls=Command)(tenants_verbs.retire_tenants)
tenants.command("suspend", cls=Command)(tenants_verbs.suspend_tenants)
tenants.command("resume", cls=Command)(tenants_verbs.resume_tenants)
tenants.command("remove", cls=Command)(tenants_verbs.remove_tenants)
tenants.command("show", cls=Command)(tenants_look.show_tenants)
tenants.command("exec", cls=ProgramCommand)(tenants_exec.exec_tenants)
app.add_typer(single.clusters, name="clusters")
app.add_typer(single.users, name="users")
app.add_typer(single.dbs, name="dbs")
app.add_typer(tenants, name="tenants")
app.add_typer(store_commands.app, name="store")
app.command("doctor", cls=Command)(doctor.examine)


@app.command(
    "sandbox",
    cls=Command,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
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


def run(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    this_is_json("--json" in arguments or any(pair in pairwise(arguments) for pair in _JSON))
    if COMPLETES in os.environ:
        return complete(lambda: app(arguments, standalone_mode=False, prog_name=NAME))
    try:
        code = app(arguments, standalone_mode=False, prog_name=NAME)
        return code if isinstance(code, int) else 0
    except OutputError as error:
        return end_output(error)
    except OSError as error:  # Typer prints the help by itself
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EBADF, errno.EIO):
            raise
        discard_stdout()
        return end_output(OutputError(error))
    except typer.Abort:  # Ctrl-C before a command began, or after it ended
        return 130
    except SystemExit as ended:  # Typer's own way to end: completion, or when the reader of the help has gone
        if not ended.code:
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
        complain(f"{usage}{end} See `{path} --help`", BAD_USAGE)
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
