"""Run a program with the credentials of tenants, or once for each of them: ``tenants exec``."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from attrs import asdict, define, field, frozen

from ...errors import InvalidArgumentError
from ...tenants import Role
from ..plumbing.asking import SIGNALS, has_terminal
from ..plumbing.failures import Exit
from ..plumbing.options import PROGRAM, RoleOption, Selection, StoreOptions, option
from ..plumbing.output import Output
from ..plumbing.printing import note, printable, some, took
from ..plumbing.progress import called
from ..plumbing.records import is_suspended
from ..plumbing.running import runs
from .context import names_in, open_records, open_selection
from .credentials import environment_of
from .reports import TenantReport

if TYPE_CHECKING:
    from ...bulk import Action, Failed, Run
    from ...tenants import Credential, TenantRecord

# What the program does not get: our secrets, and what would lead libpq to another server or login. All variables that
# begin with AIODBCLIENT_ too.
_NOT_PASSED_ON = {
    *("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN"),
    *("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGOPTIONS", "PGSSLROOTCERT", "PGREQUIREAUTH"),
}
_MOST_BYTES = 1 << 20  # of each output
_GRACE = 5.0  # s from SIGTERM to SIGKILL


@runs
async def exec_tenants(
    typer_context: typer.Context,
    selection: Selection,
    options: StoreOptions,
    output: Output,
    role: RoleOption = Role.OWNER,
    concurrency: Annotated[
        int, option("--concurrency", metavar="N", min=1, help="Programs at a time. Default: 8.")
    ] = 8,
    first: Annotated[int, option("--first", metavar="N", min=0, help="Run N first; the others if these succeed.")] = 0,
    version: Annotated[
        str | None,
        option("--version", metavar="TEXT", help="Skip tenants at this version, and store it where PROGRAM succeeds."),
    ] = None,
) -> int:
    """Run a program as a tenant, or for each of several.

    The credential is in its environment, as `show -o env` prints it.

    With one NAME, the program has your terminal, and this exits with its exit code. With several, -o json or --version,
    it has no input. Its output is printed when it ends, each line after the tenant's name. Exits with 1 if one failed.
    --all leaves out suspended tenants. --version without names is for all.

    Example: aiodbclient tenants exec alpha -- psql -c "SELECT 1"
    """
    program: list[str] = typer_context.meta.get(PROGRAM, [])
    wanted = names_in(selection, default_all=version is not None)
    if not program or program[0].startswith("-"):
        raise InvalidArgumentError("PROGRAM is missing: put it after --, such as -- psql")
    if not _exists(program[0]):
        note(f"{program[0]}: no such program")
        return Exit.NOT_FOUND
    if wanted is None or len(wanted) != 1 or not selection.is_typed or output.as_json or version is not None:
        async with open_selection(options, selection, [role], among=_is_awake, default_all=True) as context:
            tenants, names = context.in_role(role), context.names[role]
            parts = [part for part in (names[:first], names[first:]) if part]
            report = _ProgramReport(output, options.verbose, context=context)
            if version is None:
                report.again = ""
            work = partial(_run_quietly, program, report.begun)
            each_part = (
                (role.value, tenants.each(work, part, version=version, concurrency=concurrency)) for part in parts
            )
            return await context.follow(each_part, report)
    async with open_records(options) as on_record:
        credentials, missing = on_record.credentials(wanted, role)
    for name, why in missing.items():
        note(f"{name}: {why}")
        return Exit.SOME_FAILED
    with TemporaryDirectory() as folder:
        return await _run(program, _environment(credentials[0], Path(folder)))


def _is_awake(record: TenantRecord) -> bool:
    return not is_suspended(record)


@define
class _ProgramReport(TenantReport):
    """Prints the output of programs: on the standard output only if they succeed."""

    runs_programs: ClassVar[bool] = True
    begun: list[str] = field(factory=list[str])  # whose program was started; with their roles

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        return {} if outcome.value is None else outcome.value.as_object()

    def failed_row(self, error: Exception) -> dict[str, Any]:
        return error.ran.as_object() if isinstance(error, _ProgramError) else super().failed_row(error)

    def text(self, outcome: Any, role: str) -> str:
        if outcome.value is None:  # it was skipped
            return ""
        note(f"{outcome.name}: {took(outcome.value.seconds)}")
        return "\n".join(f"{outcome.name}: {printable(line.expandtabs())}" for line in outcome.value.lines())

    def reason(self, error: Exception) -> str:
        if not isinstance(error, _ProgramError):
            return super().reason(error)
        return "\n".join([*(line.expandtabs() for line in error.ran.lines()), str(error)])

    def summary(self, counts: Mapping[Action, int]) -> str:
        records = self.context.records[Role.OWNER].values()
        asleep = [each.name for each in records if self.context.wanted is None and is_suspended(each)]
        return super().summary(counts) + (f" ({some(asleep)}: suspended, left out)" if asleep else "")

    def hints(self, failed: Sequence[tuple[Failed, str]]) -> list[str]:
        ended = {outcome.name for outcome, _ in failed}
        names = [name for its in self.context.names.values() for name in its if name in ended]
        return [*([f"failed: {' '.join(names)}"] if names else []), *super().hints(failed)]

    def next_step(self, left: Sequence[str]) -> str:
        # The program's arguments are not repeated: they may hold a secret.
        return super().next_step(
            [name for role, its in self.context.names.items() for name in its if called(name, role) in left]
        )

    async def unfinished(self, run: Run[Any] | None) -> Sequence[str]:
        return self.begun


def _environment(credential: Credential, folder: Path) -> dict[str, str]:
    ca_file = None
    if credential.ca is not None:
        ca_file = folder / "ca.pem"
        try:
            ca_file.write_text(credential.ca)
        except OSError as error:
            error.filename = ca_file
            raise
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_PASSED_ON and not name.startswith("AIODBCLIENT_")
    }
    return passed_on | environment_of(credential, None if ca_file is None else str(ca_file))


async def _run(program: list[str], environment: dict[str, str]) -> int:
    """Run the program to its end, and return its exit code, or as shells do 128 and the signal that killed it."""
    early, loop = list[int](), asyncio.get_running_loop()
    for number in SIGNALS:  # before the program starts: a signal that comes meanwhile is its, too
        loop.add_signal_handler(number, early.append, number)
    try:
        process = await create_subprocess_exec(*program, env=environment)
    except OSError as error:
        note(f"{program[0]}: {error.strerror}")
        return Exit.NOT_RUN
    _pass_on_signals(process)
    await asyncio.sleep(0)  # the loop may not have called the first handlers yet for a signal that has come
    try:
        for each in early:
            process.send_signal(each)
        code = await process.wait()
    except asyncio.CancelledError:  # --timeout
        await _end(process, process.send_signal)
        note("--timeout has ended the program")
        return Exit.STOPPED
    return code if code >= 0 else 128 - code


def _exists(program: str) -> bool:
    folders = [""] if "/" in program else os.get_exec_path()
    return any(os.path.exists(os.path.join(folder, program)) for folder in folders)


def _pass_on_signals(process: Process) -> None:
    """Send the program the signals that this process gets, except Ctrl-C of a terminal, which both get."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, process.send_signal, number)
    if has_terminal():
        loop.add_signal_handler(signal.SIGINT, lambda: None)


@frozen
class _Ran:
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


class _ProgramError(Exception):
    def __init__(self, ran: _Ran) -> None:
        super().__init__(f"exit code {ran.exit_code} after {took(ran.seconds)}")
        self.ran = ran


async def _run_quietly(program: list[str], begun: list[str], credential: Credential) -> _Ran:
    """Run the program with its output in files, and raise ``_ProgramError`` if it fails."""
    started = monotonic()
    begun.append(called(credential.name, credential.role))
    with TemporaryDirectory() as folder:
        environment = _environment(credential, Path(folder))
        # Pipes would stay open as long as anything that the program started in the background.
        output, errors = Path(folder) / "output", Path(folder) / "errors"
        with output.open("wb") as out, errors.open("wb") as err:
            process = await create_subprocess_exec(
                *program, env=environment, stdin=DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process, partial(os.killpg, process.pid))
                raise
        code = code if code >= 0 else 128 - code
        ran = _Ran(code, monotonic() - started, _tail(output), _tail(errors))
    if code:
        raise _ProgramError(ran)
    return ran


async def _end(process: Process, send: Callable[[int], None]) -> None:
    """End a program, to which ``send`` sends a signal: with SIGTERM, and with SIGKILL what stays."""
    try:
        with suppress(ProcessLookupError, PermissionError, TimeoutError):
            send(signal.SIGTERM)
            async with asyncio.timeout(_GRACE):
                await process.wait()
    finally:
        with suppress(ProcessLookupError, PermissionError):
            send(signal.SIGKILL)
    await process.wait()


def _tail(file: Path) -> str:
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _MOST_BYTES))
        return log.read().decode(errors="replace")
