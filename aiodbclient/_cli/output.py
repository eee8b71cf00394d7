"""Print: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len

if TYPE_CHECKING:
    from rich.console import Console

NAME = "aiodbclient"

speaks_json: ContextVar[bool] = ContextVar("speaks_json", default=False)
"""Whether the command was given ``--json``: then each line of the standard error is a JSON object too."""


class OutputError(Exception):
    """The standard output cannot be written: its disk is full, it is closed, or its reader has gone.

    Attributes:
        gone: Whether its reader has gone, such as ``head`` in a pipe. No operator needs to know that.
        lost: What was not printed and is nowhere else, and what to do about it; empty if nothing is lost.
    """

    def __init__(self, error: OSError, lost: str = "") -> None:
        super().__init__(f"the standard output cannot be written: {error.strerror}")
        self.gone = isinstance(error, BrokenPipeError)
        self.lost = lost


def check_stdout(lost: str) -> None:
    """Raise OutputError if the process was started with its standard output closed. Then ``print`` would do nothing."""
    if sys.__stdout__ is None:
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)), lost)


def write(text: str, lost: str = "") -> None:
    """Print ``text`` on the standard output at once.

    Args:
        text: Whole lines.
        lost: As for ``OutputError``.

    Raises:
        OutputError: The standard output cannot be written. It is discarded from now on.
    """
    check_stdout(lost)
    try:
        print(text, end="", flush=True)
    except OSError as error:
        discard_stdout()
        raise OutputError(error, lost) from None


def discard_stdout() -> None:
    """Discard what is still to be written. Otherwise Python fails to flush it when the process ends."""
    _discard(sys.stdout)


def _discard(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write_error(text: str) -> None:
    """Print ``text`` on the standard error at once. If it cannot be written, only the exit code says why."""
    if sys.stderr is None:  # closed from the start: ``print`` would use the standard output
        return
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


class Lines:
    """Writes lines to the standard output, as long as that can be written.

    Attributes:
        failure: Why no more is written; None while all is well.
    """

    def __init__(self) -> None:
        self.failure: OutputError | None = None

    def write(self, line: str) -> None:
        """Print ``line`` at once. Does nothing once that has failed."""
        if self.failure is None:
            try:
                write(f"{line}\n")
            except OutputError as error:
                self.failure = error


def stdout_console() -> Console:
    """A console on the standard output."""
    return _console()


def error_console() -> Console:
    """A console on the standard error."""
    return _console(stderr=True)


def _console(**options: Any) -> Console:
    from rich.console import Console  # slow to import, and not needed for help

    return Console(highlight=False, markup=False, emoji=False, **options)


def note(text: str) -> None:
    """Print a note on the standard error."""
    _say({"note": text}, text, as_json=speaks_json.get())


def complain(text: str, code: int, *, as_json: bool | None = None) -> None:
    """Print on the standard error why the command ends.

    Args:
        text: The reason, and what to do.
        code: The exit code.
        as_json: Whether to print an object; None: as ``speaks_json`` says.
    """
    _say({"error": text, "exit_code": code}, text, as_json=speaks_json.get() if as_json is None else as_json)


def _say(members: Mapping[str, object], text: str, *, as_json: bool) -> None:
    write_error(f"{json.dumps(members)}\n" if as_json else f"{NAME}: {printable(text)}\n")


def printable(text: object) -> str:
    """``text`` with control characters escaped, so that a name from the API cannot control the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def this_command() -> str:
    """The command line of this process, to be copied. Passwords in its URLs and DSNs are masked."""
    masked = (re.sub(r"(://[^:/@\s]*:)[^@\s]+@", r"\1********@", each) for each in sys.argv[1:])
    return command_line(re.sub(r"(password\s*=\s*)\S+", r"\1********", each) for each in masked)


def command_line(arguments: Iterable[str]) -> str:
    """The command with ``arguments``, quoted for a shell and without control characters."""
    return " ".join([NAME, *map(_quoted, arguments)])


def _quoted(argument: str) -> str:
    r"""``argument`` for a shell. Control characters are escaped in the form of bash, zsh and ksh: ``$'a\x1b'``."""
    if argument.isprintable():
        return shlex.quote(argument)
    return f"$'{''.join(map(_escaped, argument))}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def print_rows(rows: Iterable[Mapping[str, object]], *, as_json: bool, lost: str = "", none: str = "") -> None:
    """Print ``rows`` as a table, or as a JSON object for each. No value is folded, since people copy them.

    A table that is wider than the terminal is printed as a line ``name: value`` for each value.

    Args:
        rows: The rows. Each has the names of its columns.
        as_json: Whether to print JSON.
        lost: As for ``OutputError``.
        none: What to say on the standard error if there are no rows; empty for nothing.

    Raises:
        OutputError: The standard output cannot be written. It has ``lost``.
    """
    lines = list(rows)
    if not lines and none and not as_json:
        note(none)
    if as_json:
        write("".join(f"{json.dumps(row)}\n" for row in lines), lost)
    elif lines:
        write(_table(lines), lost)


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(cell_len(each[at]) for each in [columns, *cells]) for at in range(len(columns))]
    console = stdout_console()
    if console.is_terminal and sum(widths) + 2 * (len(widths) - 1) > console.width:
        return "\n".join(_block(columns, row) for row in cells)
    lines = ["  ".join(map(_padded, row, widths)).rstrip() for row in [columns, *cells]]
    if console.is_terminal and "NO_COLOR" not in os.environ:
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "\n".join(lines) + "\n"


def _block(columns: Sequence[str], row: Sequence[str]) -> str:
    return "".join(f"{name}: {cell}\n" for name, cell in zip(columns, row, strict=True) if cell)


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else json.dumps(value))
