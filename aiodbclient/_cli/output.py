"""``Output``: how a command prints what it found or did."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeAlias

from attrs import frozen

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
        return self.form == "json"

    def rows(self, rows: Iterable[Row], empty: str = "") -> None:
        """Print rows, or say ``empty`` to people if there are none."""
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


def _table(rows: Sequence[Row]) -> str:
    """A table that folds and cuts no value, since people copy them."""
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
