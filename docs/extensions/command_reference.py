"""Write ``docs/reference/command.md``: what ``--help`` of each command prints. ``make command-reference`` runs it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from aiodbclient._cli.app import app
from aiodbclient._cli.help import about_of, help_of, is_common, option_of

PAGE = Path(__file__).parents[1] / "reference" / "command.md"
_COLUMNS = "78"
_BEGIN = """\
# Command reference

What `aiodbclient` and each of its commands print with `--help`. [Operate from a terminal](../how-to/operate.md) shows
how to use them. This page is made from the command: `make command-reference`.

## Common options

Several commands take these. Each says on this page what else it takes, and with `--help` everything.

```text
{common}
```
"""


def page() -> str:
    """The text of the page."""
    os.environ["COLUMNS"] = _COLUMNS
    command: Any = typer.main.get_command(app)
    context = command.make_context(
        "aiodbclient", ["--help"], resilient_parsing=True
    )
    common = dict[str, str]()
    sections = list(
        _sections(command, context, "aiodbclient", common, level=2)
    )
    return "\n".join(
        [_BEGIN.format(common="\n".join(common.values())), *sections]
    )


def _sections(
    command: Any,
    context: Any,
    name: str,
    common: dict[str, str],
    level: int,
) -> Iterator[str]:
    if command.name == "sandbox":  # it has a help of its own
        yield f"{'#' * level} {name}\n\nSee [The sandbox](sandbox.md), and `aiodbclient sandbox --help`.\n"
        return
    for param in filter(is_common, command.get_params(context)):
        about = textwrap.fill(
            about_of(param),
            int(_COLUMNS),
            initial_indent="    ",
            subsequent_indent="    ",
        )
        common.setdefault(option_of(param), f"{option_of(param)}\n{about}")
    yield f"{'#' * level} {name}\n\n```text\n{help_of(command, context, common=False).strip()}\n```\n"
    for each in (
        command.list_commands(context)
        if hasattr(command, "commands")
        else []
    ):
        subcommand = command.commands[each]
        inner = type(context)(subcommand, info_name=each, parent=context)
        yield from _sections(
            subcommand, inner, f"{name} {each}", common, level + 1
        )


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page()) and 0)
