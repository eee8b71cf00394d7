"""What ``doctor --try`` does: logins of the API, and one throw-away tenant from its making to its removal."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from .. import Cluster, ClusterClient
from ..engines import MYSQL, POSTGRESQL
from ..errors import DatabaseClientError, ServerError, TransportError
from ..tenants import Credential, SQLiteStore, Tenants
from .doctor_api import REPORT, try_api
from .doctor_findings import Findings
from .doctor_patterns import try_pattern
from .doctor_removal import remove, unfinished
from .opening import AnyBudget
from .output import note
from .running import on_signals


class _StepFailedError(Exception):
    """A step failed, and those after it make no sense."""


async def live(
    findings: Findings, cluster: ClusterClient, info: Cluster, budget: AnyBudget, *, private: bool, admin: str | None
) -> None:
    """Prove what can be proved, and remove whatever was made, also after a signal."""
    # On MySQL an underscore in a schema's name is a wildcard of grants, unless the server runs with partial_revokes.
    name = f"doctor-{secrets.token_hex(4)}" + ("_x" if info.engine in MYSQL else "")
    pending = set[str]()
    unanswered = False
    task = asyncio.current_task()

    def stop() -> None:
        nonlocal unanswered
        unanswered = budget.snapshot().in_flight > 0
        if task is not None:
            task.cancel()

    on_signals(stop)
    with TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "doctor.db") as store:
            tenants = Tenants(cluster, store, private=private, admin=admin)
            try:
                await try_api(findings, cluster, info.engine, f"{name}-t", pending)
                await _steps(findings, tenants, name, by_sql=info.engine in POSTGRESQL | MYSQL)
            except _StepFailedError as failed:
                unanswered = _is_lost(failed.__cause__)
            except DatabaseClientError as error:
                findings.fail("--try", error, REPORT)
                unanswered = _is_lost(error)
            finally:
                on_signals(lambda: note(f"wait: what was made for {name} is being removed"))
                if unanswered:
                    pending |= await unfinished(tenants, info.engine)
                await remove(findings, tenants, cluster, info, name, pending)


def _is_lost(error: object) -> bool:
    return isinstance(error, ServerError | TransportError) and error.may_have_applied


async def _steps(findings: Findings, tenants: Tenants, name: str, *, by_sql: bool) -> None:
    readers = tenants.role("reader")
    made = await _step(findings, "created", tenants.provision([name]), name + ", with the login {}")
    rights = "the login has all rights in its database, and others have none" if by_sql else "its settings are its own"
    await _check(findings, "isolated", tenants, name, rights)
    await try_pattern(findings, made)
    after = await _step(findings, "rotated", tenants.rotate([name]), "the new login is {}")
    enter = "log in" if by_sql else "have the passwords that the API knows; no connection was tried"
    await _check(findings, "both work", tenants, name, f"{made.username} and {after.username} {enter}")
    await _step(findings, "retired", tenants.retire([name]), f"{made.username} has no password that works")
    enters = "logs in" if by_sql else "is unchanged"
    await _check(findings, "still works", tenants, name, f"{after.username} {enters}")
    await _step(findings, "reader", readers.provision([name]), "the login {} only reads")
    await _check(
        findings, "reader works", readers, name, f"it {'logs in, and ' if by_sql else ''}has the rights of a reader"
    )


async def _step(findings: Findings, step: str, run: AsyncIterator[Any], found: str) -> Credential:
    started = monotonic()
    error: Exception | None = None
    outcome: Any = None
    try:
        [outcome] = [each async for each in run]
        error = outcome.error
    except DatabaseClientError as ended:
        error = ended
    if error is not None:
        findings.fail(step, error, REPORT)
        raise _StepFailedError from error
    findings.ok(step, f"{found.format(outcome.credential.username)} ({monotonic() - started:.1f} s)")
    credential: Credential = outcome.credential
    return credential


async def _check(findings: Findings, step: str, tenants: Tenants, name: str, found: str) -> None:
    async for outcome in tenants.check([name]):
        problems = outcome.error if outcome.error is not None else ", ".join(outcome.problems)
        if problems:
            findings.fail(step, problems, REPORT)
            raise _StepFailedError
    findings.ok(step, found)
