"""Read what an operator names: a file or the standard input, and the names of tenants in it."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import mkstemp

from attrs import frozen

from ..engines import Engine
from ..errors import InvalidArgumentError
from ..tenants._naming import names_of
from .asking import FEW, interruptible

MOST_BYTES = 32 * 1024 * 1024
_SHOWN = 10  # problems that a message lists at most

_TITLES = frozenset(
    {
        *("names", "tenant", "tenants", "tenant_name", "tenant_names", "tenantname", "tenant_id", "id", "slug"),
        *("customer", "customers", "customer_name", "customer_id", "user", "users", "username", "user_name", "login"),
        *("database", "databases", "database_name", "db", "dbname", "db_name", "account", "account_name", "company"),
    }
)


def shown(file: Path) -> str:
    """The file as a message names it."""
    return "the standard input" if str(file) == "-" else str(file)


def read_text(file: Path, most: int = MOST_BYTES) -> str:
    """Read a file in UTF-8, with or without a byte order mark."""
    try:
        with interruptible():
            data = _read(file, most + 1)
        if len(data) > most:
            raise InvalidArgumentError(f"{shown(file)} is larger than {most // 1024**2} MiB: is it the right file?")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidArgumentError(f"{shown(file)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidArgumentError(f"{shown(file)}, line {line}: not UTF-8") from None


def _read(file: Path, most: int) -> bytes:
    if str(file) == "-":
        if sys.stdin is None:
            raise InvalidArgumentError("the standard input is closed")
        return sys.stdin.buffer.read(most)
    with file.open("rb") as opened:
        return opened.read(most)


def check_name(name: str) -> None:
    """Refuse ``-`` as a name for something new: whoever types it means the standard input."""
    if name == "-":
        raise InvalidArgumentError(
            "'-' is not a name, and names are not read from the standard input here; nothing was sent"
        )


def read_names(arguments: list[str] | None, file: Path | None) -> list[str]:
    """Read the names, in their order. Takes and raises what ``locate_names`` does."""
    return list(locate_names(arguments, file))


def locate_names(arguments: list[str] | None, file: Path | None) -> dict[str, str]:
    """Read the names, and check that none comes twice. A line of a file that begins with # is a comment."""
    if arguments and "-" in arguments:
        raise InvalidArgumentError("'-' is not a name: to read the names from the standard input, use --from -")
    if file is None:
        if not arguments:
            raise InvalidArgumentError("which tenants? Give their names, or a file: --from names.csv")
        return _unique(_Cell(f"argument {number}", name) for number, name in enumerate(arguments, start=1))
    if arguments:
        raise InvalidArgumentError("give names or --from, not both")
    text = read_text(file).rstrip()
    if not text:
        raise InvalidArgumentError(f"{shown(file)} is empty: a file without names has the line `name`")
    return _unique(_cells(shown(file), text))


def write_names(file: Path, names: Iterable[str]) -> None:
    """Write a file that ``locate_names`` reads."""
    try:
        with file.open("w", newline="") as opened:
            csv.writer(opened).writerows([["name"], *([name] for name in names)])
    except OSError as error:
        raise InvalidArgumentError(f"{file} cannot be written: {error.strerror}") from None


def selecting(names: Sequence[str]) -> list[str]:
    """The arguments that select ``names``: a few of them as they are, more in a new file that only this user reads."""
    if len(names) <= FEW:
        return list(names)
    handle, path = mkstemp(prefix="aiodbclient-failed-", suffix=".csv")
    os.close(handle)
    write_names(Path(path), names)
    return ["--from", path]


def check_tenants(names: Mapping[str, str], engine: Engine | str, prefix: str) -> None:
    """Check that all names can be tenants' names."""
    problems = list[str]()
    for name, place in names.items():
        try:
            names_of(name, engine, prefix)
        except InvalidArgumentError as error:
            problems.append(f"{place}: {str(error).removesuffix('; nothing was sent')}")
    _refuse(problems)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - _SHOWN
        end = f"; and {more} more" if more > 0 else ""
        raise InvalidArgumentError(f"{'; '.join(problems[:_SHOWN])}{end}. Nothing was changed")


@frozen
class _Cell:
    """A name in its place, or what is wrong there."""

    place: str
    name: str = ""
    problem: str = ""


class _Lines:
    """The lines of a text, without comments."""

    def __init__(self, text: str) -> None:
        self.number = 0
        self._lines = text.splitlines(keepends=True)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            if not line.startswith("#"):
                yield line


def _cells(where: str, text: str) -> Iterator[_Cell]:
    """The name in each row. It ends after the first row if that shows that the whole file is of another form."""
    lines = _Lines(text)
    rows = csv.reader(lines, strict=True)
    column, width = 0, None
    try:
        for at, row in enumerate(rows):
            here = f"{where}, line {lines.number}"
            cells = [cell.strip() for cell in row]
            titles = [cell.lower() for cell in cells]
            if at == 0 and "name" in titles:
                column, width = titles.index("name"), len(titles)
                continue
            problem = _problem(cells, column, width)
            if at == 0 and not problem and _looks_like_header(cells[0]):
                problem = (
                    f"{cells[0]!r} looks like the title of a column. If it is, call the column `name`; if it is a "
                    "tenant, put a line `name` above it"
                )
            yield _Cell(here, problem=problem) if problem else _Cell(here, cells[column])
            if at == 0 and problem:
                return
    except csv.Error as error:
        yield _Cell(f"{where}, line {lines.number}", problem=f"not CSV: {error}")


def _problem(cells: Sequence[str], column: int, width: int | None) -> str:
    """What is wrong with a row; empty if nothing is. ``width`` is the number of columns in the header, if any."""
    if not any(cells):
        return "blank"
    if any(separator in cells[min(column, len(cells) - 1)] for separator in ";\t"):
        return "columns are separated by commas in CSV"
    if width is None and len(cells) > 1:
        return f"several columns ({', '.join(cells)}), and the first line calls none of them name"
    if width is not None and len(cells) != width:
        return f"the number of columns is {len(cells)}, and {width} in the header"
    return "" if cells[column] else f"no name in column {column + 1}"


def _looks_like_header(name: str) -> bool:
    """Whether ``name``, in the first line of a file with one column, is more likely the title of the column."""
    return name.lower().replace(" ", "_").strip("_") in _TITLES


def _unique(cells: Iterable[_Cell]) -> dict[str, str]:
    seen, problems = dict[str, str](), list[str]()
    for cell in cells:
        if cell.problem:
            problems.append(f"{cell.place}: {cell.problem}")
        elif not cell.name:
            problems.append(f"{cell.place} is empty")
        elif cell.name in seen:
            problems.append(f"{cell.place}: {cell.name!r} is there twice, first in {seen[cell.name]}")
        else:
            seen[cell.name] = cell.place
    _refuse(problems)
    return seen
