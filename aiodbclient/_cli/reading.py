"""Read what an operator names: a file, or the standard input. Bounded, and it can be stopped."""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import InvalidArgumentError
from .asking import interruptible

MOST_BYTES = 32 * 1024 * 1024


def shown(file: Path) -> str:
    """The file as a message names it."""
    return "the standard input" if str(file) == "-" else str(file)


def read_text(file: Path, most: int = MOST_BYTES) -> str:
    """Read a file in UTF-8, with or without a byte order mark.

    Args:
        file: The file; ``-`` for the standard input.
        most: The largest size, in bytes: a device or a pipe may never end.

    Raises:
        InvalidArgumentError: It cannot be read, is larger, or is not UTF-8. The message names the file.
        KeyboardInterrupt: A signal came first.
    """
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
