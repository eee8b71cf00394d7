"""Ask on the terminal."""

from __future__ import annotations

import select
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager

import typer

from ..errors import InvalidArgumentError
from .output import note, printable, write_error

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        raise InvalidArgumentError(f"{what} There is no terminal to ask on: repeat with --yes. Nothing was changed")
    return ask(what)


def ask(question: str) -> bool:
    """Ask ``question`` on the terminal. Returns whether the answer is yes. Raises typer.Abort as ``confirm``."""
    try:
        with interruptible():
            return _answer(f"{printable(question)} [y/N]: ")
    except (KeyboardInterrupt, EOFError):
        raise typer.Abort from None


@contextmanager
def interruptible() -> Generator[None]:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt in code that waits without the event loop.

    The loop stands still meanwhile, so its own handlers of signals would not run.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answer(question: str) -> bool:
    while True:
        write_error(question)
        answer = _read_line().strip().lower()
        if answer in ("y", "yes", "n", "no", ""):
            return answer.startswith("y")
        note("answer y or n")


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
