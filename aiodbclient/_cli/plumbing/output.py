"""``Output``: how a command prints what it found or did."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from io import StringIO
from shutil import get_terminal_size
from typing import Annotated, Any, Literal, TypeAlias

from attrs import frozen

from .failures import Exit
from .options import choice
from .printing import note, printable, span, write

Row: TypeAlias = Mapping[str, object]


@frozen(kw_only=True)
class Output:
    """How a command prints what it found or did: for people, or a JSON object on each line."""

    form: Annotated[
        Literal["table", "json"],
        choice("--output", "-o", values="table|json", help="json: one object per line.", common=True),
    ] = "table"

    @property
    def as_json(self) -> bool:
        """Whether a program reads it."""
        return self.form == "json"

    def as_text(self, rows: Sequence[Row]) -> str:
        """Return rows as a program reads them."""
        return "".join(f"{json.dumps(row)}\n" for row in rows)

    def rows(self, rows: Iterable[Row], empty: str = "") -> None:
        """Print rows, or say ``empty`` to people if there are none."""
        found = list(rows)
        if self.as_json:
            write(self.as_text(found))
        elif found:
            write(_table(found))
        elif empty:
            note(empty)

    def preview(self, rows: Iterable[Row]) -> int:
        """Print what a command would do to each name, for ``--dry-run``."""
        self.rows(rows, empty="no name is selected")
        note("--dry-run: nothing was changed")
        return Exit.DONE

    def done(self, text: str, **members: object) -> None:
        """Print what a command did: ``text`` for people, or ``members`` as an object."""
        write(f"{json.dumps(members)}\n" if self.as_json else f"{text}\n")


@frozen(kw_only=True)
class ListOutput(Output):
    """How a command prints a list."""

    form: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]  # it takes more
        Literal["table", "json", "csv"],
        choice("--output", "-o", values="table|json|csv", help="json: one object per line.", common=True),
    ] = "table"  # type: ignore[assignment]

    @property
    def as_json(self) -> bool:
        return self.form != "table"

    def as_text(self, rows: Sequence[Row]) -> str:
        return _csv(rows) if self.form == "csv" else super().as_text(rows)


@frozen(kw_only=True)
class CredentialOutput(Output):
    """How ``show`` prints credentials."""

    form: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]  # it takes more
        Literal["table", "json", "env", "uri", "k8s"],
        choice(
            "--output",
            "-o",
            values="table|json|env|uri|k8s",
            help="env: for docker --env-file; k8s: a Secret. env, uri and k8s print secrets.",
            common=True,
        ),
    ] = "table"  # type: ignore[assignment]


def _titles(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(title for row in rows for title in row)) or ["name"]


def _csv(rows: Sequence[Row]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles := _titles(rows))
    for row in rows:
        values = ["" if row.get(title) is None else row[title] for title in titles]
        writer.writerow([each if isinstance(each, str) else json.dumps(each) for each in values])
    return text.getvalue()


def _table(rows: Sequence[Row]) -> str:
    """A table that cuts no value, since people copy them. On a narrow terminal each value has a line."""
    titles = _titles(rows)
    columns = [[title, *(_cell(row.get(title)) for row in rows)] for title in titles]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    if sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) > get_terminal_size().columns:
        width, (_, *records) = max(map(len, titles)), lines
        return "\n".join("".join(map(f"{{:{width}}}  {{}}\n".format, titles, each)) for each in records)
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, timedelta):
        return span(value.total_seconds())
    return printable(value if isinstance(value, str) else json.dumps(value))
