"""Run a program without a terminal, once for each tenant, so that nothing is left of it when this is cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from attrs import asdict, frozen

from .output import printable, safe, took

_MOST_BYTES = 1 << 20  # of each output
GRACE = 5.0  # s from SIGTERM to SIGKILL


@frozen
class Ran:
    """A program that has ended."""

    exit_code: int
    seconds: float
    output: str
    errors: str

    def as_object(self) -> dict[str, Any]:
        """What ``-o json`` prints of it."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


class ProgramError(Exception):
    """A program that has failed."""

    def __init__(self, ran: Ran) -> None:
        super().__init__(f"exit code {ran.exit_code} after {took(ran.seconds)}")
        self.ran = ran

    def lines(self) -> list[str]:
        """What it printed, and its exit code."""
        return [*_lines(self.ran), str(self)]


def _lines(ran: Ran) -> list[str]:
    """What it printed: first on its standard output, then on its standard error."""
    return [line for text in (ran.output, ran.errors) for line in text.splitlines() if line.strip()]


def shown_output(name: str, ran: Ran) -> str:
    """What a program printed, with the tenant's name before each line. No terminal acts on it."""
    return "\n".join(f"{safe(name)}: {printable(line.expandtabs())}" for line in _lines(ran))


async def run_quietly(program: list[str], environment: dict[str, str], folder: Path) -> Ran:
    """Run the program with its output in files of ``folder``. Raises ProgramError, or OSError if it does not start.

    Pipes would stay open as long as anything that the program started in the background.
    """
    started = monotonic()
    output, errors = folder / "output", folder / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        process = await create_subprocess_exec(
            *program, env=environment, stdin=DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
    code = code if code >= 0 else 128 - code
    ran = Ran(code, monotonic() - started, _tail(output), _tail(errors))
    if code:
        raise ProgramError(ran)
    return ran


async def _end(process: Process) -> None:
    """End the program and all that it started: with SIGTERM, and those that stay with SIGKILL."""
    try:
        _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
    finally:
        _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: Process, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tail(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - _MOST_BYTES))
        return opened.read().decode(errors="replace")
