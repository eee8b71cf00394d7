"""Print: results on the standard output, everything else on the standard error. Ask on the terminal."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable, Mapping

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import InvalidArgumentError

NAME = "aiodbclient"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WIDE = 1_000_000  # columns of an output that is no terminal, so that no line is folded


class OutputError(Exception):
    """The standard output cannot be written: its disk is full, it is closed, or its reader has gone.

    Attributes:
        gone: Whether its reader has gone, such as ``head`` in a pipe, which no operator needs to be told.
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
        # Else Python would fail to flush it again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(error, lost) from None


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
    return Console(highlight=False, markup=False, emoji=False)


def error_console() -> Console:
    """A console on the standard error."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def tell(text: str) -> None:
    """Print ``text`` on the standard error, after the name of the command."""
    print(f"{NAME}: {printable(text)}", file=sys.stderr)


def printable(text: object) -> str:
    """``text`` with control characters escaped, so that a name from the API cannot control the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def print_rows(rows: Iterable[Mapping[str, object]], *, as_json: bool, lost: str = "") -> None:
    """Print ``rows`` as a table that fits the terminal, or as a JSON object for each.

    Raises:
        OutputError: The standard output cannot be written. It has ``lost``.
    """
    lines = list(rows)
    if as_json:
        write("".join(f"{json.dumps(row)}\n" for row in lines), lost)
    elif lines:
        console = stdout_console()
        if not console.is_terminal:
            console.width = _WIDE
        table = Table(box=None, pad_edge=False, header_style="bold")
        columns = list(dict.fromkeys(name for row in lines for name in row))
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in lines:
            table.add_row(*(Text(_cell(row.get(name))) for name in columns))
        # Rich itself would end the process with 1 when the reader of the output has gone.
        with console.capture() as captured:
            console.print(table)
        write(captured.get(), lost)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else json.dumps(value))


def confirm(what: str, *, yes: bool) -> bool:
    """Ask on the terminal whether to go on.

    Args:
        what: The question.
        yes: Whether ``--yes`` was given. Then nothing is asked, and the answer is True.

    Returns:
        The answer.

    Raises:
        InvalidArgumentError: The standard input is no terminal.
        typer.Abort: Ctrl-C, SIGTERM or the end of the input came instead of an answer.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidArgumentError(f"{what} Nobody can be asked here: say --yes. Nothing was changed")
    # The event loop stands still while this waits, so its handlers of signals would not run.
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        return _answer(f"{printable(what)} [y/N]: ")
    except (KeyboardInterrupt, EOFError):
        raise typer.Abort from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answer(question: str) -> bool:
    while True:
        print(question, end="", file=sys.stderr, flush=True)
        answer = _read_line().strip().lower()
        if answer in ("y", "yes", "n", "no", ""):
            return answer.startswith("y")
        tell("answer y or n")


def _read_line() -> str:
    """Read a line of the standard input. Raises KeyboardInterrupt on a signal, and EOFError at the end of the input.

    ``input()`` would miss a signal that comes just before it waits, and then wait for ever.
    """
    awakened, wakeup = socket.socketpair()
    with awakened, wakeup:
        wakeup.setblocking(False)
        before = signal.set_wakeup_fd(wakeup.fileno())
        try:
            if awakened in select.select([sys.stdin, awakened], [], [])[0]:
                raise KeyboardInterrupt
        finally:
            signal.set_wakeup_fd(before)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
