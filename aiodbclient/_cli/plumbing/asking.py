"""Ask on the terminal before something ends."""

from __future__ import annotations

import signal
import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager

import typer

from ...errors import InvalidArgumentError
from .options import Confirmation, Selection

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # the terminal was closed; nohup ignores that
    SIGNALS.append(signal.SIGHUP)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal whether to go on, unless ``yes``, and raise typer.Abort if not."""
    if yes:
        return
    if not has_terminal():
        raise InvalidArgumentError(f"{question} There is no terminal to ask on: add --yes. Nothing was changed")
    termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before is no answer to this
    with interruptible():
        typer.confirm(question, abort=True, err=True)


def confirm_destructive(question: str, number: int, selection: Selection, confirmation: Confirmation) -> None:
    """Ask before ``number`` names lose something, and refuse ``--yes`` without ``--max`` for names not typed."""
    if confirmation.dry_run:
        return
    if confirmation.most is not None and number > confirmation.most:
        raise InvalidArgumentError(f"{number} are selected, more than --max {confirmation.most}. Nothing was changed")
    if confirmation.yes and confirmation.most is None and not selection.is_typed:
        raise InvalidArgumentError(
            f"--yes needs --max N with --all or --from: {number} are selected. Nothing was changed"
        )
    if number:
        confirm(question, yes=confirmation.yes)


def has_terminal() -> bool:
    """Whether somebody can answer. The standard input may be closed."""
    return sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def interruptible() -> Generator[None]:
    """Make ``SIGNALS`` raise typer.Abort in code that waits without the event loop, which misses them."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Abort from None
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
