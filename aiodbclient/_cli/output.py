"""Print: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeAlias

from attrs import frozen

from .options import NAME, choice

Row: TypeAlias = Mapping[str, object]
FEW = 10  # names that a message lists at most
_BYTES = ("B", "kB", "MB", "GB", "TB")


@frozen(kw_only=True)
class Output:
    """How a command prints what it found or did: for people, or a JSON object on each line."""

    form: Annotated[
        Literal["table", "json"],
        choice("--output", "-o", values="table|json", help="json: an object a line.", common=True),
    ] = "table"

    @property
    def as_json(self) -> bool:
        """Whether to print JSON."""
        return self.form == "json"

    def rows(self, rows: Iterable[Row], empty: str = "") -> None:
        """Print rows. If there are none, say ``empty`` to people."""
        found = list(rows)
        if self.as_json:
            write("".join(f"{json.dumps(row)}\n" for row in found))
        elif found:
            write(_table(found))
        elif empty:
            note(empty)

    def done(self, text: str, **members: object) -> None:
        """Print what a command did: ``text`` for people, or ``members`` as an object."""
        write(f"{json.dumps(members)}\n" if self.as_json else f"{text}\n")


@frozen(kw_only=True)
class CredentialOutput(Output):
    """How ``show`` prints credentials."""

    form: Annotated[
        Literal["table", "json", "env", "uri", "k8s"],
        choice(
            "--output",
            "-o",
            values="table|json|env|uri|k8s",
            help="env: for docker --env-file; k8s: a Secret. env, uri and k8s print secrets.",
            common=True,
        ),
    ] = "table"  # type: ignore[assignment]  # it takes more


def write(text: str) -> None:
    """Print ``text`` on the standard output at once."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails to flush when it ends
        if error.errno != errno.EPIPE:
            error.filename = "the standard output"
        raise


def note(text: str) -> None:
    """Print a note on the standard error."""
    print(f"{NAME}: {printable(text)}", file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """``text`` with control characters escaped, so that no name can control the terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(text))


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{', '.join(names[:FEW])}{more}"


def span(seconds: float) -> str:
    """A duration for people: ``45s``, ``12m``, ``3h``, ``9d``."""
    for unit, size, most in (("s", 1, 120), ("m", 60, 180), ("h", 3600, 72)):
        if seconds < size * most:
            return f"{max(round(seconds / size), 0)}{unit}"
    return f"{round(seconds / 86400)}d"


def took(seconds: float) -> str:
    """A measured duration for people: ``0.3 s``, ``12m``."""
    return f"{seconds:.1f} s" if seconds < 120 else span(seconds)


def sized(number: int) -> str:
    """A number of bytes for people: ``512 B``, ``7.9 MB``."""
    size, unit = float(number), 0
    while size >= 1000 and unit < len(_BYTES) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_BYTES[unit]}" if unit else f"{number} B"


def _table(rows: Sequence[Row]) -> str:
    """A table. No value is folded or cut, since people copy them."""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    columns = [[title, *(_cell(row.get(title)) for row in rows)] for title in titles]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, timedelta):
        return span(value.total_seconds())
    return printable(value if isinstance(value, str) else json.dumps(value))
