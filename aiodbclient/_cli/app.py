"""``app``: the command with all its subcommands, for Typer."""

from __future__ import annotations

import os
from collections import defaultdict
from difflib import get_close_matches
from importlib import import_module
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from .plumbing.failures import EXIT_CODES, Exit, message_of
from .plumbing.options import PROGRAM
from .plumbing.printing import NAME, note, write

_HELP_OPTIONS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_PANELS = ("Arguments", "Options")  # these come first
_FIRST = ("--cluster", "--store", "-o")  # of the common options: these are needed most
_EXAMPLE = "\n\nExample: "  # in a docstring, before its last paragraph

_SYNONYMS = {"remove": "delete", "delete": "remove"}  # one group has the one, another has the other
_NEAR = 0.75  # how similar a suggested command must be

# Each group of commands: what it is for, and where its commands are.
_GROUPS = {
    "clusters": (
        "List the account's clusters, or read one.",
        {"list": "users_and_dbs.list_clusters", "get": "users_and_dbs.get_cluster"},
    ),
    "users": (
        "Manage the users of a cluster.",
        {
            "list": "users_and_dbs.list_users",
            "get": "users_and_dbs.get_user",
            "create": "users_and_dbs.create_user",
            "delete": "users_and_dbs.delete_users",
            "reset": "users_and_dbs.reset_user",
            "provision": "users_and_dbs.provision_users",
        },
    ),
    "dbs": (
        "Manage the databases of a cluster.",
        {
            "list": "users_and_dbs.list_dbs",
            "get": "users_and_dbs.get_db",
            "create": "users_and_dbs.create_db",
            "delete": "users_and_dbs.delete_db",
        },
    ),
    "tenants": (
        "Manage tenants: each has a database, and a login for it alone. The credentials are in a store. Every command "
        "can be stopped and run again: it continues. `rotate` needs `--older-than` for that.",
        {
            "list": "tenants.read.list_tenants",
            "provision": "tenants.change.provision_tenants",
            "check": "tenants.read.check_tenants",
            "repair": "tenants.change.repair_tenants",
            "rotate": "tenants.change.rotate_tenants",
            "revoke-previous": "tenants.change.revoke_previous",
            "suspend": "tenants.change.suspend_tenants",
            "resume": "tenants.change.resume_tenants",
            "remove": "tenants.change.remove_tenants",
            "move": "tenants.change.move_tenants",
            "usage": "tenants.read.show_usage",
            "show": "tenants.read.show_tenants",
            "exec": "tenants.exec.exec_tenants",
            "capacity": "tenants.read.list_capacity",
        },
    ),
    "store": (
        "Manage a store of tenants.",
        {
            "list": "tenants.store.list_store",
            "copy": "tenants.store.copy_store",
            "rekey": "tenants.store.rekey_store",
            "keygen": "tenants.store.make_key",
            "forget": "tenants.store.forget_records",
        },
    ),
}


class _Help:
    """Help with a section for each panel of the options, since Typer's own imports pydantic, which takes 0.1 s."""

    epilog: str | None
    get_params: Any

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for param in self.get_params(ctx):
            if ctx.resilient_parsing:  # a TAB. To check values, Typer imports pydantic, which takes 0.1 s
                param.process_value = lambda ctx, value: value
            elif param.default is None and getattr(param, "is_flag", False):  # Typer checks None, but not False
                param.default = False
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections = defaultdict[str, list[tuple[str, str]]](list)
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                sections["Arguments"].append((param.metavar, param.help))
            elif not param.hidden:
                record = _names_of(param), _about(param)
                sections[getattr(param, "rich_help_panel", None) or "Options"].append(record)
        for title in sorted(sections, key=lambda title: (title not in _PANELS, title != _PANELS[0])):
            sections[title].sort(key=lambda record: not record[0].startswith(_FIRST))
            with formatter.section(title):
                formatter.write_dl(sections[title], col_max=30)


def _names_of(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    return names if option.is_flag or option.metavar is None else f"{names} {option.metavar}"


def _about(option: Any) -> str:
    more = [f"env var: {option.envvar}"] if option.envvar else []
    more += ["required"] if option.required else []
    return f"{option.help}  [{'; '.join(more)}]" if more else str(option.help)


class Command(_Help, TyperCommand):
    """A command, whose help ends with an example."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        formatter.write(f"\n{self.epilog}\n" if self.epilog else "")  # unfolded, to be copied


class Group(_Help, TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        near = _SYNONYMS.get(args[0]), *get_close_matches(args[0], self.commands, 1, _NEAR)
        meant = next((each for each in near if each in self.commands), None)
        if args[0] not in self.commands and meant is not None:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{meant}'?")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class ProgramCommand(Command):
    """A command that ends with another program's command line, after ``--``, in ``meta`` of the context."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- PROGRAM..."]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            end = args.index("--")
            args, ctx.meta[PROGRAM] = args[:end], args[end + 1 :]
        return super().parse_args(ctx, args)


class _Commands(dict[str, Any]):
    """Commands by name, or as the text ``module.function``, which is imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if isinstance(command, str):
            module, _, function = command.rpartition(".")
            called = getattr(import_module(f".{module}", __package__), function)
            help, _, example = cleandoc(called.__doc__).partition(_EXAMPLE)
            alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            kind = ProgramCommand if name == "exec" else Command
            epilog = f"Example: {' '.join(example.split())}"
            alone.command(name, cls=kind, help=help, epilog=epilog, context_settings=_HELP_OPTIONS)(called)
            command = self[name] = typer.main.get_command(alone)
        return command

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - that calls this


def _group(name: str) -> Group:
    help, commands = _GROUPS[name]
    return Group(
        name=name,
        help=help,
        commands=_Commands(commands),
        rich_markup_mode=None,
        context_settings=_HELP_OPTIONS,
        no_args_is_help=True,
        suggest_commands=False,  # ``resolve_command`` does
    )


class _Everything(Group):
    def __init__(self, *, commands: dict[str, Any], **settings: Any) -> None:
        groups = {name: _group(name) for name in _GROUPS}
        super().__init__(commands=_Commands(groups | {"doctor": "doctor.command.examine"} | commands), **settings)


app = typer.Typer(
    name=NAME,
    cls=_Everything,
    rich_markup_mode=None,
    context_settings=_HELP_OPTIONS,
    no_args_is_help=True,
    suggest_commands=False,
    pretty_exceptions_enable=False,  # they would show local variables, and with them secrets
    help="Manage the users, databases and tenants of DigitalOcean's managed database clusters. The API token comes "
    "from $DIGITALOCEAN_TOKEN.",
    epilog=EXIT_CODES,
)


@app.command(
    "sandbox",
    cls=Command,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def serve(context: typer.Context) -> None:
    """Serve an API like the provider's on this machine."""
    from ..sandbox.__main__ import main

    try:
        code = main(context.args, context.command_path)
    except SystemExit as ended:  # bad arguments, or its help
        code = ended.code if isinstance(ended.code, int) else 1
    raise typer.Exit(code)


def run(arguments: list[str]) -> int:
    """Run the command, and return its exit code."""
    if arguments[:1] == ["--show-completion"] and len(arguments) > 1:  # Typer ignores the name of the shell
        os.environ["_AIODBCLIENT_COMPLETE"] = f"source_{arguments[1]}"
    try:
        code = app(arguments, standalone_mode=False, prog_name=NAME)
        return code if isinstance(code, int) else 0
    except OSError as error:
        note(message_of(error))
        return Exit.BAD_USAGE
    except SystemExit as ended:  # Typer's own way to end: completion, or when the reader of the output has gone
        return ended.code if isinstance(ended.code, int) else 0
    except typer.Abort:  # Ctrl-C before a command began, or after it ended
        return Exit.INTERRUPTED
    except Exception as error:
        message = getattr(error, "format_message", None)  # versions of Typer differ in the class for bad usage
        if message is None:
            raise
        path = getattr(getattr(error, "ctx", None), "command_path", NAME)
        if type(error).__name__ == "NoArgsIsHelpError":
            write(f"{message()}\n")
        else:
            said = message().replace("Value error, ", "").rstrip(".")  # some versions say this of each wrong value
            note(f"{said}{'' if said.endswith('?') else '.'} See `{path} --help`")
        return Exit.BAD_USAGE


def _print_version(wanted: bool) -> None:
    if wanted:
        write(f"{NAME} {__version__}\n")
        raise typer.Exit


@app.callback()
def command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before the name of a subcommand."""
