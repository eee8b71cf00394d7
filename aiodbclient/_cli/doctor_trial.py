"""What ``doctor --try`` does: one throw-away tenant from its making to its removal, in the real cluster."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from .. import ClusterClient
from ..errors import DatabaseClientError
from ..tenants import Credential, SQLiteStore, Tenants
from .doctor_checks import Findings
from .output import note
from .running import on_signals

_REPORT = "See the error; if the guide promises otherwise, report it with the lines above"


_CUT = 12  # characters: MySQL has room for no more of the tenant's name in the name of a second login


class _StepFailedError(Exception):
    """A step failed, and those after it make no sense."""


async def live(findings: Findings, cluster: ClusterClient, *, private: bool, admin: str | None) -> None:
    """Make a tenant, check that it is isolated, rotate and retire it, make a reader, and remove all of it.

    Args:
        findings: Prints a line for each step.
        cluster: The cluster.
        private: As for ``Tenants``.
        admin: As for ``Tenants``.
    """
    name = f"doctor-{secrets.token_hex(4)}"
    with TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "doctor.db") as store:
            tenants = Tenants(cluster, store, private=private, admin=admin)
            try:
                await _steps(findings, tenants, name)
            except _StepFailedError:
                pass
            finally:
                on_signals(lambda: note(f"wait: the tenant {name} is being removed"))
                await _remove(findings, tenants, cluster, name)


async def _steps(findings: Findings, tenants: Tenants, name: str) -> None:
    readers = tenants.role("reader")
    made = await _step(findings, "created", tenants.provision([name]), name + ", with the login {}")
    await _check(findings, "isolated", tenants, name, "the login owns its database, and nobody else can use it")
    after = await _step(findings, "rotated", tenants.rotate([name]), "the new login is {}")
    await _check(findings, "both work", tenants, name, f"{made.username} and {after.username} log in")
    await _step(findings, "retired", tenants.retire([name]), f"{made.username} has a password that nobody has")
    await _check(findings, "still works", tenants, name, f"{after.username} logs in")
    await _step(findings, "reader", readers.provision([name]), "the login {} only reads")
    await _check(findings, "reader works", readers, name, "it logs in, and has the rights of a reader")


async def _step(findings: Findings, step: str, run: AsyncIterator[Any], found: str) -> Credential:
    started = monotonic()
    error: object = None
    outcome: Any = None
    try:
        [outcome] = [each async for each in run]
        error = outcome.error
    except DatabaseClientError as ended:
        error = ended
    if error is not None:
        findings.fail(step, error, _REPORT)
        raise _StepFailedError
    findings.ok(step, f"{found.format(outcome.credential.username)} ({monotonic() - started:.1f} s)")
    credential: Credential = outcome.credential
    return credential


async def _check(findings: Findings, step: str, tenants: Tenants, name: str, found: str) -> None:
    async for outcome in tenants.check([name]):
        problems = outcome.error if outcome.error is not None else ", ".join(outcome.problems)
        if problems:
            findings.fail(step, problems, _REPORT)
            raise _StepFailedError
    findings.ok(step, found)


async def _remove(findings: Findings, tenants: Tenants, cluster: ClusterClient, name: str) -> None:
    error: object = None
    try:
        async for outcome in tenants.remove([name]):
            error = outcome.error
        left = [user.name for user in await cluster.users.list() if user.name.startswith(name[:_CUT])]
        left += [db.name for db in await cluster.dbs.list() if db.name == name]
        if left and error is None:
            error = f"still there: {', '.join(left)}"
    except DatabaseClientError as ended:
        error = ended
    if error is None:
        findings.ok("removed", f"nothing of {name} is left")
    else:
        findings.fail(
            "removed", error, f"Look for {name} with `users list` and `dbs list`, and delete what is left by hand"
        )
