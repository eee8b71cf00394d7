"""Read what an operator names: a file or the standard input, and the names of tenants in it."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import mkstemp

from ..engines import Engine
from ..errors import InvalidArgumentError
from ..tenants._naming import names_of
from .asking import FEW, interruptible
from .output import private

MOST_BYTES = 32 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SECRET = re.compile(r"do[por]_v1_|AVNS_")  # tokens and passwords of DigitalOcean
_SHOWN = 10  # problems that a message lists at most

# What is more likely the title of a column than a name, in the first line.
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


def locate_names(arguments: list[str] | None, file: Path | None) -> dict[str, str]:
    """Read the names, and check that none comes twice. A line of a file that begins with # is a comment."""
    if arguments and "-" in arguments:
        raise InvalidArgumentError("'-' is not a name: to read the names from the standard input, use --from -")
    if file is None:
        if not arguments:
            raise InvalidArgumentError("which tenants? Give their names, or a file: --from names.csv")
        return _unique((f"argument {number}", name, "") for number, name in enumerate(arguments, start=1))
    if arguments:
        raise InvalidArgumentError("give names or --from, not both")
    text = read_text(file).rstrip()
    if not text:
        raise InvalidArgumentError(f"{shown(file)} is empty: a file without names has the line `name`")
    return _unique(_cells(shown(file), text))


def write_names(file: Path, names: Iterable[str]) -> None:
    """Write a file that ``locate_names`` reads."""
    try:
        with open(file, "w", newline="", opener=private) as opened:
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


def _cells(where: str, text: str) -> Iterator[tuple[str, str, str]]:
    """The place of each row, its name, and what is wrong; up to a first row that shows another form of file."""
    number, column, width = 0, 0, None

    def lines() -> Iterator[str]:
        nonlocal number
        for line in text.splitlines(keepends=True):
            number += 1
            if not line.startswith("#"):
                yield line

    try:
        for at, row in enumerate(csv.reader(lines(), strict=True)):
            here = f"{where}, line {number}"
            cells = [cell.strip() for cell in row]
            titles = [cell.lower() for cell in cells]
            if at == 0 and "name" in titles:
                column, width = titles.index("name"), len(titles)
                continue
            problem = _problem(cells, column, width)
            if at == 0 and not problem and cells[0].lower().replace(" ", "_").strip("_") in _TITLES:
                problem = (
                    f"{cells[0]!r} looks like the title of a column. If it is, call the column `name`; if it is a "
                    "tenant, put a line `name` above it"
                )
            if not problem and not (_NAME.fullmatch(cells[column]) and not _SECRET.match(cells[column])):
                problem = "this is no tenant's name"  # it may be a secret: it is not printed
            yield here, "" if problem else cells[column], problem
            if at == 0 and problem:
                return
    except csv.Error as error:
        yield f"{where}, line {number}", "", f"not CSV: {error}"


def _problem(cells: Sequence[str], column: int, width: int | None) -> str:
    """What is wrong with a row; empty if nothing is. ``width`` is the number of columns in the header, if any."""
    if not any(cells):
        return "blank"
    if any(separator in cells[min(column, len(cells) - 1)] for separator in ";\t"):
        return "columns are separated by commas in CSV"
    if width is None and len(cells) > 1:
        return f"{len(cells)} columns, and the first line calls none of them name"
    if width is not None and len(cells) != width:
        return f"the number of columns is {len(cells)}, and {width} in the header"
    return "" if cells[column] else f"no name in column {column + 1}"


def _unique(cells: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    seen, problems = dict[str, str](), list[str]()
    for place, name, problem in cells:
        if problem:
            problems.append(f"{place}: {problem}")
        elif not name:
            problems.append(f"{place} is empty")
        elif name in seen:
            problems.append(f"{place}: {name!r} is there twice, first in {seen[name]}")
        else:
            seen[name] = place
    _refuse(problems)
    return seen
