"""Ask on the terminal, and the one rule of everything that deletes."""

from __future__ import annotations

import signal
import sys
import termios
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import typer

from ..errors import InvalidArgumentError
from ..tenants import Role
from .output import note, printable, safe, this_command, wrapped, write_error

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # the terminal was closed; nohup ignores that
    SIGNALS.append(signal.SIGHUP)
FEW = 10  # names that a question or a suggested command lists at most
FEW_TYPED = 5  # names on the command line that are ended without their number


class DeclinedError(typer.Abort):
    """The answer was no."""


def confirm(what: str, *, yes: bool, words: Sequence[str] = (), options: Sequence[str] = ()) -> None:
    """Ask on the terminal whether to go on, unless ``yes``. With ``words``, the answer must be one of them."""
    if yes:
        return
    if not has_terminal():
        again = this_command("--yes", *options)
        raise InvalidArgumentError(f"{what} There is no terminal to ask on. To go on: {again}. Nothing was changed")
    termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before is no answer to this
    while True:
        answer = _answer(f"{what} Type {' or '.join(words)} to go on: " if words else f"{what} [y/N]: ")
        if answer in words or (not words and answer.lower() in ("y", "yes")):
            return
        if words or answer.lower() in ("n", "no", ""):
            raise DeclinedError
        note("answer y or n")


def confirm_ending(
    what: str, number: int, *, typed: bool, cluster: str, most: int | None, yes: bool, done: str = "removed"
) -> None:
    """Ask before so many names are deleted or suspended: the rule of every command that does that.

    A few names that were ``typed`` on the command line need a y, or --yes. More of them, and names that come from
    elsewhere (--all, --from, --prune), need their number or the cluster's name, or --yes with --max.
    """
    typed = typed and number <= FEW_TYPED
    check_most(number, most, done)
    bound = ["--max", str(number)] if most is None and not typed else []
    if yes and bound:
        now = f". {number} would be {done} now" if number else f", the most that may be {done}, such as"
        again = this_command("--max", str(number or FEW))
        raise InvalidArgumentError(f"--yes needs --max N here{now}: {again}. Nothing was changed")
    if number:
        words = [] if typed else [str(number), *([] if ", " in cluster else [cluster])]
        confirm(what, yes=yes, words=words, options=bound)


def asks(number: int) -> bool:
    """Whether a change of all tenants, ``number`` now, asks. In cron, a missing --yes fails on the first day."""
    return number > 0 or not has_terminal()


def has_terminal() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty()


def _answer(question: str) -> str:
    """Ask on the standard error, since the standard output may be a file. ``typer.confirm`` prints on both."""
    try:
        with interruptible():
            write_error(wrapped(printable(question), sys.stderr))
            line = sys.stdin.readline()
    except KeyboardInterrupt:
        raise typer.Abort from None
    if not line:
        raise typer.Abort
    return line.strip()


@contextmanager
def interruptible() -> Generator[None]:
    """Make ``SIGNALS`` raise KeyboardInterrupt in code that waits without the event loop, which misses them."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


def check_most(number: int, most: int | None, done: str = "removed") -> None:
    """Raise InvalidArgumentError if ``number`` is more than ``--max`` allows."""
    if most is not None and number > most:
        raise InvalidArgumentError(
            f"{number} would be {done}, which is more than --max {most}: are these the ones? Nothing was changed"
        )


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{', '.join(map(safe, names[:FEW]))}{more}"


def removal(names: Sequence[str], cluster: str, role: Role, what: str = "") -> str:
    """The question before tenants are removed."""
    number = f" ({len(names)})" if len(names) > 1 else ""
    if role is not Role.OWNER:
        return f"Remove the {role} logins of {some(names)}{number} from {cluster}?"
    return f"Remove {some(names)}{number} from {cluster}: {what or 'logins, databases with all data, and records'}?"
