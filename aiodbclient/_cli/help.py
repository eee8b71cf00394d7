"""What ``--help`` prints, and the classes of commands that print it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from importlib import import_module
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .failures import EXIT_CODES
from .output import write

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
_WIDEST = 100  # columns: longer lines are hard to read
_TWO_COLUMNS = 70  # on a narrower terminal, an option is on a line of its own, and what it means is below it
COMMON = "Common options"  # the section of the options that most commands take
PROGRAM = "aiodbclient.program"
_SECRETS = "Put a password into the variable of an option: other users of the machine can read arguments."
_FIRST = ("--cluster", "--store", "--output", "--json")  # of the common options: these are needed most
_EXAMPLE = "Example: "
# What other commands call it: said to whoever types it here.
_CALLED_HERE = {
    "add": ("create", "provision"),
    "apply": ("provision",),
    "create": ("provision",),
    "describe": ("get", "show"),
    "drop": ("delete", "remove"),
    "ls": ("list",),
    "new": ("create", "provision"),
    "rm": ("delete", "remove"),
    "run": ("exec",),
    "verify": ("check",),
}
_SAME = {"get": "show", "show": "get", "delete": "remove", "remove": "delete"}


class Command(TyperCommand):
    """A command. Its help is plain text: what it does, an example to copy, arguments, options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_of(self, ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not (ctx.resilient_parsing or ctx.ignore_unknown_options):
            self._refuse_empty(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_empty(self, ctx: Any, args: list[str]) -> None:
        """Refuse empty words, as from a variable of a script that is not set: an empty path is the working directory.

        An option whose default is the empty text takes one.
        """
        options = [each for each in self.params if each.param_type_name == "option" and each.metavar is not None]
        may_be = {name: each.default == "" for each in options for name in each.opts}
        for before, word in pairwise(["", *args]):
            name = word.removesuffix("=") or before  # --folder= or --folder ""
            if word in ("", f"{name}=") and not may_be.get(name, word != ""):
                ctx.fail(f"{name if name in may_be else 'an argument'} is empty. Nothing was sent")

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*(_metavar(param) for param in self.params if param.param_type_name == "argument"), "[OPTIONS]"]


class ProgramCommand(Command):
    """A command that ends with another program's command line, after ``--``. It is in ``meta`` of the context."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- PROGRAM..."]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[PROGRAM] = args[:at], args[at + 1 :]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)
            if PROGRAM not in ctx.meta and option is not None:
                ctx.fail(f"no such option: {option}. Is it the program's? Then put -- before the program")
            raise


class Group(TyperGroup):
    """A group of commands. Alone it prints its help.

    ``get`` and ``show`` are the same command, and so are ``delete`` and ``remove``.
    """

    default: str | None = None  # the command to run if no command is given

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or self.commands.get(_SAME.get(cmd_name, ""))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            called = [name for name in _CALLED_HERE.get(args[0], ()) if name in self.commands][:1]
            called += [
                f"{name} {args[0]}" for name, each in self.commands.items() if args[0] in getattr(each, "commands", ())
            ]
            if called:
                ctx.fail(f"no such command {args[0]!r}. Did you mean {' or '.join(map(repr, called))}?")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if self.default is not None:
            if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
                args = [self.default, *args]
        elif not args and not ctx.resilient_parsing:
            write(f"{ctx.get_help()}\n")
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_of(self, ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def summary(self, name: str) -> str:
        """The line about a command in the help of its group."""
        return _parts(self.commands[name].help or "")[0][0].partition(". ")[0].rstrip(".")


class ListGroup(Group):
    """A group that, alone, lists."""

    default = "list"


class Commands(dict[str, Any]):
    """Commands by name. One that is a text, as ``module.function``, is imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if isinstance(command, str):
            module, _, function = command.partition(".")
            alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            kind = ProgramCommand if name == "exec" else Command
            alone.command(name, cls=kind)(getattr(import_module(f".{module}", __package__), function))
            command = self[name] = typer.main.get_command(alone)
        return command

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - that calls this

    def items(self) -> Any:
        return [(name, self[name]) for name in self]


def group(cls: type[Group], help: str, **commands: str) -> Group:
    """Make a group of commands. An underscore in the name of one is a hyphen."""
    return cls(
        help=help,
        commands=Commands({name.replace("_", "-"): where for name, where in commands.items()}),
        rich_markup_mode=None,
        context_settings=HELP_OPTIONS,
    )


def help_of(command: Any, ctx: Any, *, common: bool = True) -> str:
    """The help of a command, with the options that it has in common with others if ``common``."""
    formatter = ctx.make_formatter()
    formatter.width = min(shutil.get_terminal_size().columns, _WIDEST)
    text, examples = _parts(command.help or "")
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.get_params(ctx) if param.param_type_name == "option" and not param.hidden]
    shared = sorted(filter(is_common, options), key=_place_of) if common else []
    listed = command.list_commands(ctx) if isinstance(command, Group) else []
    formatter.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)))
    _write(formatter, text)
    if examples:
        with formatter.section("Example"):
            formatter.write("".join(f"{_folded(example, formatter.width)}\n" for example in examples))
    for title, rows in (
        ("Commands", [(name, command.summary(name)) for name in listed]),
        ("Arguments", [(_metavar(each).strip("[]-. "), about_of(each)) for each in arguments]),
        ("Options", [(option_of(each), about_of(each)) for each in options if not is_common(each)]),
        (COMMON, [(option_of(each), about_of(each)) for each in shared]),
    ):
        if rows:
            is_narrow = formatter.width < _TWO_COLUMNS and title != "Commands"
            with formatter.section(title):
                formatter.write_dl(rows, col_max=4 if is_narrow else 22 if title == COMMON else 26)
    _write(formatter, [_SECRETS] if any(each.envvar for each in shared) else [])
    _write(formatter, [EXIT_CODES] if common and not listed else [])
    _write(formatter, (command.epilog or "").split("\n\n"))
    return str(formatter.getvalue())


def _place_of(option: Any) -> int:
    """Where an option comes among the common ones, which are in the order of their sets otherwise."""
    name = option.opts[0]
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _write(formatter: Any, paragraphs: Iterable[str]) -> None:
    for paragraph in filter(None, paragraphs):
        formatter.write_paragraph()
        formatter.write_text(paragraph)


def is_common(param: Any) -> bool:
    """Whether an option is one that most commands take: it is in their section."""
    return getattr(param, "rich_help_panel", None) == COMMON and not param.hidden


def _parts(help: str) -> tuple[list[str], list[str]]:
    """The paragraphs of a docstring, and its examples."""
    text, examples = list[str](), list[str]()
    for paragraph in help.strip().split("\n\n"):
        if paragraph.startswith(_EXAMPLE):
            examples += [line.removeprefix(_EXAMPLE).strip() for line in paragraph.splitlines()]
        else:
            text.append(" ".join(paragraph.split()))
    return text, examples


def _folded(example: str, width: int) -> str:
    """A command line that a shell reads as one, also where it takes several lines."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "      "}
    return " \\\n".join(textwrap.wrap(example, width - 2, initial_indent="  ", **options))


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def option_of(param: Any) -> str:
    names = ", ".join([*sorted(param.opts, key=len), *param.secondary_opts])
    return names if param.is_flag or param.metavar is None else f"{names} {param.metavar}"


def about_of(param: Any) -> str:
    about = str(param.help or "")
    if param.name == "help":
        about = "Print this help."
    if param.envvar:
        about += f" Default: ${param.envvar}."
    elif param.required:
        about += " Required."
    elif param.default not in (None, "", False) and param.show_default and param.param_type_name == "option":
        about += f" Default: {param.default}."
    return about.strip()
