"""How a command prints what it did or found: as text, as a table, as names, or as JSON objects."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, TypeAlias

import typer
from attrs import frozen

from ..errors import InvalidArgumentError
from .arguments import option
from .output import as_json, console_of, note, printable, safe, span, this_is_json, write

Row: TypeAlias = Mapping[str, object]
_NAMES = ("name", "username", "database", "problems")
_OPPOSITE = {"age": "since", "since": "age"}  # one of them is printed, and sorts as the other the other way round
_EMPTY = "-"


def _output_option(forms: str, help: str, **settings: Any) -> Any:
    """``-o``, which takes one of ``forms``."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in forms.split("|"):
            raise typer.BadParameter(f"{value!r} is not one of {forms.replace('|', ', ')}")
        return value

    return option("--output", "-o", metavar=forms, help=help, callback=check, **settings)


# What -o prints.
_AS_TEXT = "json prints an object a line, errors too."
_AS_TABLE = "wide prints all columns, json an object a line, errors too."
_AS_ROWS = "wide prints all columns, name the names alone, json an object a line, errors too."
_AS_PROBLEMS = "problems prints a line for each tenant that has one, the others print all tenants. Default: problems."
_AS_CREDENTIALS = (
    "env is for `docker --env-file`, sh for a shell, k8s a Secret. These and uri print secrets without --show. "
    "Default: table."
)


@frozen(kw_only=True)
class Printed:
    """How a command prints what it did: lines of text, or an object for each."""

    output: Annotated[str | None, _output_option("text|json", _AS_TEXT, common=True)] = None
    json: Annotated[bool, option("--json", help="The same as -o json.", common=True)] = False

    def __attrs_post_init__(self) -> None:
        this_is_json(self.as_json)
        if self.json and self.output not in (None, "json"):
            raise InvalidArgumentError(f"--json and -o {self.output} are different: give one of them. Nothing was sent")

    @property
    def as_json(self) -> bool:
        """Whether to print objects."""
        return self.json or self.output == "json"


@frozen(kw_only=True)
class Table(Printed):
    """How a command prints rows."""

    output: Annotated[str | None, _output_option("table|wide|json", _AS_TABLE, common=True)] = None

    @property
    def wide(self) -> bool:
        """Whether to print all columns, also those for which there is no room."""
        return self.output in ("wide", "name")


@frozen(kw_only=True)
class Sorted(Table):
    """How a command prints rows that can be sorted."""

    sort: Annotated[str | None, option("--sort", metavar="COLUMN", help="Print the rows by this column.")] = None


@frozen(kw_only=True)
class Rows(Sorted):
    """How a command prints a list."""

    output: Annotated[str | None, _output_option("table|wide|name|json", _AS_ROWS, common=True)] = None
    match: Annotated[
        str | None, option("--match", metavar="PATTERN", help="Print only names like this, such as 'eu-*'.")
    ] = None


@frozen(kw_only=True)
class Checked(Table):
    """How ``check`` prints."""

    output: Annotated[str | None, _output_option("problems|table|wide|json", _AS_PROBLEMS)] = None


@frozen(kw_only=True)
class Shown(Table):
    """How ``show`` prints credentials."""

    output: Annotated[str | None, _output_option("table|wide|json|env|sh|uri|k8s", _AS_CREDENTIALS)] = None


def print_rows(
    rows: Iterable[Row], printed: Table, *, last: Sequence[str] = (), lost: str = "", none: str = ""
) -> None:
    """Print ``rows`` as they are asked for. No value is folded, since people copy them.

    On a narrow terminal, a table leaves out the columns ``last``. If there are no rows, it says ``none``.
    """
    lines = list(rows)
    if not lines and none and not printed.as_json:
        note(none)
    if isinstance(printed, Rows) and (pattern := printed.match) is not None:
        lines = [row for row in lines if fnmatchcase(str(row["name"]), pattern)]
    if isinstance(printed, Sorted) and printed.sort is not None and lines:
        lines = _sorted(lines, printed.sort)
    if printed.as_json:
        print_objects(lines, lost)
    elif printed.output == "name":
        write("".join(f"{safe(name)}\n" for name in dict.fromkeys(row["name"] for row in lines)))
    elif lines:
        write(_table(lines, last, wide=printed.wide), lost)


def print_objects(rows: Iterable[Row], lost: str = "") -> None:
    """Print a JSON object for each row."""
    write("".join(f"{as_json(row)}\n" for row in rows), lost)


def print_done(printed: Printed, done: str, **members: object) -> None:
    """Print what a command did to one thing: ``members`` as an object, or the line ``done``."""
    write(f"{as_json(members)}\n" if printed.as_json else f"{done}\n")


def _sorted(rows: list[Row], column: str) -> list[Row]:
    """The rows in the order of a column. Those without a value there come last."""
    known = dict.fromkeys(name for row in rows for name in row)
    is_reverse = column not in known and _OPPOSITE.get(column) in known
    by = _OPPOSITE[column] if is_reverse else column
    if by not in known:
        raise InvalidArgumentError(f"--sort {column}: no such column; there are {', '.join(known)}")
    there = [row for row in rows if row.get(by) is not None]
    there.sort(key=lambda row: value if isinstance(value := row[by], int | timedelta) else str(value))
    return there[:: -1 if is_reverse else 1] + [row for row in rows if row.get(by) is None]


def _table(rows: Sequence[Row], last: Sequence[str], *, wide: bool) -> str:
    from rich.cells import cell_len, set_cell_size

    def widest(column: Sequence[str]) -> int:
        return max(map(cell_len, column))

    def width(columns: Sequence[Sequence[str]]) -> int:
        return sum(map(widest, columns)) + 2 * (len(columns) - 1)

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [[name, *(_cell(name, row.get(name)) for row in rows)] for name in names]
    console = console_of()
    narrow = console.is_terminal and not wide
    for name in reversed(last):
        if narrow and width(columns) > console.width:
            columns = [column for column in columns if column[0] != name]
    if narrow and width(columns) > console.width:
        blocks = ("".join(f"{name}: {_cell(name, row.get(name))}\n" for name in names) for row in rows)
        return "\n".join(blocks)
    padded = list[list[str]]()
    for column in columns:
        size = widest(column)
        padded.append([set_cell_size(cell, size) for cell in column])
    lines = ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
    if console.is_terminal and "NO_COLOR" not in os.environ:
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "\n".join(lines) + "\n"


def _cell(column: str, value: object) -> str:
    if value is None or value == "":
        return _EMPTY
    if isinstance(value, timedelta):
        return span(value.total_seconds())
    text = value if isinstance(value, str) else json.dumps(value)
    return safe(text) if column in _NAMES else printable(text)
