"""Read the names of tenants from the arguments, from a CSV file or from the standard input."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InvalidArgumentError


def check_name(name: str) -> None:
    """Refuse ``-`` as a name for something new: whoever types it means the standard input.

    Raises:
        InvalidArgumentError: It is ``-``.
    """
    if name == "-":
        raise InvalidArgumentError("'-' is no name, and the standard input is not read here; nothing was sent")


def read_names(arguments: list[str] | None, file: Path | None) -> list[str]:
    """Read the names, and check that each comes once.

    Args:
        arguments: The names on the command line, if any.
        file: A CSV file, ``-`` for the standard input, or None. The names are in its column ``name``. If it has only
            one column, that needs no header.

    Returns:
        The names, in their order.

    Raises:
        InvalidArgumentError: There are no names, or there are both arguments and a file; an argument is ``-``; the
            file cannot be read, or has several columns and none is ``name``; a name is empty, or comes twice. The
            message tells the line.
    """
    if arguments and "-" in arguments:
        raise InvalidArgumentError("'-' is no name: to read the names from the standard input, say --from -")
    if file is None:
        if not arguments:
            raise InvalidArgumentError("name the tenants, or take them from a file: --from names.csv")
        return _unique((f"argument {number}", name) for number, name in enumerate(arguments, start=1))
    if arguments:
        raise InvalidArgumentError("give names or --from, not both")
    where = "the standard input" if str(file) == "-" else str(file)
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidArgumentError(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidArgumentError(f"{where}, line {line}: not UTF-8") from None
    names = _unique((f"{where}, line {line}", name) for line, name in _cells(where, text.rstrip()))
    if not names:
        raise InvalidArgumentError(f"{where} holds no name")
    return names


def _cells(where: str, text: str) -> Iterator[tuple[int, str]]:
    """The name in each row, after the number of its line."""
    rows = csv.reader(text.splitlines(keepends=True), strict=True)
    column = 0
    has_header = False
    first = True
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            names = [cell.lower() for cell in cells]
            if first and "name" in names:
                column = names.index("name")
                has_header = True
            elif not any(cells):
                raise InvalidArgumentError(f"{where}, line {rows.line_num}: blank")
            elif len(cells) <= column or not cells[column]:
                raise InvalidArgumentError(f"{where}, line {rows.line_num}: no name in column {column + 1}")
            elif any(separator in cells[column] for separator in ";\t"):
                raise InvalidArgumentError(f"{where}, line {rows.line_num}: columns are separated by commas in CSV")
            elif len(cells) > 1 and not has_header:
                raise InvalidArgumentError(
                    f"{where}, line {rows.line_num}: several columns ({', '.join(cells)}), and the first line calls "
                    "none of them name"
                )
            else:
                yield rows.line_num, cells[column]
            first = False
    except csv.Error as error:
        raise InvalidArgumentError(f"{where}, line {rows.line_num}: not CSV: {error}") from None


def _unique(found: Iterable[tuple[str, str]]) -> list[str]:
    seen: dict[str, str] = {}
    for where, name in found:
        if not name:
            raise InvalidArgumentError(f"{where} is empty")
        if name in seen:
            raise InvalidArgumentError(f"{where}: {name!r} is there twice, first in {seen[name]}")
        seen[name] = where
    return list(seen)
