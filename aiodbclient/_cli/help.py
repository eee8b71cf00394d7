"""What ``--help`` prints, and the classes of commands that print it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .output import write

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
_WIDEST = 100  # columns: longer lines are hard to read
_TWO_COLUMNS = 70  # on a narrower terminal, an option is on a line of its own, and what it means is below it
EXIT_CODES = (
    "Exit codes: 0 done, 1 some failed or are not there, 2 bad usage, 3 stopped early, 4 the API, the store or the "
    "standard output failed, 5 `plan` or `check` found a difference."
)
PROGRAM = "aiodbclient.program"
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
        called = [name for name in _CALLED_HERE.get(args[0], ()) if name in self.commands]
        if called and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no such command {args[0]!r}. Did you mean {called[0]!r}?")
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


class Everything(Group):
    """The command itself: its groups come first, in their order."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: not isinstance(self.commands[name], TyperGroup))


class ListGroup(Group):
    """A group that, alone, lists."""

    default = "list"


def group(help: str, cls: type[Group] = Group) -> typer.Typer:
    """Make a group of commands."""
    return typer.Typer(cls=cls, help=help, rich_markup_mode=None, context_settings=HELP_OPTIONS)


def help_of(command: Any, ctx: Any, *, common: bool = True) -> str:
    """The help of a command, with the options that it has in common with others if ``common``."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    text, examples = _parts(command.help or "")
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.get_params(ctx) if param.param_type_name == "option" and not param.hidden]
    listed = command.list_commands(ctx) if isinstance(command, TyperGroup) else []
    commands = [(name, command.commands[name]) for name in listed]
    parts = [_usage(command, ctx, width)]
    parts += [textwrap.fill(paragraph, width) for paragraph in text]
    if examples:
        parts.append("\n".join(["Example:", *(_folded(example, width) for example in examples)]))
    own = [each for each in options if not is_common(each)]
    shared = [each for each in options if is_common(each) and common]
    shown = [(name, _parts(each.help or "")[0][0]) for name, each in commands if not each.hidden]
    for title, rows in (
        ("Commands:", [(name, about.partition(". ")[0].rstrip(".")) for name, about in shown]),
        ("Arguments:", [(_bare(param), about_of(param)) for param in arguments]),
        ("Options:", [(option_of(param), about_of(param)) for param in own]),
        ("Common options:", [(option_of(param), about_of(param)) for param in shared]),
    ):
        if rows:
            parts.append("\n".join([title, *_table(rows, width, narrow=title != "Commands:")]))
    if common and not commands:
        parts.append(textwrap.fill(EXIT_CODES, width))
    if command.epilog:
        parts += [textwrap.fill(paragraph, width) for paragraph in command.epilog.split("\n\n")]
    return "\n\n".join(parts) + "\n"


def is_common(param: Any) -> bool:
    """Whether an option is one that most commands take. ``arguments`` marks them."""
    return getattr(param, "rich_help_panel", None) is not None and not param.hidden


def _usage(command: Any, ctx: Any, width: int) -> str:
    begin = f"Usage: {ctx.command_path}"
    pieces = " ".join(command.collect_usage_pieces(ctx))
    return textwrap.fill(
        f"{begin} {pieces}", width, subsequent_indent="         ", break_on_hyphens=False, break_long_words=False
    )


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


def _table(rows: Iterable[tuple[str, str]], width: int, *, narrow: bool) -> Iterator[str]:
    listed = list(rows)
    if narrow and width < _TWO_COLUMNS:
        for name, about in listed:
            yield f"  {name}"
            yield from textwrap.wrap(about, width, initial_indent="      ", subsequent_indent="      ")
        return
    left = min(max(len(name) for name, _ in listed), 26)
    for name, about in listed:
        indent = " " * (left + 4)
        lines = textwrap.wrap(about, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        if len(name) > left or not lines:
            yield f"  {name}"
        else:
            lines[0] = f"  {name:<{left}}  {lines[0].strip()}"
        yield from lines


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _bare(param: Any) -> str:
    return str(param.metavar or param.name.upper()).strip("[]-. ")


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
