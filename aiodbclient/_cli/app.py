"""``app``: the command with all its subcommands, for Typer."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from typing import Annotated, Any

import typer

from .. import __version__
from .completion import COMPLETES, complete
from .failures import EXIT_CODES, Exit, end_output
from .help import HELP_OPTIONS, Command, Commands, Group, ListGroup, group
from .output import NAME, OutputError, complain, discard_stdout, this_is_json, write

_JSON = (("-o", "json"), ("--output", "json"))
_GROUPS = {
    "clusters": group(
        ListGroup, "List the account's clusters, or read one.", list="single.list_clusters", get="single.get_cluster"
    ),
    "users": group(
        Group,
        "Manage the users of a cluster, one at a time or from a file.",
        list="single.list_users",
        get="single.get_user",
        create="single.create_user",
        delete="single.delete_user",
        reset="single.reset_user",
        provision="users_and_dbs.provision_users",
    ),
    "dbs": group(
        Group,
        "List, create and delete the databases of a cluster.",
        list="single.list_dbs",
        get="single.get_db",
        create="single.create_db",
        delete="single.delete_db",
    ),
    "tenants": group(
        Group,
        "Manage tenants: each has a database, and a login with all rights in it alone. The credentials are in a store. "
        "Every command can be stopped and run again: it continues.",
        list="tenants_look.list_tenants",
        capacity="tenants_look.list_capacity",
        provision="tenants_verbs.provision_tenants",
        check="tenants_look.check_tenants",
        repair="tenants_verbs.repair_tenants",
        rotate="tenants_verbs.rotate_tenants",
        revoke_previous="tenants_verbs.revoke_previous",
        suspend="tenants_verbs.suspend_tenants",
        resume="tenants_verbs.resume_tenants",
        remove="tenants_verbs.remove_tenants",
        show="tenants_look.show_tenants",
        exec="tenants_exec.exec_tenants",
        usage="tenants_data.show_usage",
        move="tenants_data.move_tenants",
    ),
    "store": group(
        Group,
        "Look into a store of tenants, change its key, copy it, or remove a damaged record.",
        list="store_commands.list_store",
        forget="store_commands.forget_record",
        keygen="store_commands.make_key",
        rekey="store_commands.rekey_store",
        copy="store_commands.copy_store",
    ),
    "doctor": "doctor.examine",
}
_NEAR = 0.8  # how near an option must be to the one that was meant
_DOCTOR = "Check everything that tenants need"  # as its docstring begins: it need not be imported for this


class _Everything(Group):
    """The command itself."""

    def __init__(self, *, commands: dict[str, Any], **settings: Any) -> None:
        super().__init__(commands=Commands(_GROUPS | commands), **settings)

    def summary(self, name: str) -> str:
        return _DOCTOR if name == "doctor" else super().summary(name)


app = typer.Typer(
    name="aiodbclient",
    cls=_Everything,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
    pretty_exceptions_enable=False,  # they would show local variables, and with them secrets
    help="Manage the users, databases and tenants of DigitalOcean's managed database clusters.",
    epilog="The API token comes from $DIGITALOCEAN_TOKEN, the API's address from $DIGITALOCEAN_API_URL if it is set."
    f"\n\n{EXIT_CODES}",
)


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
    if (
        arguments[:1] == ["--show-completion"] and len(arguments) > 1
    ):  # Typer ignores the word, and shows the shell's own
        os.environ[COMPLETES] = f"source_{arguments[1]}"
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
        return Exit.INTERRUPTED
    except SystemExit as ended:  # Typer's own way to end: completion, or when the reader of the help has gone
        if not ended.code:
            raise
        discard_stdout()
        return Exit.STOPPED
    except Exception as error:
        message = getattr(error, "format_message", None)  # versions of Typer differ in the class for bad usage
        if message is None:
            raise
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", "aiodbclient")
        usage = _usage(message())
        if hasattr(error, "possibilities") and context is not None:  # it names each that is a little like it
            option = str(getattr(error, "option_name", ""))
            usage = f"no such option: {option}{_meant(option, context.command)}"
        end = "" if usage.endswith("?") else "."
        complain(f"{usage}{end} See `{path} --help`", Exit.BAD_USAGE)
        return Exit.BAD_USAGE


def _usage(message: str) -> str:
    message = message.replace("Value error, ", "")  # some versions of Typer say this of each wrong value
    return message[:1].lower() + message[1:].rstrip(". \n")


def _meant(option: str, command: Any) -> str:
    """Which option was meant, if one is near."""
    from difflib import get_close_matches

    near = get_close_matches(option, [name for param in command.params for name in param.opts], 1, _NEAR)
    return f". Did you mean {near[0]}?" if near else ""


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
