"""Add the page ``reference/command.md`` to the site: what ``--help`` of each command prints."""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any, NamedTuple

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from aiodbclient._cli.app import app
from aiodbclient._cli.help import about_of, help_of, is_common, option_of

PAGE = "reference/command.md"
_COLUMNS = 78
_MANY = 3  # commands that take the same: it is explained once
_BEGIN = """\
# Command reference

What `aiodbclient` and its commands print with `--help`. [Operate from a terminal](../how-to/operate.md) shows how to use
them.

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


def on_files(files: Files, config: MkDocsConfig) -> None:
    """A hook of MkDocs."""
    files.append(File.generated(config, PAGE, content=page()))


def page() -> str:
    """The text of the page."""
    os.environ["COLUMNS"] = str(_COLUMNS)
    root: Any = typer.main.get_command(app)
    context = root.make_context(
        "aiodbclient", ["--help"], resilient_parsing=True
    )
    places = list(_places(_Place(root, context, "aiodbclient", 2)))
    params = [
        param
        for place in places
        for param in place.command.params
        if not getattr(param, "hidden", False)
    ]
    often = Counter(map(_said, params))
    shared = {
        _said(each): is_common(each)
        for each in params
        if often[_said(each)] >= _MANY
    }
    begin = _BEGIN.format(
        common=_explained(
            each for each, common in shared.items() if common
        ),
        named=_explained(
            each for each, common in shared.items() if not common
        ),
    )
    for place in places:
        place.command.add_help_option = False
        for param in place.command.params:
            if _said(param) in shared:
                _silence(param)
    sections = [
        f"{'#' * each.level} {each.name.removeprefix('aiodbclient ')}\n\n"
        f"{_text(each)}\n"
        for each in places
    ]
    return "\n".join([begin, *sections])


def _places(place: _Place) -> Iterator[_Place]:
    """A command, and all below it."""
    yield place
    if hasattr(place.command, "commands"):
        for name in place.command.list_commands(place.context):
            command = _copy_of(place.command.commands[name])
            context = type(place.context)(
                command, info_name=name, parent=place.context
            )
            yield from _places(
                _Place(
                    command,
                    context,
                    f"{place.name} {name}",
                    place.level + 1,
                )
            )


def _copy_of(command: Any) -> Any:
    """A command with parameters of its own, which the page may change."""
    made = copy(command)
    made.params = [copy(each) for each in command.params]
    return made


def _said(param: Any) -> tuple[str, str]:
    """How a parameter is written, and what it means."""
    is_option = param.param_type_name == "option"
    name = (
        option_of(param)
        if is_option
        else param.metavar or param.name.upper()
    )
    return name.strip("[]. "), about_of(param)


def _silence(param: Any) -> None:
    param.help, param.envvar, param.required, param.show_default = (
        "",
        None,
        False,
        False,
    )


def _explained(params: Iterable[tuple[str, str]]) -> str:
    indent = " " * 4
    return "\n".join(
        f"{name}\n{textwrap.fill(about, _COLUMNS, initial_indent=indent, subsequent_indent=indent)}"
        for name, about in params
    )


def _text(place: _Place) -> str:
    if place.name == "aiodbclient sandbox":  # it has a help of its own
        return "See [The sandbox](sandbox.md), and `aiodbclient sandbox --help`."
    if place.level > 2 and hasattr(place.command, "commands"):
        return textwrap.fill(place.command.help, 118)
    text = help_of(place.command, place.context, common=False)
    # Arguments without an explanation are in the usage.
    text = re.sub(
        r"^Arguments:\n(?:  [A-Z ]+\n)+\n?", "", text, flags=re.MULTILINE
    )
    return f"```text\n{text.strip()}\n```"
