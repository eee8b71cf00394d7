"""Print: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

NAME = "aiodbclient"
FEW = 10  # names that a message lists at most


def write(text: str) -> None:
    """Print ``text`` on the standard output at once."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails to flush when it ends
        if error.errno != errno.EPIPE:
            error.filename = "the standard output"
        raise


def note(text: str) -> None:
    """Print a note on the standard error, unless the terminal was closed."""
    with suppress(OSError):
        print(f"{NAME}: {printable(text)}", file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """``text`` with control characters escaped, so that no name can control the terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(text))


def some(texts: Sequence[str], between: str = ", ") -> str:
    """The first of the texts, and how many more there are."""
    more = f" and {len(texts) - FEW} more" if len(texts) > FEW else ""
    return f"{between.join(texts[:FEW])}{more}"


def counted(names: Sequence[str], what: str = "tenants") -> str:
    """The names and how many there are, or only how many if there are more than a few."""
    return f"{some(names)} ({len(names)})" if len(names) <= FEW else f"{len(names)} {what}"


def span(seconds: float) -> str:
    """A duration for people: ``45s``, ``12m``, ``3h``, ``9d``."""
    for unit, size, most in (("s", 1, 120), ("m", 60, 180), ("h", 3600, 72)):
        if seconds < size * most:
            return f"{max(round(seconds / size), 0)}{unit}"
    return f"{round(seconds / 86400)}d"


def took(seconds: float) -> str:
    """A measured duration for people: ``0.3 s``, ``12m``."""
    return f"{seconds:.1f} s" if seconds < 120 else span(seconds)


def sized(number: int) -> str:
    """A number of bytes for people: ``512 bytes``, ``7.9 MB``."""
    from rich.filesize import decimal  # slow to import, and not needed for help

    return decimal(number)
