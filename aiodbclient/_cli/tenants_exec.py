"""Run a program with the credential of a tenant: ``tenants exec``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ..errors import InvalidArgumentError
from ..tenants import Credential, Role
from .arguments import Recorded, RoleOption, resolved
from .completion import words as completed
from .delivery import environment_of
from .help import PROGRAM
from .output import complain, safe
from .running import SOME_FAILED, writes
from .tenants_place import open_records

# What the program does not get: our secrets, and what would lead libpq to another server or login. All variables that
# begin with AIODBCLIENT_ too.
_NOT_PASSED_ON = frozenset(
    {
        *("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN"),
        *("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGOPTIONS", "PGSSLROOTCERT", "PGREQUIREAUTH"),
    }
)
_NOT_FOUND, _NOT_RUN = 127, 126  # as shells have them


@writes
async def exec_tenant(
    context: typer.Context,
    place: Recorded,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME -- PROGRAM...",
            help="The tenant, and after -- the program with its arguments.",
            show_default=False,
            autocompletion=completed,
        ),
    ] = None,
    role: RoleOption = Role.OWNER,
) -> int:
    """Run a program as a tenant: the credential is in its environment, and nowhere else.

    The variables are those of `show --output env`. The program verifies the server if it heeds them, as psql does. It
    does not get your API token, your store or its key. Exits with the program's exit code.

    Example: aiodbclient tenants exec alpha --cluster tenants-prod --store tenants.db -- psql -c "SELECT 1"
    """
    program: list[str] = context.meta.get(PROGRAM, [])
    place, [name] = resolved(place, words, 1)
    if not program:
        raise InvalidArgumentError("PROGRAM is missing: put it after --, such as -- psql. Nothing was done")
    async with open_records(place) as opened:
        names, missing = await opened.select([name], role)
        credential = await opened.tenants.role(role).get(name) if names else None
    if credential is None:
        why = missing.get(name, "no credential is stored, since its creation or removal is not finished")
        complain(f"{safe(name)}: {why}", SOME_FAILED)
        return SOME_FAILED
    with TemporaryDirectory() as folder:
        return await _run(program, _environment(credential, Path(folder)))


def _environment(credential: Credential, folder: Path) -> dict[str, str]:
    ca_file = None
    if credential.ca is not None:
        ca_file = folder / "ca.pem"
        ca_file.write_text(credential.ca)
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_PASSED_ON and not name.startswith("AIODBCLIENT_")
    }
    return passed_on | environment_of(credential, None if ca_file is None else str(ca_file))


async def _run(program: list[str], environment: dict[str, str]) -> int:
    """Run the program to its end. Returns its exit code, or as shells do 128 and the signal that killed it."""
    try:
        process = await create_subprocess_exec(*program, env=environment)
    except OSError as error:
        if not _exists(program[0], environment):  # PermissionError too, if a folder of PATH cannot be searched
            complain(f"{program[0]}: no such program", _NOT_FOUND)
            return _NOT_FOUND
        complain(f"{program[0]}: {error.strerror}", _NOT_RUN)
        return _NOT_RUN
    except ValueError:
        raise InvalidArgumentError("the arguments of a program have no NUL") from None
    _pass_on_signals(process)
    try:
        code = await process.wait()
    except asyncio.CancelledError:  # --timeout
        process.terminate()
        await process.wait()
        raise
    return code if code >= 0 else 128 - code


def _exists(program: str, environment: dict[str, str]) -> bool:
    folders = [""] if "/" in program else os.get_exec_path(environment)
    return any(os.path.exists(os.path.join(folder, program)) for folder in folders)


def _pass_on_signals(process: Process) -> None:
    """Send the program the signals that this process gets. A terminal sends Ctrl-C to both by itself."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, process.send_signal, signal.SIGTERM)
    if sys.stdin.isatty():
        loop.add_signal_handler(signal.SIGINT, lambda: None)
    else:
        loop.add_signal_handler(signal.SIGINT, process.send_signal, signal.SIGINT)
