"""Run a program with the credentials of tenants, or once for each of them: ``tenants exec``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import asdict, astuple, frozen

from ..errors import InvalidArgumentError
from ..tenants import Role
from .arguments import Chosen, Recorded, RoleOption, option, role_options
from .asking import SIGNALS, some
from .delivery import environment_of
from .failures import Exit
from .files import read_names
from .following import ReportedError
from .help import PROGRAM
from .names import selecting
from .output import command_line, complain, note, printable, private, safe, this_command, took
from .printing import Printed
from .records import is_awake, is_suspended
from .running import given_options, runs
from .tenants_place import Opened, named, open_records, open_selection

if TYPE_CHECKING:
    from ..tenants import Credential

# What the program does not get: our secrets, and what would lead libpq to another server or login. All variables that
# begin with AIODBCLIENT_ too.
_NOT_PASSED_ON = frozenset(
    {
        *("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN"),
        *("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGOPTIONS", "PGSSLROOTCERT", "PGREQUIREAUTH"),
    }
)
_AT_A_TIME = 8
_MOST_BYTES = 1 << 20  # of each output
_GRACE = 5.0  # s from SIGTERM to SIGKILL


@frozen(kw_only=True)
class Pace:
    """When the programs for several tenants begin."""

    at_a_time: Annotated[
        int,
        option(
            "--at-a-time",
            metavar="N",
            min=1,
            help=f"How many programs run at a time, for several NAMEs. Default: {_AT_A_TIME}.",
        ),
    ] = _AT_A_TIME
    first: Annotated[
        int,
        option(
            "--first", metavar="N", min=0, help="Run so many alone, and the others when all of them have succeeded."
        ),
    ] = 0


@runs
async def exec_tenants(
    context: typer.Context,
    chosen: Chosen,
    place: Recorded,
    printed: Printed,
    *,
    role: RoleOption = Role.OWNER,
    pace: Pace,
) -> int:
    """Run a program as a tenant, or once for each of several: the credential is in its environment, and nowhere else.

    The variables are those of `show --output env`. The program verifies the server if it heeds them, as psql does. It
    does not get your API token, your store or its key. For one NAME it has your terminal, and this exits with its exit
    code: 127 if there is no such program, 3 if --timeout ended it, 4 if --timeout was over before it began.

    For several, and with --from, --all or -o json, it has no input, and this exits with 1 if one failed. Its
    output is printed when it ends, the last MiB of it, with the tenant's name before each line. All else, also what
    those print that fail, is on the standard error. -o json prints an object for each, with its exit code. Ctrl-C ends
    all of them. --all leaves out suspended tenants.

    Example: aiodbclient tenants exec alpha --cluster tenants-prod --store tenants.db -- psql -c "SELECT 1"
    Example: aiodbclient tenants exec --all --cluster tenants-prod --store tenants.db -- psql -c "SELECT 1"
    """
    program: list[str] = context.meta.get(PROGRAM, [])
    if not program:
        named(chosen)  # what is wrong with the names comes first
        raise InvalidArgumentError("PROGRAM is missing: put it after --, such as -- psql. Nothing was done")
    if len(chosen.names or ()) != 1 or not chosen.typed or printed.as_json:
        async with open_selection(place, chosen, [role], among=is_awake, partly=True) as opened:
            return await _exec_each(opened, program, printed, role, pace)
    [name] = read_names(chosen.names, None)
    async with open_records(place) as records:
        credentials, missing = records.credentials([name], role)
    if missing:
        complain(f"{safe(name)}: {missing[name]}", Exit.SOME_FAILED)
        return Exit.SOME_FAILED
    with TemporaryDirectory() as folder:
        return await _run(program, _environment(credentials[0], Path(folder)))


async def _exec_each(opened: Opened, program: list[str], printed: Printed, role: Role, pace: Pace) -> int:
    """Run the program for each tenant, some at a time."""
    if not _exists(program[0], dict(os.environ)):
        complain(f"{program[0]}: no such program", Exit.NOT_FOUND)
        return Exit.NOT_FOUND
    records = opened.records[role]
    asleep = [name for name, each in records.items() if opened.wanted is None and is_suspended(each)]
    left = dict.fromkeys([*opened.names[role], *opened.missing])

    async def work(credential: Credential) -> _Ran:
        with TemporaryDirectory() as folder:
            return await _run_quietly(program, _environment(credential, Path(folder)), Path(folder))

    def again(_: object) -> str:
        able = [name for name in left if name in records and not is_suspended(records[name])]
        which = selecting(able)
        options = [*role_options(role), *given_options(printed, Printed), *given_options(pace, Pace)]
        options += given_options(opened.place, Recorded, again=True)
        return command_line(["tenants", "exec", *which, *options, "--", *program])

    async def settle(outcome: Any, role: str) -> Any:
        del left[outcome.name]
        return outcome

    report = opened.report(
        printed,
        row=lambda outcome, role: outcome.value.as_object(),
        details=lambda outcome, role: _shown(outcome.name, outcome.value),
        remark=lambda outcome: took(outcome.value.seconds),
        summary=lambda failed: f" ({some(asleep)}: suspended, left out)" if asleep else "",
        settle=settle,
    )
    if asleep and printed.as_json:
        note(f"suspended, left out: {some(asleep)}")
    return await opened.whole().run(
        lambda tenants, names: tenants.each(work, names, *astuple(pace)), report, again=again, at_once=True
    )


def _environment(credential: Credential, folder: Path) -> dict[str, str]:
    ca_file = None
    if credential.ca is not None:
        ca_file = folder / "ca.pem"
        with open(ca_file, "w", opener=private) as file:
            file.write(credential.ca)
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_PASSED_ON and not name.startswith("AIODBCLIENT_")
    }
    return passed_on | environment_of(credential, None if ca_file is None else str(ca_file))


async def _run(program: list[str], environment: dict[str, str]) -> int:
    """Run the program to its end. Returns its exit code, or as shells do 128 and the signal that killed it."""
    early, loop = list[int](), asyncio.get_running_loop()
    for number in SIGNALS:  # before the program starts: a signal that comes meanwhile is its, too
        loop.add_signal_handler(number, early.append, number)
    try:
        process = await create_subprocess_exec(*program, env=environment)
    except OSError as error:
        if not _exists(program[0], environment):  # PermissionError too, if a folder of PATH cannot be searched
            complain(f"{program[0]}: no such program", Exit.NOT_FOUND)
            return Exit.NOT_FOUND
        complain(f"{program[0]}: {error.strerror}", Exit.NOT_RUN)
        return Exit.NOT_RUN
    _pass_on_signals(process)
    await asyncio.sleep(0)  # the loop may not have called the first handlers yet for a signal that has come
    try:
        for each in early:
            process.send_signal(each)
        code = await process.wait()
    except asyncio.CancelledError:  # --timeout
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        complain(f"--timeout has ended the program. To go on: {this_command()}", Exit.STOPPED)
        return Exit.STOPPED
    return code if code >= 0 else 128 - code


def _exists(program: str, environment: dict[str, str]) -> bool:
    folders = [""] if "/" in program else os.get_exec_path(environment)
    return any(os.path.exists(os.path.join(folder, program)) for folder in folders)


def _pass_on_signals(process: Process) -> None:
    """Send the program the signals that this process gets. A terminal sends Ctrl-C to both by itself."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, process.send_signal, number)
    if sys.stdin.isatty():
        loop.add_signal_handler(signal.SIGINT, lambda: None)


@frozen
class _Ran:
    """A program that has ended."""

    exit_code: int
    seconds: float
    output: str
    errors: str

    def lines(self) -> list[str]:
        """What it printed: first on its standard output, then on its standard error."""
        return [line for text in (self.output, self.errors) for line in text.splitlines() if line.strip()]

    def as_object(self) -> dict[str, Any]:
        """What ``-o json`` prints of it."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


class _ProgramError(ReportedError):
    """A program that has failed."""

    def __init__(self, ran: _Ran) -> None:
        super().__init__(f"exit code {ran.exit_code} after {took(ran.seconds)}")
        self._ran = ran

    def lines(self) -> list[str]:
        return [*self._ran.lines(), str(self)]

    def as_object(self) -> dict[str, Any]:
        return self._ran.as_object()


def _shown(name: str, ran: _Ran) -> str:
    """What a program printed, with the tenant's name before each line. No terminal acts on it."""
    return "\n".join(f"{safe(name)}: {printable(line.expandtabs())}" for line in ran.lines())


async def _run_quietly(program: list[str], environment: dict[str, str], folder: Path) -> _Ran:
    """Run the program with its output in files of ``folder``. Raises ``_ProgramError``, or OSError if there is none.

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
    ran = _Ran(code, monotonic() - started, _tail(output), _tail(errors))
    if code:
        raise _ProgramError(ran)
    return ran


async def _end(process: Process) -> None:
    """End the program and all that it started: with SIGTERM, and those that stay with SIGKILL."""
    try:
        _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
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
