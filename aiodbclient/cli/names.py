"""Read the names of tenants from the arguments, from a CSV file or from the standard input."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InvalidArgumentError

_TITLES = frozenset(
    {
        *("names", "tenant", "tenants", "tenant_name", "tenant_names", "tenantname", "tenant_id", "id", "slug"),
        *("customer", "customers", "customer_name", "customer_id", "user", "users", "username", "user_name", "login"),
        *("database", "databases", "database_name", "db", "dbname", "db_name", "account", "account_name", "company"),
    }
)


def check_name(name: str) -> None:
    """Refuse ``-`` as a name for something new: whoever types it means the standard input.

    Raises:
        InvalidArgumentError: It is ``-``.
    """
    if name == "-":
        raise InvalidArgumentError(
            "'-' is not a name, and names are not read from the standard input here; nothing was sent"
        )


def read_names(arguments: list[str] | None, file: Path | None) -> list[str]:
    """Read the names, and check that none comes twice. A line of a file that begins with # is a comment.

    Args:
        arguments: The names on the command line, if any.
        file: A CSV file, ``-`` for the standard input, or None. The names are in its column ``name``. If it has only
            one column, that needs no header.

    Returns:
        The names, in their order.

    Raises:
        InvalidArgumentError: There are no names, or there are both arguments and a file; an argument is ``-``; the
            file cannot be read, or has several columns and none is ``name``; a name is empty, or comes twice. The
            message names the line.
    """
    if arguments and "-" in arguments:
        raise InvalidArgumentError("'-' is not a name: to read the names from the standard input, use --from -")
    if file is None:
        if not arguments:
            raise InvalidArgumentError("which tenants? Give their names, or a file: --from names.csv")
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


class _Lines:
    """The lines of a text, without comments.

    Attributes:
        number: The number of the last line, comments counted.
    """

    def __init__(self, text: str) -> None:
        self.number = 0
        self._lines = text.splitlines(keepends=True)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            if not line.startswith("#"):
                yield line


def _cells(where: str, text: str) -> Iterator[tuple[int, str]]:
    """The name in each row, after the number of its line."""
    lines = _Lines(text)
    column = 0
    has_header = False
    first = True
    try:
        for row in csv.reader(lines, strict=True):
            here = f"{where}, line {lines.number}"
            cells = [cell.strip() for cell in row]
            names = [cell.lower() for cell in cells]
            if first and "name" in names:
                column = names.index("name")
                has_header = True
            elif not any(cells):
                raise InvalidArgumentError(f"{here}: blank")
            elif len(cells) <= column or not cells[column]:
                raise InvalidArgumentError(f"{here}: no name in column {column + 1}")
            elif any(separator in cells[column] for separator in ";\t"):
                raise InvalidArgumentError(f"{here}: columns are separated by commas in CSV")
            elif len(cells) > 1 and not has_header:
                raise InvalidArgumentError(
                    f"{here}: several columns ({', '.join(cells)}), and the first line calls none of them name"
                )
            elif first and _looks_like_header(cells[0]):
                raise InvalidArgumentError(
                    f"{here}: {cells[0]!r} looks like the title of a column. If it is, call the column `name`; if it "
                    "is a tenant, put a line `name` above it. Nothing was sent"
                )
            else:
                yield lines.number, cells[column]
            first = False
    except csv.Error as error:
        raise InvalidArgumentError(f"{where}, line {lines.number}: not CSV: {error}") from None


def _looks_like_header(name: str) -> bool:
    """Whether ``name``, in the first line of a file with one column, is more likely the title of the column."""
    return name.lower().replace(" ", "_").strip("_") in _TITLES


def _unique(found: Iterable[tuple[str, str]]) -> list[str]:
    seen: dict[str, str] = {}
    for where, name in found:
        if not name:
            raise InvalidArgumentError(f"{where} is empty")
        if name in seen:
            raise InvalidArgumentError(f"{where}: {name!r} is there twice, first in {seen[name]}")
        seen[name] = where
    return list(seen)
