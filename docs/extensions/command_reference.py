"""Write ``docs/reference/command.md``: what ``--help`` of each command prints. ``make command-reference`` runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from aiodbclient._cli.app import app

PAGE = Path(__file__).parents[1] / "reference" / "command.md"
_COLUMNS = "78"
_BEGIN = """\
# The command

What `aiodbclient` and each of its commands print with `--help`. [Operate from a terminal](../how-to/operate.md) shows
how to use them. This page is made from the command: `make command-reference`.
"""


def page() -> str:
    """The text of the page."""
    os.environ["COLUMNS"] = _COLUMNS
    command: Any = typer.main.get_command(app)
    context = command.make_context("aiodbclient", ["--help"], resilient_parsing=True)
    return "\n".join([_BEGIN, *_sections(command, context, "aiodbclient", level=2)])


def _sections(command: Any, context: Any, name: str, level: int) -> Iterator[str]:
    if command.name == "sandbox":  # it has a help of its own
        yield f"{'#' * level} {name}\n\nSee [The sandbox](sandbox.md), and `aiodbclient sandbox --help`.\n"
        return
    yield f"{'#' * level} {name}\n\n```text\n{command.get_help(context).strip()}\n```\n"
    for each in command.list_commands(context) if hasattr(command, "commands") else []:
        subcommand = command.commands[each]
        inner = type(context)(subcommand, info_name=each, parent=context)
        yield from _sections(subcommand, inner, f"{name} {each}", level + 1)


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page()) and 0)
