"""Write ``docs/reference/command.md``: what ``--help`` of each command prints. ``make command-reference`` runs it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from aiodbclient._cli.app import app
from aiodbclient._cli.help import about_of, help_of, is_common, name_of

PAGE = Path(__file__).parents[1] / "reference" / "command.md"
_COLUMNS = 78
_MANY = 3  # commands that take the same: it is explained once
_BEGIN = """\
# Command reference

What `aiodbclient` and its commands print with `--help`. [Operate from a terminal](../how-to/operate.md) shows how to use
them. This page is made from the command: `make command-reference`.

## Common options

Most commands take some of these. Their `--help` says which:

```text
{common}
```

These are named below where a command takes them:

```text
{named}
```
"""


class _Place(NamedTuple):
    command: Any
    context: Any
    name: str
    level: int


def page() -> str:
    """The text of the page."""
    os.environ["COLUMNS"] = str(_COLUMNS)
    root: Any = typer.main.get_command(app)
    context = root.make_context(
        "aiodbclient", ["--help"], resilient_parsing=True
    )
    places = list(_places(_Place(root, context, "aiodbclient", 2)))
    shared = _shared(places)

    def about(param: Any) -> str | None:
        if _said(param) not in shared:
            return about_of(param)
        named = param.param_type_name == "option" and param.name != "help"
        return "" if named and not is_common(param) else None

    begin = _BEGIN.format(
        common=_explained(each for each in shared.values() if is_common(each)),
        named=_explained(
            each for each in shared.values() if not is_common(each)
        ),
    )
    sections = [
        f"{'#' * each.level} {each.name.removeprefix('aiodbclient ')}\n\n"
        f"{_text(each, about)}\n"
        for each in places
    ]
    return "\n".join([begin, *sections])


def _places(place: _Place) -> Iterator[_Place]:
    """A command, and all below it."""
    yield place
    if hasattr(place.command, "commands"):
        for name in place.command.list_commands(place.context):
            command = place.command.commands[name]
            context = type(place.context)(
                command, info_name=name, parent=place.context
            )
            yield from _places(
                _Place(command, context, f"{place.name} {name}", place.level + 1)
            )


def _said(param: Any) -> tuple[str, str]:
    return name_of(param), about_of(param)


def _shared(places: list[_Place]) -> dict[tuple[str, str], Any]:
    """What many commands take, by what is said about it."""
    params = [
        param
        for place in places
        for param in place.command.get_params(place.context)
        if not getattr(param, "hidden", False)
    ]
    often = Counter(map(_said, params))
    return {
        _said(each): each for each in params if often[_said(each)] >= _MANY
    }


def _explained(params: Iterator[Any]) -> str:
    indent = " " * 4
    return "\n".join(
        f"{name}\n{textwrap.fill(about, _COLUMNS, initial_indent=indent, subsequent_indent=indent)}"
        for name, about in map(_said, params)
    )


def _text(place: _Place, about: Callable[[Any], str | None]) -> str:
    if place.name == "aiodbclient sandbox":  # it has a help of its own
        return "See [The sandbox](sandbox.md), and `aiodbclient sandbox --help`."
    if place.level > 2 and hasattr(place.command, "commands"):
        return textwrap.fill(place.command.help, 118)
    return f"```text\n{help_of(place.command, place.context, about).strip()}\n```"


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page()) and 0)
