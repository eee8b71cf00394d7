"""Ask on the terminal, and the bounds of what is removed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import typer

from ..errors import InvalidArgumentError
from ..tenants import Role
from .output import note, printable, safe, write_error

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOWN = 10  # names that a question lists at most


class DeclinedError(typer.Abort):
    """The answer was no."""


def confirm(what: str, *, yes: bool, words: Sequence[str] = ()) -> None:
    """Ask on the terminal whether to go on, unless ``yes``. With ``words``, one of them has to be typed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidArgumentError(f"{what} There is no terminal to ask on: repeat with --yes. Nothing was changed")
    while True:
        answer = _answer(f"{what} Type {' or '.join(words)} to go on: " if words else f"{what} [y/N]: ")
        if answer in words or (not words and answer.lower() in ("y", "yes")):
            return
        if words or answer.lower() in ("n", "no", ""):
            raise DeclinedError
        note("answer y or n")


def _answer(question: str) -> str:
    """Ask on the standard error, since the standard output may be a file. ``typer.confirm`` prints on both."""
    try:
        with interruptible():
            write_error(printable(question))
            line = sys.stdin.readline()
    except KeyboardInterrupt:
        raise typer.Abort from None
    if not line:
        raise typer.Abort
    return line.strip()


@contextmanager
def interruptible() -> Generator[None]:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt in code that waits without the event loop."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_most(removed: int, most: int | None) -> None:
    """Raise InvalidArgumentError if ``removed`` is more than ``--max`` allows."""
    if most is not None and removed > most:
        raise InvalidArgumentError(
            f"{removed} would be removed, which is more than --max {most}: is the file complete? Nothing was changed"
        )


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(safe, names[:_SHOWN]))}{more}"


def removal(names: Sequence[str], cluster: str, role: Role, what: str) -> str:
    """The question before tenants are removed."""
    number = f" ({len(names)})" if len(names) > 1 else ""
    if role is not Role.OWNER:
        return f"Remove the {role} logins of {some(names)}{number} from {cluster}?"
    return f"Remove {some(names)}{number} from {cluster}: {what or 'logins, databases with all data, and records'}?"
