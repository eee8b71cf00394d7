"""Print: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

NAME = "aiodbclient"
# Where options come from that are not given.
CLUSTER_VARIABLE = "AIODBCLIENT_CLUSTER"
STORE_VARIABLE = "AIODBCLIENT_STORE"

_UNSAFE = "$`\\"  # what a shell may run, in a name that somebody else chose
_PASSWORD = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)")  # in a DSN: with spaces, it is in quotes
_WORDS = re.compile(r"(?<=: )(?:aiodbclient|export) .+?(?:\. (?=[A-Z])|$)|\S+ *")  # a command is one word

_speaks_json: ContextVar[bool] = ContextVar("_speaks_json", default=False)


def this_is_json(wanted: bool) -> None:
    """Print JSON on the standard error too from now on, or text."""
    _speaks_json.set(wanted)


def speaks_json() -> bool:
    """Whether each line of the standard error is a JSON object."""
    return _speaks_json.get()


class OutputError(Exception):
    """The standard output cannot be written: its disk is full, it is closed, or its reader has gone."""

    def __init__(self, error: OSError, lost: str = "") -> None:
        super().__init__(f"the standard output cannot be written: {error.strerror}")
        self.gone = isinstance(error, BrokenPipeError)
        self.lost = lost


def check_stdout(lost: str) -> None:
    """Raise OutputError if the process was started with its standard output closed. Then ``print`` would do nothing."""
    if sys.__stdout__ is None:
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)), lost)


def write(text: str, lost: str = "") -> None:
    """Print ``text`` on the standard output at once."""
    check_stdout(lost)
    try:
        print(text, end="", flush=True)
    except OSError as error:
        discard_stdout()
        raise OutputError(error, lost) from None


def private(path: str, flags: int) -> int:
    """Open a file that the command writes, for ``open``: no other user can read it."""
    handle = os.open(path, flags, 0o600)
    keep_private(handle)
    return handle


def keep_private(handle: int) -> None:
    """Take the rights of other users on an open file away."""
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        with suppress(PermissionError):  # it is another user's
            os.fchmod(handle, 0o600)


def keep_stdout_private() -> None:
    """The same for the file that the standard output is written to, if it is one: secrets follow."""
    with suppress(OSError, ValueError):  # it is no file of the system
        keep_private(sys.stdout.fileno())


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


def write_styled(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines on the standard output, each in a style where that has colours."""
    console = console_of()
    with console.capture() as captured:
        for text, style in lines:
            console.print(text, style=style, soft_wrap=True)
    write(captured.get())


def console_of(**options: Any) -> Console:
    """A console that prints each text as it is."""
    from rich.console import Console  # slow to import, and not needed for help

    return Console(highlight=False, markup=False, emoji=False, **options)


def note(text: str) -> None:
    """Print a note on the standard error."""
    _say({"note": text}, text)


def complain(text: str, code: int, **members: object) -> None:
    """Print on the standard error why the command ends, and with which exit code. ``members`` are in JSON alone."""
    _say({"error": text, "exit_code": code, **members}, text)


def _say(members: Mapping[str, object], text: str) -> None:
    write_error(f"{as_json(members) if speaks_json() else wrapped(f'{NAME}: {printable(text)}', sys.stderr)}\n")


def wrapped(text: str, stream: TextIO | None) -> str:
    """``text`` in lines that fit the terminal at ``stream``. A command is not broken, so that people can copy it."""
    if stream is None or not stream.isatty():
        return text
    from rich.cells import cell_len

    width, lines = os.get_terminal_size(stream.fileno()).columns or 80, [""]  # 0: a terminal without a size
    for word in _WORDS.findall(text):
        if lines[-1] and cell_len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join([*(line.rstrip() for line in lines[:-1]), lines[-1]])


def as_json(value: object) -> str:
    """``value`` as JSON on one line, without the characters that a shell may run."""
    return json.dumps(value).replace("$", "\\u0024").replace("`", "\\u0060")


def printable(text: object) -> str:
    """``text`` with control characters escaped, so that a name from the API cannot control the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def safe(name: object) -> str:
    """A name that somebody else chose, with all escaped that a terminal or a shell may act on."""
    return "".join(f"\\x{ord(each):02x}" if each in _UNSAFE else printable(each) for each in str(name))


def is_safe(name: str) -> bool:
    """Whether no terminal and no shell acts on any part of ``name``, whatever quotes it is between."""
    return re.fullmatch(r"[\w.@:+,/=-]+", name) is not None


def span(seconds: float) -> str:
    """A duration for people: ``45s``, ``12m``, ``3h``, ``9d``."""
    for unit, size, most in (("s", 1, 120), ("m", 60, 180), ("h", 3600, 72)):
        if seconds < size * most:
            return f"{max(round(seconds / size), 0)}{unit}"
    return f"{round(seconds / 86400)}d"


def counted(number: int, what: str) -> str:
    """A number of things: ``1 login``, ``3 logins``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def took(seconds: float) -> str:
    """A measured duration for people: ``0.3 s``, ``12m``."""
    return f"{seconds:.1f} s" if seconds < 120 else span(seconds)


def this_command(*more: str) -> str:
    """The command line of this process, to be copied, with ``more`` options unless it has them."""
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    added = [] if more and more[0] in given[:end] else more
    return command_line([*given[:end], *added, *given[end:]])


def command_line(arguments: Iterable[str]) -> str:
    """The command with ``arguments``, quoted for a shell, with the passwords of URLs and DSNs masked."""
    masked = (re.sub(r"(://[^:/@\s]*:).+@", r"\1********@", each) for each in arguments)
    return " ".join([NAME, *(quoted(_PASSWORD.sub(r"\1********", each)) for each in masked)])


def quoted(argument: str) -> str:
    r"""``argument`` for a shell. One with control characters is in the form of bash, zsh and ksh: ``$'a\x1b'``."""
    if argument.isprintable():
        return shlex.quote(argument)
    return f"$'{''.join(map(_escaped, argument))}'"


def _escaped(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
